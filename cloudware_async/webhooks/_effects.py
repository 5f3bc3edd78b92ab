"""The few effects that receiving needs, in the two worlds: on an event loop, and blocking.

Rule 1: what is decided is written once, as coroutines over these effects. The blocking ones never suspend, so
        `cloudware_async._backend.drive` runs such a coroutine without an event loop.
Rule 2: on an event loop nothing blocks it: a store, and a handler that is no coroutine function, run in threads.
Rule 3: a call of the store that was begun runs to its end. If nobody is left to take its result, because the task
        was cancelled, it is undone.
"""

from __future__ import annotations

import inspect
import threading
import time
from collections.abc import AsyncIterable, Awaitable, Callable, Iterable
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

import anyio
import anyio.lowlevel
import anyio.to_thread

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

    async def handle(self, handler: Handler, message: Message) -> None:
        """Call the handler, and wait for it if it is asynchronous."""
        ...

    async def sleep(self, seconds: float) -> None:
        """Wait."""
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

    async def read(self, body: bytes | AsyncIterable[bytes], most: int) -> bytes | None:
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
        errand = _Errand(lambda: call(*args), undo)
        try:
            return await self._shielded(errand.run, threads)
        except BaseException:
            # a shield does not hold off `task.cancel()`
            errand.abandon()
            raise

    async def _shielded(self, call: Callable[[], T], threads: anyio.CapacityLimiter) -> T:
        results: list[T] = []
        with anyio.CancelScope(shield=True):
            results.append(await anyio.to_thread.run_sync(call, limiter=threads))
        return results[0]

    async def handle(self, handler: Handler, message: Message) -> None:
        if is_coroutine_function(handler):
            result = handler(message)
        else:
            # in a list, for trio takes no coroutine out of a thread
            (result,) = await anyio.to_thread.run_sync(lambda: [handler(message)], limiter=self._handler_threads)
        if inspect.isawaitable(result):
            await result

    async def sleep(self, seconds: float) -> None:
        await anyio.sleep(seconds)


class _Errand(Generic[T]):
    """A call in a thread, whose caller may be gone before it ends (rule 3)."""

    def __init__(self, call: Callable[[], T], undo: Callable[[T], object] | None) -> None:
        self._call = call
        self._undo = undo
        self._lock = threading.Lock()
        self._results: list[T] = []
        self._is_abandoned = False

    def run(self) -> T:
        result = self._call()
        with self._lock:
            self._results.append(result)
            is_abandoned = self._is_abandoned
        if is_abandoned and self._undo is not None:
            self._undo(result)
        return result

    def abandon(self) -> None:
        with self._lock:
            self._is_abandoned = True
            results = self._results
        # else the thread will see that it is abandoned, or the call failed
        if results and self._undo is not None:
            self._undo(results[0])


class BlockingEffects:
    """The effects without an event loop; none of them suspends."""

    async def read(self, body: bytes | Iterable[bytes], most: int) -> bytes | None:
        if isinstance(body, bytes):
            return _within(body, most)
        whole = bytearray()
        for chunk in body:
            whole += chunk
            if len(whole) > most:
                return None
        return bytes(whole)

    async def store(self, call: Callable[..., T], *args: object, undo: Callable[[T], object] | None = None) -> T:
        return call(*args)

    async def handle(self, handler: Handler, message: Message) -> None:
        result = handler(message)
        if inspect.isawaitable(result):
            anyio.run(_wait_for, result)

    async def sleep(self, seconds: float) -> None:
        time.sleep(seconds)  # noqa: ASYNC251 (there is no event loop)


def check_handler(handler: object) -> None:
    """Check a handler.

    Raises:
        ConfigurationError: it cannot be called.
    """
    if not callable(handler):
        raise ConfigurationError("handler takes a function, or a coroutine function, of one Message")


def is_coroutine_function(handler: Handler) -> bool:
    """Say whether calling the handler gives a coroutine at once and so cannot block."""
    call = getattr(handler, "__call__", None)  # noqa: B004 (of an object, the method's own kind counts)
    return inspect.iscoroutinefunction(handler) or inspect.iscoroutinefunction(call)


async def _wait_for(result: Awaitable[object]) -> None:
    await result


def _within(body: bytes, most: int) -> bytes | None:
    return body if len(body) <= most else None
