"""What a run came to: lines on the terminal, and the table and the plots of `docs/benchmarks.md`.

    python benchmarks/speed/report.py     writes table and plots again from results.json

Rule 1. Nothing is measured or left out here.
Rule 2. What moved is a row whose median changed by more than MOVED and whose quartiles no longer touch the committed
        ones; or one that is within its target now and was not, or the other way round.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from rows import Row, read_row

MOVED = 0.05
BEGIN, END = "<!-- table: written by benchmarks/speed/report.py -->", "<!-- end of the table -->"
OURS, PEER, FLOOR = "#2f6f4f", "#b0703c", "#8a8f98"
FLOORS = ("httpx", "aiohttp", "requests", "http.client", "plain socket")


def line(row: Row) -> str:
    """Write a row in one line."""
    verdict = "" if row.target is None else f", at most {row.target:.2f}{'' if row.is_met else ': MISSED'}"
    plain = f"{row.what} / {row.against}".replace("`", "")
    return f"{plain}: {row.ratio}{verdict}; {row.to_floor:g} times {row.floor.replace('`', '')}"


def conditions_text(conditions: dict[str, Any]) -> str:
    """Say what a run ran on."""
    packages = ", ".join(f"{name} {number}" for name, number in conditions["packages"].items())
    cores = "the gateway on a core of its own" if conditions["pinned"] else "cores not chosen"
    loads = [load for load in conditions["load"] if load is not None]
    return (
        f"{conditions['date']}, {conditions['python']} on {conditions['system']}, {conditions['cpu']}, "
        f"{conditions['cores']} cores, {cores}; asyncio's own event loop. {packages}. The run took "
        f"{conditions['seconds']} s, at a load of {min(loads, default=0):g} to {max(loads, default=0):g} (its own "
        f"included). The gateway used {conditions['gateway_microseconds']:g} µs of CPU a request."
    )


def compare(rows: list[Row], committed: dict[str, Row]) -> str:
    """Say what moved (rule 2)."""
    lines = []
    for row in rows:
        before = committed.get(row.key)
        if before is None:
            lines.append(f"new:    {line(row)}")
            continue
        change = row.ratio.median / before.ratio.median - 1
        has_moved = abs(change) > MOVED and not row.ratio.overlaps(before.ratio)
        word = ("slower" if change > 0 else "faster") if has_moved else "same"
        if row.is_met != before.is_met:
            word = "now met" if row.is_met else "now missed"
        what = f"{row.what} / {row.against}".replace("`", "")
        lines.append(f"{word + ':':12}{before.ratio.median:6.2f} -> {row.ratio.median:6.2f} ({change:+.0%})  {what}")
    return "\n".join(["against the committed ratios:", *lines])


# ----------------------------------------------------------------------------------------------------
# the page


def table(rows: list[Row], conditions: dict[str, Any]) -> str:
    """Write the table in Markdown."""
    lines = [
        "| what | against | of | ratio: median (quartiles) | at most | rounds | how far from the floor |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for row in rows:
        target = "–" if row.target is None else f"{row.target:.2f}"
        ratio = str(row.ratio) if row.is_met else f"**{row.ratio}**"
        lines.append(
            f"| {row.what} | {row.against} | {row.measure} | {ratio} | {target} | {row.rounds} "
            f"| {row.to_floor:.2f} × {row.floor} |"
        )
    missed = sum(not row.is_met for row in rows)
    verdict = f"**Bold** is beyond its target ({missed})." if missed else "Every row is within its target."
    return "\n".join([*lines, "", verdict, "", f"Conditions: {conditions_text(conditions)}"])


def write(docs: Path, results: dict[str, Any]) -> None:
    """Put the table into the page, and draw the plots."""
    rows = [read_row(fields) for fields in results["rows"]]
    page = docs / "benchmarks.md"
    before, _, rest = page.read_text().partition(BEGIN)
    after = rest.partition(END)[2]
    page.write_text(f"{before}{BEGIN}\n\n{table(rows, results['conditions'])}\n\n{END}{after}")
    folder = docs / "benchmarks"
    folder.mkdir(exist_ok=True)
    draw_sends(folder / "sends.svg", results["details"])
    draw_rows(folder / "rows.svg", rows)
    draw_startup(folder / "startup.svg", results["details"]["start-up"])


# ----------------------------------------------------------------------------------------------------
# the plots


def _colour(name: str) -> str:
    if name.lower().startswith(("cloudware", "asynccloudware")):
        return OURS
    return FLOOR if name.startswith(FLOORS) else PEER


def _bars(axes: Any, found: dict[str, dict[str, float]], scale: float, digits: int = 0) -> None:
    names = sorted(found, key=lambda name: -found[name]["median"])
    for height, name in enumerate(names):
        one = {key: value * scale for key, value in found[name].items()}
        axes.barh(height, one["median"], color=_colour(name), height=0.7)
        axes.plot([one["low"], one["high"]], [height, height], color="black", linewidth=1)
        axes.text(max(one["high"], one["median"]), height, f"  {one['median']:.{digits}f}", va="center", fontsize=8)
    axes.set_yticks(range(len(names)), names, fontsize=8)
    axes.margins(x=0.14)
    axes.spines[["top", "right"]].set_visible(False)


def _save(figure: Any, path: Path) -> None:
    import matplotlib as mpl

    figure.tight_layout()
    # the same numbers give the same file
    mpl.rcParams["svg.hashsalt"] = path.name
    figure.savefig(path, metadata={"Date": None})


def draw_sends(path: Path, details: dict[str, Any]) -> None:
    """Draw the CPU of a send, client by client."""
    import matplotlib.pyplot as plt

    groups = {part: found for part, found in details.items() if part.startswith("sends, ")}
    figure, grid = plt.subplots(2, 2, figsize=(10, 6.4))
    for axes, (part, found) in zip(grid.flat, groups.items(), strict=True):
        _bars(axes, found, 1e6)
        axes.set_title(part.removeprefix("sends, "), fontsize=9, loc="left")
        axes.set_xlabel("µs of CPU a send", fontsize=8)
    _save(figure, path)


def draw_rows(path: Path, rows: list[Row]) -> None:
    """Draw each row as a part of what it may be."""
    import matplotlib.pyplot as plt

    shown = [row for row in rows if row.target is not None][::-1]
    figure, axes = plt.subplots(figsize=(10, 0.3 * len(shown) + 1))
    for height, row in enumerate(shown):
        target = row.target or 1.0
        ratio = row.ratio
        axes.barh(height, ratio.median / target, color=OURS if row.is_met else PEER, height=0.7)
        axes.plot([ratio.low / target, ratio.high / target], [height, height], color="black", linewidth=1)
        axes.text(0.02, height, f"{ratio.median:.2f} of at most {target:.2f}", va="center", fontsize=7, color="white")
    names = [f"{row.what} / {row.against}".replace("`", "") for row in shown]
    axes.set_yticks(range(len(shown)), names, fontsize=7)
    axes.axvline(1, color="black", linewidth=1, linestyle="--")
    axes.set_xlabel("ratio as a part of its target", fontsize=8)
    axes.spines[["top", "right"]].set_visible(False)
    _save(figure, path)


def draw_startup(path: Path, found: dict[str, dict[str, float]]) -> None:
    """Draw how long each client takes to be ready."""
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(7, 3.4))
    _bars(axes, found, 1e3)
    axes.set_xlabel("ms until ready, net of the interpreter (whose own is a bar here)", fontsize=8)
    _save(figure, path)


def main() -> None:
    """Write the page again."""
    root = Path(__file__).resolve().parent.parent.parent
    write(root / "docs", json.loads((root / "benchmarks" / "results.json").read_text()))


if __name__ == "__main__":
    main()
