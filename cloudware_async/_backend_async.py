"""The effects on an event loop, asyncio or trio, that need no HTTP library.

Rule 1: no exception group leaves here: what a callback or a background fetch raised leaves as itself.
Rule 2: no task group and no cancel scope spans a block of the user's (PEP 789): what runs beside it is a task of
        its own, told to stop by hand.
"""

from __future__ import annotations

import asyncio
import sys
import time
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, TypeVar

import anyio

from cloudware_async._backend_attempt import Usable
from cloudware_async._backend_forks import start_afresh_after_fork
from cloudware_async._errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterable

    from cloudware_async._backend import Ahead

T = TypeVar("T")
R = TypeVar("R")

# set when the bulk that a task works for takes nothing new
_stopping: ContextVar[anyio.Event | None] = ContextVar("cloudware_stopping", default=None)
_NAME = "cloudware-read-ahead"
# asyncio itself keeps only weak references to its tasks
_tasks: set[asyncio.Task[None]] = set()


def running_loop() -> object:
    """Give what stands for the event loop that runs here.

    Raises:
        ConfigurationError: there is none.
    """
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        pass
    try:
        return sys.modules["trio"].lowlevel.current_trio_token()
    except (KeyError, RuntimeError):
        pass
    raise ConfigurationError("there is no event loop: use Cloudware, the blocking client, or asyncio or trio")


def is_cancelled(error: BaseException) -> bool:
    """Say whether an exception is the cancellation of this task, and not one that somebody raised by hand."""
    if not isinstance(error, anyio.get_cancelled_exc_class()):
        return False
    # trio's has no constructor
    return not isinstance(error, asyncio.CancelledError) or _current_task().cancelling() > 0


def _current_task() -> asyncio.Task[Any]:
    task = asyncio.current_task()
    assert task is not None  # noqa: S101 (whoever asks is one)
    return task


class AsyncEffects:
    """What does not depend on how requests are made."""

    def __init__(self) -> None:
        self.usable = Usable()
        start_afresh_after_fork(self)

    def _start_afresh(self) -> None:
        # the child's own event loop is another one
        self.usable.loop = None

    def clock(self) -> float:
        return time.monotonic()

    async def sleep(self, seconds: float) -> bool:
        stopping = _stopping.get()
        if stopping is None:
            await anyio.sleep(seconds)
            return True
        with anyio.move_on_after(seconds):
            await stopping.wait()
        return not stopping.is_set()

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
        stopping = anyio.Event()
        workers = 1

        async def worker() -> None:
            nonlocal workers
            try:
                while not raised:
                    taken = next(numbered, None)
                    if taken is None:
                        return
                    # one more for each item, so that there are never more than there is work
                    if workers < in_flight:
                        workers += 1
                        group.start_soon(worker)
                    index, item = taken
                    # what a callback starts goes on when the bulk is stopped
                    token = _stopping.set(stopping)
                    result = await work(item)
                    _stopping.reset(token)
                    await report(index, result)
            except BaseException as error:
                # raised again below, as itself and not in a group
                raised.append(error)
                stopping.set()
                if is_cancelled(error):
                    raise
                if isinstance(error, KeyboardInterrupt):
                    # whoever presses Ctrl-C does not want to wait
                    group.cancel_scope.cancel()

        try:
            async with anyio.create_task_group() as group:
                group.start_soon(worker)
        except* KeyboardInterrupt:
            # trio raises Ctrl-C in the task that waits for the others
            raised.insert(0, KeyboardInterrupt())
        if raised:
            raise raised[0]


class _AsyncAhead:
    def __init__(self) -> None:
        self._fetch: _Fetch | None = None

    async def start(self, work: Callable[[], Coroutine[Any, Any, Any]]) -> None:
        self._fetch = _Fetch(work)
        self._fetch.start()

    async def result(self) -> Any:
        assert self._fetch is not None  # noqa: S101 (it was started)
        await self._fetch.done.wait()
        if isinstance(self._fetch.error, asyncio.CancelledError):
            # somebody cancels every task there is
            return await self._fetch.work()
        if self._fetch.error is not None:
            raise self._fetch.error
        return self._fetch.value

    async def close(self) -> None:
        if self._fetch is not None:
            self._fetch.scope.cancel()
            with anyio.CancelScope(shield=True):
                await self._fetch.done.wait()


class _Fetch:
    """One run of what is fetched ahead, beside the caller and bound to no block of anybody's."""

    def __init__(self, work: Callable[[], Coroutine[Any, Any, Any]]) -> None:
        self.scope = anyio.CancelScope()
        self.done = anyio.Event()
        self.value: Any = None
        self.error: BaseException | None = None
        self.work = work

    def start(self) -> None:
        loop = running_loop()
        if isinstance(loop, asyncio.AbstractEventLoop):
            task = loop.create_task(self._run(), name=_NAME)
            _tasks.add(task)
            task.add_done_callback(self._end)
        else:
            sys.modules["trio"].lowlevel.spawn_system_task(self._run, name=_NAME)

    async def _run(self) -> None:
        try:
            with self.scope:
                self.value = await self.work()
        except BaseException as error:  # noqa: BLE001 (raised again by result, as itself)
            self.error = error
        self.done.set()

    def _end(self, task: asyncio.Task[None]) -> None:
        _tasks.discard(task)
        if task.cancelled():
            # before its first step, so that it ran none of itself
            self.error = asyncio.CancelledError()
            self.done.set()
