"""The few effects that receiving needs, in the two worlds: on an event loop, and blocking.

Rule 1: what is decided is written once, as coroutines over these effects. The blocking ones never suspend, so
        `cloudware_async._backend.drive` runs such a coroutine without an event loop.
Rule 2: on an event loop nothing blocks it: a store runs in a thread, and so does a handler that is no coroutine
        function, with all that belongs to its message.
Rule 3: what was begun in a thread is waited for to its end, though the task is cancelled meanwhile. Only then
        the cancellation goes on.
"""

from __future__ import annotations

import asyncio
import inspect
import threading
import time
from collections.abc import AsyncIterable, Awaitable, Callable, Coroutine, Iterable
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

import anyio
import anyio.from_thread
import anyio.lowlevel
import anyio.to_thread

from cloudware_async._backend import drive
from cloudware_async._backend_async import is_cancelled
from cloudware_async._errors import ConfigurationError
from cloudware_async.webhooks._store import MemoryStore, Store

if TYPE_CHECKING:
    from cloudware_async._models import Message

T = TypeVar("T")

Handler = Callable[["Message"], object]

# Threads for stores, to each event loop. A store lets in one at a time, so that more would only wait.
_STORE_THREADS = 4
_store_threads: anyio.lowlevel.RunVar[anyio.CapacityLimiter] = anyio.lowlevel.RunVar("cloudware_webhook_store_threads")


class Effects(Protocol):
    """What waits."""

    async def read(self, body: Any, most: int) -> bytes | None:
        """Read a body, or give None as soon as it is longer than `most` bytes."""
        ...

    async def store(self, call: Callable[..., T], *args: object, undo: Callable[[T], object] | None = None) -> T:
        """Call the store; `undo` is called with what it gave if nobody is left to take it."""
        ...

    async def perform(
        self, handler: Handler, work: Callable[[Effects], Coroutine[Any, Any, T]], give_back: Callable[[], object]
    ) -> T:
        """Do the work that calls the handler, where that belongs; `give_back` is called if it cannot be begun."""
        ...

    async def handle(self, handler: Handler, message: Message) -> None:
        """Call the handler, and wait for it if it is asynchronous; only within `perform`."""
        ...

    async def sleep(self, seconds: float) -> None:
        """Wait."""
        ...

    def ends(self, error: BaseException) -> bool:
        """Say whether an exception is the end of who works here, and not something that the handler raised."""
        ...


class AsyncEffects:
    """The effects on an event loop, asyncio's or trio's.

    Args:
        store: what the calls of `store` go to.
        handler_threads: how many handlers may be in threads at once; None for as many as anyio allows for all.
    """

    def __init__(self, store: Store, handler_threads: anyio.CapacityLimiter | None = None) -> None:
        # memory is quicker than a thread
        self._is_quick = isinstance(store, MemoryStore)
        self._handler_threads = handler_threads

    async def read(self, body: bytes | bytearray | AsyncIterable[bytes], most: int) -> bytes | None:
        if not isinstance(body, AsyncIterable):
            return _within(body, most)
        whole = bytearray()
        async for chunk in body:
            whole += chunk
            if len(whole) > most:
                return None
        return bytes(whole)

    async def store(self, call: Callable[..., T], *args: object, undo: Callable[[T], object] | None = None) -> T:
        if self._is_quick:
            return call(*args)
        try:
            threads = _store_threads.get()
        except LookupError:
            threads = anyio.CapacityLimiter(_STORE_THREADS)
            _store_threads.set(threads)
        errand = _Errand(lambda: call(*args))
        try:
            return await self._to_the_end(errand, threads)
        except anyio.get_cancelled_exc_class():
            if undo is not None and errand.results:
                await self.store(undo, errand.results[0])
            raise

    async def perform(
        self, handler: Handler, work: Callable[[Effects], Coroutine[Any, Any, T]], give_back: Callable[[], object]
    ) -> T:
        if is_coroutine_function(handler):
            return await work(self)
        errand = _Errand(lambda: drive(work(BlockingEffects(anyio.from_thread.run))))
        try:
            return await self._to_the_end(errand, self._handler_threads)
        except Exception:
            # the system gives no thread
            if not errand.is_over:
                give_back()
            raise

    async def _to_the_end(self, errand: _Errand[T], threads: anyio.CapacityLimiter | None) -> T:
        cancelled: BaseException | None = None
        while not errand.is_over:
            try:
                with anyio.CancelScope(shield=True):
                    await anyio.to_thread.run_sync(errand.run, limiter=threads)
            except anyio.get_cancelled_exc_class() as error:
                # a shield does not hold off `task.cancel()`
                cancelled = error
        if cancelled is not None:
            raise cancelled
        return errand.result()

    async def handle(self, handler: Handler, message: Message) -> None:
        result = handler(message)
        if inspect.isawaitable(result):
            await result

    async def sleep(self, seconds: float) -> None:
        await anyio.sleep(seconds)

    def ends(self, error: BaseException) -> bool:
        return is_cancelled(error) or _is_interrupt(error)


class _Errand(Generic[T]):
    """A call that is made once, in whatever thread comes first; who comes later waits for its end."""

    def __init__(self, call: Callable[[], T]) -> None:
        self.is_over = False
        self.results: list[T] = []
        self._call = call
        self._lock = threading.Lock()
        self._error: BaseException | None = None

    def run(self) -> None:
        with self._lock:
            if self.is_over:
                return
            try:
                self.results.append(self._call())
            except BaseException as error:  # noqa: BLE001 (it leaves in `result`)
                self._error = error
            self.is_over = True

    def result(self) -> T:
        if self._error is not None:
            raise self._error
        return self.results[0]


class BlockingEffects:
    """The effects without an event loop; none of them suspends.

    Args:
        run: runs a coroutine function to its end, on an event loop of its own or, in a thread of one, on that.
    """

    def __init__(self, run: Callable[..., object] = anyio.run) -> None:
        self._run = run

    async def read(self, body: bytes | bytearray | Iterable[bytes], most: int) -> bytes | None:
        if isinstance(body, bytes | bytearray | str):
            return _within(body, most)
        whole = bytearray()
        for chunk in body:
            whole += chunk
            if len(whole) > most:
                return None
        return bytes(whole)

    async def store(self, call: Callable[..., T], *args: object, undo: Callable[[T], object] | None = None) -> T:
        return call(*args)

    async def perform(
        self, handler: Handler, work: Callable[[Effects], Coroutine[Any, Any, T]], give_back: Callable[[], object]
    ) -> T:
        return await work(self)

    async def handle(self, handler: Handler, message: Message) -> None:
        result = handler(message)
        if inspect.isawaitable(result):
            self._run(_wait_for, result)

    async def sleep(self, seconds: float) -> None:
        time.sleep(seconds)  # noqa: ASYNC251 (there is no event loop)

    def ends(self, error: BaseException) -> bool:
        return _is_interrupt(error)


def check_handler(handler: object) -> None:
    """Check a handler.

    Raises:
        ConfigurationError: it cannot be called, or what it does would never be done.
    """
    if not callable(handler):
        raise ConfigurationError("handler takes a function, or a coroutine function, of one Message")
    if inspect.isgeneratorfunction(handler) or inspect.isasyncgenfunction(handler):
        raise ConfigurationError("handler takes no generator function: calling one runs none of it")


def is_on_asyncio() -> bool:
    """Say whether the running event loop is asyncio's; if there is one, it is trio's otherwise."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


def is_coroutine_function(handler: Handler) -> bool:
    """Say whether calling the handler gives a coroutine at once and so cannot block."""
    call = getattr(handler, "__call__", None)  # noqa: B004 (of an object, the method's own kind counts)
    return inspect.iscoroutinefunction(handler) or inspect.iscoroutinefunction(call)


def _is_interrupt(error: BaseException) -> bool:
    # no signal reaches a thread
    return isinstance(error, KeyboardInterrupt) and threading.current_thread() is threading.main_thread()


async def _wait_for(result: Awaitable[object]) -> None:
    await result


def _within(body: object, most: int) -> bytes | None:
    if not isinstance(body, bytes | bytearray):
        raise TypeError("a body is bytes, or chunks of bytes")
    return bytes(body) if len(body) <= most else None
