"""The receiver: from a request to a status and, once a message, a call of the handler.

Rule 1: with a durable store: recorded, committed, answered with 200, handled in the background until that succeeds.
Rule 2: without: handled, marked, answered with 200. A failure is answered with 500 and leaves the message unseen,
        so that the service may post it again.
Rule 3: a repeat of a handled message is answered with 200 and not handled again.
Rule 4: whatever the handler or the store raises becomes a status. Only the end of who works here leaves as itself:
        the cancellation of its task, or Ctrl-C.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any, final

import anyio
import anyio.to_thread

from cloudware_async._backend import drive
from cloudware_async._backend_forks import start_afresh_after_fork
from cloudware_async._errors import ConfigurationError
from cloudware_async.webhooks._effects import AsyncEffects, BlockingEffects, Effects, Handler, check_handler
from cloudware_async.webhooks._gate import MAX_BODY, Gate, Headers
from cloudware_async.webhooks._intake import Inbound, take_in
from cloudware_async.webhooks._log import SecretFilter, hide_from_servers, log_handler_failure, log_store_failure
from cloudware_async.webhooks._store import DurableStore, MemoryStore, Standing, Store
from cloudware_async.webhooks._turn import Turns
from cloudware_async.webhooks._worker import Worker

if TYPE_CHECKING:
    import logging
    from collections.abc import AsyncIterable, Iterable, Sequence
    from types import TracebackType
    from typing import Self


@final
class Receiver:
    """Receives texts that the service posts, and has each handled once.

    The answers are: 200 taken, or a repeat; 400 no readable message; 401 without the right secret; 405 no POST;
    413 too long; 415 no JSON; 500 the handler failed, or the store; 503 the same message is being handled for
    a long time already. `webhooks.asgi`, `webhooks.wsgi` and `webhooks.django` ask it on behalf of servers.

    What a durable store has recorded is handled in the background, up to 16 messages at the same time: on the event
    loop from `async with receiver:` on, in a thread from `start()` on, and at the latest from the first request
    on. Start it with the program, so that it takes up at once what was left by the last run.

    Args:
        handler: called with each `Message`; a function, or a coroutine function. It succeeds by returning.
            On an event loop a function is called in a thread; without one, a coroutine function runs on a new
            event loop.
        secret: what whoever posts must know, as the last segment of the path or as the password of HTTP basic auth:
            one, or two while the new one replaces the old one. Make it with `new_secret()`.
        store: remembers what was handled: a `SQLiteStore` or `PostgreSQLStore`, of its own; by default
            a `MemoryStore`.
        max_body: bytes; the longest body. By default 64 KiB.
        allow_unauthenticated: start without a secret; anybody may then post texts. A secret that is
            given is asked for all the same.

    Attributes:
        log_filter: takes the secrets out of log records. The loggers of the usual servers and frameworks have it
            already; add it to handlers of your own that see paths.

    Raises:
        ConfigurationError: there is no secret and no `allow_unauthenticated=True`, a secret has less than
            128 bits, or an option is out of its range.
    """

    def __init__(
        self,
        handler: Handler,
        *,
        secret: str | Sequence[str] | None = None,
        store: Store | None = None,
        max_body: int = MAX_BODY,
        allow_unauthenticated: bool = False,
    ) -> None:
        check_handler(handler)
        self._handler = handler
        self._gate = Gate(secret, max_body=max_body, allow_unauthenticated=allow_unauthenticated)
        self._store = read_store(store)
        self._turns = Turns(self._store)
        self.log_filter: logging.Filter = SecretFilter(self._gate.secrets)
        hide_from_servers(self._gate.secrets)
        self._start_afresh()
        start_afresh_after_fork(self)

    def _start_afresh(self) -> None:
        self._lock = threading.Lock()
        # a thread or a task that a child process does not have
        self._worker: Worker | None = None
        self._entered = 0
        # how many are at ending it: until they have, what comes in is only recorded
        self._stopping = 0

    async def receive(self, method: str, path: str, headers: Headers, body: bytes | AsyncIterable[bytes]) -> int:
        """Take one request and give the status to answer with; never raises an `Exception` of its own.

        Args:
            method: as it stands in the request line.
            path: the same, or decoded; of it only the last segment matters.
            headers: names and values, in any case and order.
            body: whole or in chunks; of chunks no more are asked for than `max_body` allows.
        """
        return await self._receive(AsyncEffects(self._store), method, path, headers, body)

    def receive_blocking(self, method: str, path: str, headers: Headers, body: bytes | Iterable[bytes]) -> int:
        """Do what `receive` does, without an event loop."""
        return drive(self._receive(BlockingEffects(), method, path, headers, body))

    async def _receive(self, effects: Effects, method: str, path: str, headers: Headers, body: Any) -> int:
        inbound = await take_in(self._gate, effects, method, path, headers, body)
        if isinstance(inbound, int):
            return inbound
        try:
            if isinstance(self._store, DurableStore):
                return await self._keep(effects, self._store, inbound)
            return await self._handle_now(effects, inbound)
        except Exception as error:  # noqa: BLE001 (rule 4)
            log_store_failure(error)
            return 500

    async def _keep(self, effects: Effects, store: DurableStore, inbound: Inbound) -> int:
        await effects.store(store.record, inbound.key, inbound.body)
        self._start(store, on_loop=isinstance(effects, AsyncEffects))
        return 200

    async def _handle_now(self, effects: Effects, inbound: Inbound) -> int:
        standing = await self._turns.claim(effects, inbound.key)
        if standing is not Standing.CLAIMED:
            return 200 if standing is Standing.HANDLED else 503
        return await effects.perform(
            self._handler,
            lambda effects: self._handle(effects, inbound),
            give_back=lambda: self._turns.give_back(inbound.key),
        )

    async def _handle(self, effects: Effects, inbound: Inbound) -> int:
        try:
            await effects.handle(self._handler, inbound.message)
        except BaseException as error:
            log_handler_failure(inbound.body, error)
            await self._turns.settle(effects, inbound.key, is_handled=False)
            if effects.ends(error):
                raise
            return 500
        await self._turns.settle(effects, inbound.key, is_handled=True)
        return 200

    # ------------------------------------------------------------ the background

    def start(self) -> None:
        """Handle in a thread of its own what a durable store has recorded; with a `MemoryStore` there is nothing to do.

        The thread ends with `stop()`, or with the process's main thread. After a `fork` the child has none: call
        it in every process.
        """
        if isinstance(self._store, DurableStore):
            self._start(self._store, on_loop=False)

    def stop(self) -> None:
        """End what `start` began, and close the store. Nothing new is handled.

        What is under way has 10 seconds to end: a coroutine is cut off then, and handled again by the next run.
        A function cannot be cut off, and is waited for.

        Raises:
            ConfigurationError: it would wait for ever, for whoever calls it: it is the handler, or the background is
                a task of this thread's event loop, where it ends with `async with receiver:`.
        """
        with self._lock:
            self._stopping += 1
            worker = self._worker
        try:
            if worker is not None:
                worker.stop()
            self._store.close()
        finally:
            with self._lock:
                self._stopping -= 1

    async def __aenter__(self) -> Self:
        self._entered += 1
        if isinstance(self._store, DurableStore):
            self._start(self._store, on_loop=True)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        self._entered -= 1
        if self._entered == 0:
            with anyio.CancelScope(shield=True):
                await anyio.to_thread.run_sync(self.stop)

    def _start(self, store: DurableStore, *, on_loop: bool) -> None:
        with self._lock:
            if self._stopping:
                return
            if self._worker is None or self._worker.is_over:
                worker = Worker(store, self._handler)
                if on_loop:
                    worker.start_on_loop()
                else:
                    worker.start_in_thread()
                self._worker = worker
            self._worker.look()


def read_store(store: object) -> Store:
    """Check a store, and make one in memory if there is none.

    Raises:
        ConfigurationError: it is none.
    """
    if store is None:
        return MemoryStore()
    if isinstance(store, type) or not isinstance(store, Store):
        raise ConfigurationError("store takes a MemoryStore(), a SQLiteStore(path) or a PostgreSQLStore(conninfo)")
    return store
