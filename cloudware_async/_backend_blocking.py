"""The effects for blocking callers that need no HTTP library: coroutines that never suspend.

Rule 1: a thread of ours is told to stop and is waited for: nothing new starts; what is under way ends or is cut off.
        What cannot be cut off, a connection being made or a client of the user's, is left to end by itself.
Rule 2: a callback runs in the caller's own thread, so it needs no lock.
"""

from __future__ import annotations

import contextlib
import contextvars
import os
import queue
import threading
import time
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from cloudware_async._backend import drive
from cloudware_async._backend_attempt import Usable

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterable

    from cloudware_async._backend import Ahead

T = TypeVar("T")
R = TypeVar("R")


# seconds that a thread has to end when its connections were shut down
_LAST_MOMENT = 1.0
# seconds; a Ctrl-C that comes just before a wait begins does not end it, so that none is longer
_LONGEST_WAIT = 0.5


class Connected(Protocol):
    """What a thread may be waiting on."""

    def shut_down(self) -> None:
        """Wake the thread that reads or writes."""
        ...


class Work:
    """What runs in threads of ours, and how it is stopped."""

    def __init__(self) -> None:
        # nothing new starts: no item, no further attempt
        self.stopping = threading.Event()
        # nothing goes on either
        self.cut = False
        self.slots: set[Connected] = set()
        self.limiter: Limiter | None = None

    def cut_off(self) -> None:
        self.stopping.set()
        self.cut = True
        for slot in list(self.slots):
            slot.shut_down()
        if self.limiter is not None:
            self.limiter.wake()


class Limiter:
    """How many connections there may be; a thread that waits for one can be woken."""

    def __init__(self, places: int) -> None:
        self._places = places
        self._changed = threading.Condition()

    def acquire(self, timeout: float, work: Work | None) -> bool:
        """Take a place; false if none became free in time, or the work was cut off."""
        with self._changed:
            if work is not None:
                work.limiter = self
            self._changed.wait_for(lambda: self._places > 0 or (work is not None and work.cut), timeout)
            is_taken = self._places > 0 and not (work is not None and work.cut)
            if is_taken:
                self._places -= 1
            else:
                # whatever woke this thread may have been meant for another
                self._changed.notify()
            return is_taken

    def release(self) -> None:
        """Give the place back."""
        with self._changed:
            self._places += 1
            self._changed.notify()

    def wake(self) -> None:
        """Let those look again who wait."""
        with self._changed:
            self._changed.notify_all()


current_work: contextvars.ContextVar[Work | None] = contextvars.ContextVar("current_work", default=None)


class BlockingEffects:
    """What does not depend on how requests are made."""

    def __init__(self) -> None:
        self.usable = Usable()

    def clock(self) -> float:
        return time.monotonic()

    async def sleep(self, seconds: float) -> bool:
        work = current_work.get()
        if work is not None:
            return not work.stopping.wait(seconds)
        time.sleep(seconds)  # noqa: ASYNC251 (a blocking effect blocks)
        return True

    def ahead(self) -> Ahead:
        return _BlockingAhead()

    async def each(
        self,
        items: Iterable[T],
        work: Callable[[T], Coroutine[Any, Any, R]],
        report: Callable[[int, R], Coroutine[Any, Any, None]],
        in_flight: int,
    ) -> None:
        """Run `work` in threads and `report` in the caller's own, so that a callback needs no lock."""
        bulk = _Bulk(report)
        executor = ThreadPoolExecutor(in_flight)
        try:
            for index, item in enumerate(items):
                await bulk.report_all(at_most_running=in_flight - 1)
                bulk.running += 1
                begun = threading.Lock()
                try:
                    executor.submit(bulk.run, begun, index, work, item)
                except RuntimeError:
                    # no thread can be started any more: the interpreter ends
                    contextvars.copy_context().run(bulk.run, begun, index, work, item)
            await bulk.report_all(at_most_running=0)
        except BaseException:
            bulk.work.stopping.set()
            try:
                # what is under way ends, so that it is known how; a second Ctrl-C does not wait for that
                executor.shutdown(cancel_futures=True)
            except BaseException:
                bulk.work.cut_off()
                await bulk.report_ended()
                raise
            await bulk.report_ended()
            raise
        finally:
            executor.shutdown(wait=False)


class _Bulk:
    """What one `each` has running and ended."""

    def __init__(self, report: Callable[[int, Any], Coroutine[Any, Any, None]]) -> None:
        self.work = Work()
        self.running = 0
        self._report = report
        self._ended: deque[tuple[int, Any, BaseException | None]] = deque()
        # what is waited for holds no result: Ctrl-C falls between a wait and what it gave
        self._woken: queue.SimpleQueue[None] = queue.SimpleQueue()

    def run(
        self, begun: threading.Lock, index: int, work: Callable[[Any], Coroutine[Any, Any, Any]], item: Any
    ) -> None:
        # an item whose thread could not be started may be with another thread already: it is begun once
        if self.work.stopping.is_set() or not begun.acquire(blocking=False):
            return
        current_work.set(self.work)
        try:
            self._ended.append((index, drive(work(item)), None))
        except BaseException as error:  # noqa: BLE001 (raised again in the caller's thread)
            self._ended.append((index, None, error))
        self._woken.put(None)

    async def report_all(self, at_most_running: int) -> None:
        """Report what has ended, and wait until no more than so many run."""
        while self.running > at_most_running or self._ended:
            try:
                self._woken.get(timeout=_LONGEST_WAIT)
            except queue.Empty:
                continue
            self.running -= 1
            index, result, error = self._ended[0]
            del self._ended[0]
            if error is not None:
                raise error
            await self._report(index, result)

    async def report_ended(self) -> None:
        """Report what ended after the end; what that raises is not the first, which leaves."""
        while self._ended:
            index, result, error = self._ended.popleft()
            if error is None:
                with contextlib.suppress(Exception):
                    await self._report(index, result)


class _BlockingAhead:
    def __init__(self) -> None:
        self._thread: _AheadThread | None = None
        self._fetch: _Fetch | None = None

    async def start(self, work: Callable[[], Coroutine[Any, Any, Any]]) -> None:
        # after a fork the thread stayed with the parent
        if self._thread is None or self._thread.process != os.getpid():
            self._thread = _AheadThread()
            self._thread.start()
        self._fetch = _Fetch(work)
        self._thread.asked.put(self._fetch)

    async def result(self) -> Any:
        assert self._fetch is not None  # noqa: S101 (it was started)
        assert self._thread is not None  # noqa: S101 (the same)
        if self._thread.process != os.getpid():
            await self.start(self._fetch.work)
        while not self._fetch.done.wait(_LONGEST_WAIT):
            pass
        if self._fetch.error is not None:
            raise self._fetch.error
        return self._fetch.value

    async def close(self) -> None:
        # nor are a parent's connections a child's to shut down
        if self._thread is not None and self._thread.process == os.getpid():
            self._thread.work.cut_off()
            self._thread.asked.put(None)
            self._thread.join(_LAST_MOMENT)


class _Fetch:
    """One run of what is fetched ahead."""

    def __init__(self, work: Callable[[], Coroutine[Any, Any, Any]]) -> None:
        self.work = work
        self.done = threading.Event()
        self.value: Any = None
        self.error: BaseException | None = None

    def run(self) -> None:
        try:
            self.value = drive(self.work())
        except BaseException as error:  # noqa: BLE001 (raised again by result, as itself)
            self.error = error
        self.done.set()


class _AheadThread(threading.Thread):
    """What fetches for one block."""

    def __init__(self) -> None:
        # a daemon: a walk that was left open does not hold up the interpreter's exit
        super().__init__(name="cloudware-read-ahead", daemon=True)
        self.process = os.getpid()
        self.work = Work()
        self.asked: queue.SimpleQueue[_Fetch | None] = queue.SimpleQueue()

    def run(self) -> None:
        current_work.set(self.work)
        while (fetch := self.asked.get()) is not None and not self.work.stopping.is_set():
            fetch.run()
