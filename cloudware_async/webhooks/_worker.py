"""Handles what a durable store has recorded, in the background.

Rule 1: what is due is taken and handled at once, what failed again after a pause that doubles, from a second to
        ten minutes, with jitter; without end, for nothing may be lost.
Rule 2: what was handled is marked, however often the store must be asked. What is marked is never handled again.
Rule 3: when it is told to stop it takes nothing new, and waits a while for what is under way.
Rule 4: whatever a handler or the store raises, it goes on.
Rule 5: it is a thread, or a task of an event loop; what was cut off with that is over.
"""

from __future__ import annotations

import asyncio
import random
import sys
import threading
import time
from contextvars import ContextVar
from typing import TYPE_CHECKING, final

import anyio
import anyio.to_thread

from cloudware_async._errors import ConfigurationError
from cloudware_async.webhooks._effects import AsyncEffects, is_on_asyncio
from cloudware_async.webhooks._log import log_handler_failure, log_store_failure
from cloudware_async.webhooks._payload import parse
from cloudware_async.webhooks._store import longest_pause

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from cloudware_async.webhooks._effects import Effects, Handler
    from cloudware_async.webhooks._store import DurableStore, Recorded

AT_ONCE = 16  # messages that are handled at the same time
_NAME = "cloudware-webhooks"
# seconds
_LOOK_PERIOD = 1.0
_GRACE = 10.0

# what is being handled here
_handling: ContextVar[bytes | None] = ContextVar("cloudware_webhook_handling", default=None)


@final
class Worker:
    """Takes messages from a store and has them handled, until it is told to stop.

    Args:
        store: where they are recorded.
        handler: what handles them.
    """

    def __init__(self, store: DurableStore, handler: Handler) -> None:
        self._store = store
        self._handler = handler
        # of threads, not of an event loop: whoever records a message may be in another one
        self._wakeup = threading.Event()
        self._ended = threading.Event()
        self._is_stopping = False
        self._gives_up_at: float | None = None
        self._in_hand: set[bytes] = set()
        self._thread: threading.Thread | None = None
        # of the event loop that it is a task of
        self._loop: asyncio.AbstractEventLoop | None = None
        self._task: asyncio.Task[None] | None = None
        self._home: int | None = None

    def start_in_thread(self) -> None:
        """Work in a thread, until told to stop or until the process's main thread ends."""
        self._thread = threading.Thread(target=anyio.run, args=(self._run,), name=_NAME)
        self._thread.start()

    def start_on_loop(self) -> None:
        """Work in a task of the running event loop, asyncio's or trio's, until told to stop or until that ends."""
        self._home = threading.get_ident()
        if is_on_asyncio():
            self._loop = asyncio.get_running_loop()
            # kept, for the loop keeps none
            self._task = self._loop.create_task(self._run(), name=_NAME)
            # a task that is cancelled before its first step runs none of it
            self._task.add_done_callback(lambda _: self._ended.set())
        else:
            sys.modules["trio"].lowlevel.spawn_system_task(self._run, name=_NAME)

    @property
    def is_over(self) -> bool:
        """Whether it works no more (rule 5)."""
        return self._ended.is_set() or (self._loop is not None and self._loop.is_closed())

    def look(self) -> None:
        """Have it look into the store now, rather than within a second. From any thread."""
        self._wakeup.set()

    def stop(self) -> None:
        """Tell it to stop and wait until it has.

        Raises:
            ConfigurationError: it is a task of this thread's event loop, which cannot run while it is waited for; or
                it is its own handler that calls.
        """
        if _handling.get() in self._in_hand:
            raise ConfigurationError("stop() would wait for ever, for it is called by the handler that it waits for")
        if self._home == threading.get_ident() and not self.is_over:
            raise ConfigurationError(
                "stop() would wait for ever, for the background is a task of this thread's event loop: "
                "there it ends with `async with receiver:`"
            )
        self._is_stopping = True
        self._wakeup.set()
        while not self.is_over:
            self._ended.wait(_LOOK_PERIOD)
        if self._thread is not None:
            self._thread.join()

    async def _run(self) -> None:
        effects = AsyncEffects(self._store, anyio.CapacityLimiter(AT_ONCE))
        waiting = anyio.CapacityLimiter(1)
        try:
            async with anyio.create_task_group() as group:
                while not self._must_end():
                    self._wakeup.clear()
                    for recorded in await self._take(effects):
                        self._in_hand.add(recorded.key)
                        group.start_soon(self._deliver, effects, recorded)
                    await self._wait(waiting)
                self._gives_up_at = time.monotonic() + _GRACE
                group.cancel_scope.deadline = anyio.current_time() + _GRACE
        finally:
            self._ended.set()

    def _must_end(self) -> bool:
        # a thread of ours must not keep the process alive
        return self._is_stopping or not threading.main_thread().is_alive()

    async def _take(self, effects: AsyncEffects) -> Sequence[Recorded]:
        if len(self._in_hand) >= AT_ONCE:
            return []
        try:
            return await effects.store(self._store.take, AT_ONCE - len(self._in_hand), undo=self._give_back)
        except Exception as error:  # noqa: BLE001 (rule 4)
            await self._log_unless_ending(error)
            return []

    async def _wait(self, waiting: anyio.CapacityLimiter) -> None:
        try:
            await anyio.to_thread.run_sync(self._wakeup.wait, _LOOK_PERIOD, limiter=waiting)
        except RuntimeError as error:
            await self._log_unless_ending(error)

    async def _log_unless_ending(self, error: Exception) -> None:
        # a process that ends gives no threads, a moment before its main thread counts as ended
        await anyio.sleep(_LOOK_PERIOD / 10)
        if not self._must_end():
            log_store_failure(error)

    def _give_back(self, taken: Sequence[Recorded]) -> None:
        for recorded in taken:
            self._store.release(recorded.key, 0)

    async def _deliver(self, effects: AsyncEffects, recorded: Recorded) -> None:
        try:
            await effects.perform(
                self._handler,
                lambda effects: self._handle(effects, recorded),
                give_back=lambda: self._give_back([recorded]),
            )
        except asyncio.CancelledError:
            # a handler can cancel its own task, and this one ends here anyhow
            pass
        except Exception as error:  # noqa: BLE001 (rule 4)
            await self._log_unless_ending(error)
        finally:
            self._in_hand.discard(recorded.key)
            self._wakeup.set()

    async def _handle(self, effects: Effects, recorded: Recorded) -> None:
        _handling.set(recorded.key)
        try:
            await effects.handle(self._handler, parse(recorded.body))
        except BaseException as error:
            pause = choose_pause(recorded.attempts)
            log_handler_failure(recorded.body, error, pause)
            await self._insist(effects, self._store.release, recorded.key, pause)
            if effects.ends(error):
                raise
        else:
            await self._insist(effects, self._store.finish, recorded.key)

    async def _insist(self, effects: Effects, call: Callable[..., None], *args: object) -> None:
        while True:
            try:
                return await effects.store(call, *args)
            except Exception as error:  # noqa: BLE001 (rule 2)
                log_store_failure(error)
            if self._gives_up_at is not None and time.monotonic() > self._gives_up_at:
                return None
            await effects.sleep(_LOOK_PERIOD)


def choose_pause(attempts: int) -> float:
    """Say how many seconds a message waits after so many attempts (rule 1)."""
    return random.uniform(0.5, 1) * longest_pause(attempts)
