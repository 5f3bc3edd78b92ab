"""The few effects that the client needs, and how a coroutine is run that never waits.

Rule 1: whatever waits, sleeps, opens a socket or starts a task or a thread is a method of a `Backend`.
Rule 2: the effects of a blocking backend are coroutines that never suspend, so `drive` runs any coroutine
        over them to its result, without an event loop.
Rule 3: an exchange ends by its deadline; what it could not know is said by a `Failure`, never guessed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from cloudware_async._errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterable

    from cloudware_async._wire import Answer, Failure, Request

T = TypeVar("T")
R = TypeVar("R")

CLOSED = "this client is closed: make another one"


class Ahead(Protocol):
    """One coroutine at a time that runs while the caller does something else."""

    async def start(self, work: Callable[[], Coroutine[Any, Any, Any]]) -> None:
        """Begin to run `work`; the one before it has been awaited with `result`, and `close` must follow."""
        ...

    async def result(self) -> Any:
        """Wait for what was started: return what it returned or raise what it raised, as itself.

        A wait that was interrupted may be taken up again.
        """
        ...

    async def close(self) -> None:
        """Stop what still runs and wait until it has stopped."""
        ...


class Backend(Protocol):
    """The effects, over one HTTP library in one world (an event loop, or blocking)."""

    def clock(self) -> float:
        """Give seconds that only grow."""
        ...

    async def sleep(self, seconds: float) -> bool:
        """Wait; false, and sooner, if what this is part of was told to stop."""
        ...

    async def exchange(self, request: Request, *, connect_timeout: float, deadline: float) -> Answer | Failure:
        """Write one request and read its answer, at most until `deadline` on the clock.

        Raises:
            ConfigurationError: the client is closed, or was used before from another event loop.
        """
        ...

    async def each(
        self,
        items: Iterable[T],
        work: Callable[[T], Coroutine[Any, Any, R]],
        report: Callable[[int, R], Coroutine[Any, Any, None]],
        in_flight: int,
    ) -> None:
        """Run `work` on every item, at most `in_flight` at once, and `report` each result with its item's index.

        What `items`, `work` or `report` raises leaves as itself, and from then on, or on cancellation or Ctrl-C,
        nothing new starts: no item and no further attempt. What is under way ends and is reported, unless it is cut off
        by a cancellation or a second Ctrl-C. `report` may get a result again in whose telling a Ctrl-C fell.
        """
        ...

    def ahead(self) -> Ahead:
        """Give the means to run one coroutine ahead."""
        ...

    async def close(self) -> None:
        """Close every connection that is ours; requests under way end first."""
        ...


def drive(coroutine: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine that never suspends to its result.

    Raises:
        ConfigurationError: it waited for something of the user's that needs an event loop.
    """
    try:
        coroutine.send(None)
        # raised where it waits, so that whatever it has begun it ends in good order
        coroutine.throw(ConfigurationError("a blocking client has no event loop: give it functions that do not await"))
    except StopIteration as stop:
        result: T = stop.value
        return result
    coroutine.close()
    raise ConfigurationError("a blocking client has no event loop, and what it was given goes on waiting for one")
