"""The effects for blocking callers that need no HTTP library: coroutines that never suspend.

Rule 1: a thread of ours is told to stop and is waited for: nothing new starts; what is under way ends or is cut off.
        What cannot be cut off, a connection being made or a client of the user's, is left to end by itself.
Rule 2: a callback runs in the caller's own thread, so it needs no lock.
Rule 3: a Ctrl-C may come anywhere in the caller's thread. Just before a wait it wakes nobody, so waits are short and
        taken up again; and no lock, no connection and no thread is left with what it cut short.
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
from cloudware_async._errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterable

    from cloudware_async._backend import Ahead

T = TypeVar("T")
R = TypeVar("R")


# seconds that a thread has to end when its connections were shut down
_LAST_MOMENT = 1.0
# seconds (rule 3)
LONGEST_WAIT = 0.5


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
        self._slots: set[Connected] = set()
        # a connection that was given back may be another's already, and is not to be shut down
        self._changing = threading.Lock()

    def hold(self, slot: Connected) -> bool:
        """Note what it waits on from here; false if nothing goes on any more."""
        with self._changing:
            if not self.cut:
                self._slots.add(slot)
            return not self.cut

    def give_back(self, slot: Connected) -> None:
        """Note that it waits on that no more."""
        with self._changing:
            self._slots.discard(slot)

    def cut_off(self) -> None:
        self.stopping.set()
        with self._changing:
            self.cut = True
            for slot in self._slots:
                slot.shut_down()


class Limiter:
    """How many connections there may be. Threads that wait for one get it in their turn."""

    def __init__(self, places: int) -> None:
        self.free = places
        self.waiting: deque[Turn] = deque()
        # a turn that is dropped may be collected, and so given back, by a thread that is within
        self.lock = threading.RLock()


class Turn:
    """A thread's turn to have a connection, given back when it is dropped at the latest.

    Whether it is held and how many are free is noted without a call between: only there would a Ctrl-C come.
    """

    # of the class, for a Ctrl-C may fall into the making of one
    is_held = False

    def __init__(self, limiter: Limiter) -> None:
        self._limiter = limiter
        self.woken: queue.SimpleQueue[None] = queue.SimpleQueue()

    def take(self, timeout: float, work: Work | None) -> bool:
        """Wait for it; false if none became free in time, or the work was cut off."""
        limiter = self._limiter
        with limiter.lock:
            if limiter.free > 0:
                limiter.free -= 1
                self.is_held = True
                return True
            limiter.waiting.append(self)
        until = time.monotonic() + timeout
        try:
            while not self.is_held and not is_cut(work) and (left := until - time.monotonic()) > 0:
                with contextlib.suppress(queue.Empty):
                    self.woken.get(timeout=min(left, LONGEST_WAIT))
        finally:
            with limiter.lock, contextlib.suppress(ValueError):
                limiter.waiting.remove(self)
        return self.is_held and not is_cut(work)

    def give_back(self) -> None:
        """Hand it to whoever has waited longest, if it is held."""
        limiter = self._limiter
        with limiter.lock:
            while self.is_held and limiter.waiting:
                following = limiter.waiting[0]
                if not following.is_held:
                    self.is_held, following.is_held = False, True
                limiter.waiting.popleft()
                following.woken.put(None)
            if self.is_held:
                self.is_held = False
                limiter.free += 1

    def __del__(self) -> None:
        if self.is_held:
            self.give_back()


def is_cut(work: Work | None) -> bool:
    """Say whether what this is part of goes on no more."""
    return work is not None and work.cut


current_work: contextvars.ContextVar[Work | None] = contextvars.ContextVar("current_work", default=None)


class BlockingEffects:
    """What does not depend on how requests are made."""

    def __init__(self) -> None:
        self.usable = Usable()

    def clock(self) -> float:
        return time.monotonic()

    async def sleep(self, seconds: float) -> bool:
        work = current_work.get()
        stopping = threading.Event() if work is None else work.stopping
        until = time.monotonic() + seconds
        while not stopping.wait(max(0.0, min(until - time.monotonic(), LONGEST_WAIT))):
            if time.monotonic() >= until:
                return True
        return False

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
        bulk = _Bulk(work, report)
        executor = ThreadPoolExecutor(in_flight)
        try:
            for index, item in enumerate(items):
                await bulk.report_all(at_most_running=in_flight - 1)
                bulk.ask(index, item)
                if bulk.threads < bulk.running:
                    bulk.start_thread(executor)
            await bulk.report_all(at_most_running=0)
        except BaseException:
            bulk.work.stopping.set()
            bulk.end()
            try:
                # what is under way ends, so that it is known how; a second Ctrl-C does not wait for that
                _finish(executor)
            except BaseException:
                bulk.work.cut_off()
                await bulk.report_ended()
                raise
            await bulk.report_ended()
            raise
        finally:
            bulk.end()
            executor.shutdown(wait=False)


def _finish(executor: ThreadPoolExecutor) -> None:
    """Wait until its threads have ended; its own `shutdown` does so in waits that have no end."""
    executor.shutdown(wait=False, cancel_futures=True)
    for thread in executor._threads:  # noqa: SLF001 (no public way)
        while thread.is_alive():
            thread.join(LONGEST_WAIT)


class _Bulk:
    """What one `each` has running and ended.

    Between the caller's thread and the others stand only queues that a Ctrl-C cannot leave locked.
    """

    def __init__(
        self, work: Callable[[Any], Coroutine[Any, Any, Any]], report: Callable[[int, Any], Coroutine[Any, Any, None]]
    ) -> None:
        self.work = Work()
        self.running = 0
        self.threads = 0
        self._process = os.getpid()
        self._do = work
        self._report = report
        self._asked: queue.SimpleQueue[tuple[int, Any] | None] = queue.SimpleQueue()
        self._ended: deque[tuple[int, Any, BaseException | None]] = deque()
        # what is waited for holds no result: Ctrl-C falls between a wait and what it gave
        self._woken: queue.SimpleQueue[None] = queue.SimpleQueue()

    def ask(self, index: int, item: Any) -> None:
        """Have an item worked on by whichever thread comes first."""
        self._check_process()
        self.running += 1
        self._asked.put((index, item))

    def _check_process(self) -> None:
        if self._process != os.getpid():
            # by a callback or an iterator: the threads stayed with the parent, which sends what is left
            raise ConfigurationError("this process was forked within send_many, which goes on in its parent only")

    def start_thread(self, executor: ThreadPoolExecutor) -> None:
        try:
            executor.submit(self._run)
            self.threads += 1
        except RuntimeError:
            # none can be started: the system gives no more, or the interpreter ends
            if self.threads == 0:
                contextvars.copy_context().run(self._run_next)

    def end(self) -> None:
        """Let the threads end when they are done."""
        self._asked.put(None)

    def _run(self) -> None:
        while self._run_next():
            pass

    def _run_next(self) -> bool:
        asked = self._asked.get()
        if asked is None or self.work.stopping.is_set():
            # for the next thread
            self._asked.put(None)
            return False
        current_work.set(self.work)
        index, item = asked
        try:
            self._ended.append((index, drive(self._do(item)), None))
        except BaseException as error:  # noqa: BLE001 (raised again in the caller's thread)
            self._ended.append((index, None, error))
        self._woken.put(None)
        return True

    async def report_all(self, at_most_running: int) -> None:
        """Report what has ended, and wait until no more than so many run."""
        while self.running > at_most_running or self._ended:
            self._check_process()
            try:
                self._woken.get(timeout=LONGEST_WAIT)
            except queue.Empty:
                continue
            index, result, error = self._ended[0]
            if error is not None:
                raise error
            await self._report(index, result)
            self._ended.popleft()
            self.running -= 1

    async def report_ended(self) -> None:
        """Report what ended after the end; neither what that raises nor one more Ctrl-C keeps the rest untold."""
        is_interrupted = False
        while self._ended:
            index, result, error = self._ended[0]
            try:
                if error is None:
                    await self._report(index, result)
            except KeyboardInterrupt:
                if is_interrupted:
                    raise
                is_interrupted = True
            except Exception:  # noqa: BLE001, S110 (not the first, which leaves)
                pass
            self._ended.popleft()


class _BlockingAhead:
    def __init__(self) -> None:
        self._thread: _AheadThread | None = None
        self._fetch: _Fetch | None = None

    async def start(self, work: Callable[[], Coroutine[Any, Any, Any]]) -> None:
        self._fetch = _Fetch(work)
        thread = self._living_thread()
        if thread is None:
            thread = self._thread = _AheadThread()
            # where the system gives none it is fetched when it is asked for
            with contextlib.suppress(RuntimeError):
                thread.start()
        thread.asked.put(self._fetch)

    def _living_thread(self) -> _AheadThread | None:
        # after a fork it stayed with the parent
        thread = self._thread
        return thread if thread is not None and thread.process == os.getpid() and thread.is_alive() else None

    async def result(self) -> Any:
        assert self._fetch is not None  # noqa: S101 (it was started)
        if self._living_thread() is None:
            return await self._fetch.work()
        while not self._fetch.done.wait(LONGEST_WAIT):
            pass
        if self._fetch.error is not None:
            raise self._fetch.error
        return self._fetch.value

    async def close(self) -> None:
        # a parent's connections are not a child's to shut down
        thread = self._living_thread()
        if thread is not None:
            thread.work.cut_off()
            thread.asked.put(None)
            thread.join(_LAST_MOMENT)


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
