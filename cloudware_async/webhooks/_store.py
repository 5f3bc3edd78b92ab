"""What remembers which messages were handled, so that none is handled twice.

Rule 1: a message is *claimed* before it is handled. Of several who claim it at once, one gets it.
Rule 2: a claim lasts as long as the store that made it, and ends when that is closed or its process dies, by
        whatever death. There is no lease to run out under a handler that takes its time.
Rule 3: what was handled is forgotten after the horizon; what is recorded and not yet handled never is.
Rule 4: a text is kept until it was handled, and no longer.
Rule 5: methods block and may be called from any thread. What they raise is a failure of the store: nothing is
        answered with success then.
"""

from __future__ import annotations

import math
import threading
import time
from collections import OrderedDict
from enum import Enum
from typing import TYPE_CHECKING, Protocol, final, runtime_checkable

import attrs

from cloudware_async._backend_forks import start_afresh_after_fork
from cloudware_async._errors import ConfigurationError
from cloudware_async._privacy import mask_text

if TYPE_CHECKING:
    from collections.abc import Sequence

DAY = 24 * 60 * 60.0  # seconds
HORIZON = 7 * DAY
_LONGEST_PAUSE = 600.0


class Standing(Enum):
    """How a message stands when somebody wants to handle it."""

    CLAIMED = "it is the caller's to handle, and nobody else's"
    BUSY = "somebody else has claimed it and is at it"
    HANDLED = "it was handled"


@attrs.frozen
class Recorded:
    """A message that a durable store handed out to be handled.

    Attributes:
        key: its 32 bytes.
        body: the webhook's body.
        attempts: how often it was handed out, this time included.
    """

    key: bytes = attrs.field(repr=False)
    body: bytes = attrs.field(repr=lambda body: mask_text(body.decode(errors="replace")))
    attempts: int


@runtime_checkable
class Store(Protocol):
    """Remembers which messages were handled. One store belongs to one receiver."""

    def claim(self, key: bytes) -> Standing:
        """Claim a message for the caller, unless it was handled or somebody else is at it."""
        ...

    def finish(self, key: bytes) -> None:
        """Remember that a claimed message was handled."""
        ...

    def release(self, key: bytes, delay: float) -> None:
        """End a claim without success: the message is as unseen, or if it is recorded, due again in `delay` seconds."""
        ...

    def close(self) -> None:
        """Let go of every claim and connection. A later call opens the store again."""
        ...


@runtime_checkable
class DurableStore(Store, Protocol):
    """A store that also keeps messages until they are handled, beyond the end of the process."""

    def record(self, key: bytes, body: bytes) -> None:
        """Keep a message until it is handled, durably; a repeat of an unhandled one makes that one due now."""
        ...

    def take(self, most: int) -> Sequence[Recorded]:
        """Claim the recorded messages that are due, at most so many, oldest first.

        One that has been handed out before waits for `longest_pause`, should the process die of it again.
        """
        ...


def longest_pause(attempts: int) -> float:
    """Say how many seconds at most a message waits after so many attempts: one, doubled each time, at most 600."""
    # the exponent is bounded: 2.0**1024 overflows
    return min(_LONGEST_PAUSE, 2.0 ** min(attempts - 1, 60))


def read_horizon(horizon: object) -> float:
    """Check a horizon.

    Raises:
        ConfigurationError: it is no number of seconds above zero.
    """
    if isinstance(horizon, bool) or not isinstance(horizon, int | float) or not 0 < horizon < math.inf:
        raise ConfigurationError("horizon takes seconds, finite and above zero")
    # the calendars of databases end somewhere
    return min(float(horizon), 100 * 365 * DAY)


@final
class MemoryStore:
    """Remembers in this process only: for one process, and where a repeat after a restart does no harm.

    It keeps no text, about 200 bytes a message, and of a million messages at most the latest.

    Args:
        horizon: seconds; how long a handled message is known again. By default 7 days.

    Raises:
        ConfigurationError: `horizon` is no number of seconds above zero.
    """

    def __init__(self, *, horizon: float = HORIZON) -> None:
        self._horizon = read_horizon(horizon)
        self._most = 1_000_000
        self._start_afresh()
        start_afresh_after_fork(self)

    def _start_afresh(self) -> None:
        self._lock = threading.Lock()
        self._claimed: set[bytes] = set()
        # when each was handled, oldest first
        self._handled: OrderedDict[bytes, float] = OrderedDict()

    def claim(self, key: bytes) -> Standing:
        """Claim a message for the caller, unless it was handled or somebody else is at it."""
        with self._lock:
            self._forget_the_old()
            if key in self._handled:
                return Standing.HANDLED
            if key in self._claimed:
                return Standing.BUSY
            self._claimed.add(key)
            return Standing.CLAIMED

    def finish(self, key: bytes) -> None:
        """Remember that a claimed message was handled."""
        with self._lock:
            self._claimed.discard(key)
            self._handled[key] = time.monotonic()
            if len(self._handled) > self._most:
                self._handled.popitem(last=False)

    def release(self, key: bytes, delay: float) -> None:
        """End a claim without success: the message is as unseen."""
        with self._lock:
            self._claimed.discard(key)

    def close(self) -> None:
        """Do nothing: what was handled stays known."""

    def _forget_the_old(self) -> None:
        limit = time.monotonic() - self._horizon
        while self._handled and next(iter(self._handled.values())) < limit:
            self._handled.popitem(last=False)
