"""The effects on an event loop, asyncio or trio, that need no HTTP library.

Rule 1: no exception group leaves here: what a callback or a background fetch raised leaves as itself.
Rule 2: nothing is yielded from inside a task group (PEP 789); one that spans a block is entered and left by hand.
"""

from __future__ import annotations

import asyncio
import sys
import time
from typing import TYPE_CHECKING, Any, TypeVar

import anyio

from cloudware_async._backend_attempt import Usable
from cloudware_async._errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterable

    from cloudware_async._backend import Ahead

T = TypeVar("T")
R = TypeVar("R")


def running_loop() -> object:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        pass
    if "trio" not in sys.modules:
        raise ConfigurationError("there is no event loop: use Cloudware, the blocking client, or asyncio or trio")
    return sys.modules["trio"].lowlevel.current_trio_token()


class AsyncEffects:
    """What does not depend on how requests are made."""

    def __init__(self) -> None:
        self.usable = Usable()

    def clock(self) -> float:
        return time.monotonic()

    async def sleep(self, seconds: float) -> None:
        await anyio.sleep(seconds)

    def ahead(self) -> Ahead:
        return _AsyncAhead()

    async def each(
        self,
        items: Iterable[T],
        work: Callable[[T], Coroutine[Any, Any, R]],
        report: Callable[[int, R], Coroutine[Any, Any, None]],
        in_flight: int,
    ) -> None:
        numbered = enumerate(items)
        raised: list[BaseException] = []
        workers = 1

        async def worker() -> None:
            nonlocal workers
            try:
                for index, item in numbered:
                    # one more for each item, so that there are never more than there is work
                    if workers < in_flight:
                        workers += 1
                        group.start_soon(worker)
                    await report(index, await work(item))
            except anyio.get_cancelled_exc_class():
                raise
            except BaseException as error:  # noqa: BLE001 (raised again below, as itself and not in a group)
                raised.append(error)
                group.cancel_scope.cancel()

        try:
            async with anyio.create_task_group() as group:
                group.start_soon(worker)
        except* KeyboardInterrupt:
            # trio raises Ctrl-C in the task that waits for the others
            raised.append(KeyboardInterrupt())
        if raised:
            raise raised[0]


class _AsyncAhead:
    def __init__(self) -> None:
        self._group = anyio.create_task_group()
        self._done = anyio.Event()
        self._outcome: tuple[Any, BaseException | None] = (None, None)

    async def open(self) -> None:
        await self._group.__aenter__()

    async def start(self, work: Callable[[], Coroutine[Any, Any, Any]]) -> None:
        self._done = anyio.Event()
        self._group.start_soon(self._run, work)

    async def _run(self, work: Callable[[], Coroutine[Any, Any, Any]]) -> None:
        try:
            self._outcome = (await work(), None)
        except anyio.get_cancelled_exc_class():
            raise
        except BaseException as error:  # noqa: BLE001 (raised again by result, as itself)
            self._outcome = (None, error)
        self._done.set()

    async def result(self) -> Any:
        await self._done.wait()
        value, error = self._outcome
        self._outcome = (None, None)
        if error is not None:
            raise error
        return value

    async def close(self) -> None:
        # the block's own exception is not handed to the group, which would wrap it, and a cancellation from outside
        # does not take its place
        self._group.cancel_scope.shield = True
        self._group.cancel_scope.cancel()
        await self._group.__aexit__(None, None, None)
