"""A row of the table: what was measured against what, round by round, and how much it may be.

Rule 1. A round measures one right after the other, so what else the machine does meets both; a round's ratio is theirs.
Rule 2. A row is the median of its rounds' ratios, and its spread their quartiles. No round is left out.
Rule 3. Each row also says how far it is from its floor: the least that doing the same could cost.
"""

from __future__ import annotations

import statistics
from typing import TYPE_CHECKING, Any

import attrs

if TYPE_CHECKING:
    from collections.abc import Sequence


def tidy(number: float) -> float:
    """Keep four digits: no run knows more."""
    return float(f"{number:.4g}")


@attrs.frozen
class Spread:
    """The median and the quartiles of some numbers."""

    median: float = attrs.field(converter=tidy)
    low: float = attrs.field(converter=tidy)
    high: float = attrs.field(converter=tidy)

    def __str__(self) -> str:
        return f"{self.median:.2f} ({self.low:.2f} to {self.high:.2f})"

    def overlaps(self, other: Spread) -> bool:
        """Say whether the quartiles of both have values in common."""
        return self.low <= other.high and other.low <= self.high


def spread(numbers: Sequence[float]) -> Spread:
    """Take the median and the quartiles."""
    if len(numbers) == 1:
        return Spread(numbers[0], numbers[0], numbers[0])
    low, median, high = statistics.quantiles(numbers, n=4, method="inclusive")
    return Spread(median, low, high)


def ratios(ours: Sequence[float], theirs: Sequence[float]) -> list[float]:
    """Give each round's ratio (rule 1)."""
    return [one / other for one, other in zip(ours, theirs, strict=True)]


@attrs.frozen
class Row:
    """One row.

    Attributes:
        key: its name from run to run.
        what: what was measured.
        against: what it was compared with.
        measure: CPU, wall time, bytes or connections.
        target: the most that the ratio may be; None where nothing was promised.
        ratio: what it was.
        rounds: of how many rounds.
        floor: what the floor is.
        to_floor: how many times the floor it is.
    """

    key: str
    what: str
    against: str
    measure: str
    target: float | None
    ratio: Spread
    rounds: int
    floor: str
    to_floor: float

    @property
    def is_met(self) -> bool:
        """Whether the target is met."""
        return self.target is None or self.ratio.median <= self.target

    def asdict(self) -> dict[str, Any]:
        """Give it as JSON has it."""
        return attrs.asdict(self)


def make_row(
    key: str,
    what: str,
    against: str,
    measure: str,
    target: float | None,
    *,
    ours: Sequence[float],
    theirs: Sequence[float],
    floor: tuple[str, Sequence[float]],
) -> Row:
    """Compare what was measured round by round."""
    name, least = floor
    to_floor = tidy(statistics.median(ratios(ours, least)))
    return Row(key, what, against, measure, target, spread(ratios(ours, theirs)), len(ours), name, to_floor)


def read_row(fields: dict[str, Any]) -> Row:
    """Read a row that `asdict` gave."""
    return Row(**{**fields, "ratio": Spread(**fields["ratio"])})
