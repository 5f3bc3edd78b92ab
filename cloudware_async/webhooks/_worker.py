"""Handles what a durable store has recorded, in the background.

Rule 1: what is due is taken and handled at once, what failed again after a pause that doubles, from a second to
        ten minutes, with jitter; without end, for nothing may be lost.
Rule 2: what was handled is marked, however often the store must be asked. What is marked is never handled again.
Rule 3: when it is told to stop it takes nothing new, and waits a while for what is under way.
Rule 4: whatever a handler or the store raises, it goes on.
"""

from __future__ import annotations

import random
import threading
from typing import TYPE_CHECKING, final

import anyio
import anyio.to_thread

from cloudware_async.webhooks._effects import AsyncEffects
from cloudware_async.webhooks._log import log_handler_failure, log_store_failure
from cloudware_async.webhooks._payload import parse

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from cloudware_async.webhooks._effects import Handler
    from cloudware_async.webhooks._store import DurableStore, Recorded

AT_ONCE = 16  # messages that are handled at the same time
# seconds
_LOOK_PERIOD = 1.0
_GRACE = 10.0
_LONGEST_PAUSE = 600.0


@final
class Worker:
    """Takes messages from a store and has them handled, until it is told to stop.

    Args:
        store: where they are recorded.
        handler: what handles them.

    Attributes:
        ended: set when `run` is over.
    """

    def __init__(self, store: DurableStore, handler: Handler) -> None:
        self.ended = threading.Event()
        self._store = store
        self._handler = handler
        # of threads, not of an event loop: whoever records a message may be in another one
        self._wakeup = threading.Event()
        self._is_stopping = False
        self._in_hand = 0

    def look(self) -> None:
        """Have it look into the store now, rather than within a second. From any thread."""
        self._wakeup.set()

    def stop(self) -> None:
        """Tell it to stop. From any thread."""
        self._is_stopping = True
        self._wakeup.set()

    async def run(self) -> None:
        """Work until told to stop, or until the process's main thread ends."""
        effects = AsyncEffects(self._store, anyio.CapacityLimiter(AT_ONCE))
        waiting = anyio.CapacityLimiter(1)
        try:
            async with anyio.create_task_group() as group:
                while not self._is_over():
                    self._wakeup.clear()
                    for recorded in await self._take(effects):
                        self._in_hand += 1
                        group.start_soon(self._deliver, effects, recorded)
                    await anyio.to_thread.run_sync(self._wakeup.wait, _LOOK_PERIOD, limiter=waiting)
                group.cancel_scope.deadline = anyio.current_time() + _GRACE
        finally:
            self.ended.set()

    def _is_over(self) -> bool:
        # a thread of ours must not keep the process alive
        return self._is_stopping or not threading.main_thread().is_alive()

    async def _take(self, effects: AsyncEffects) -> Sequence[Recorded]:
        if self._in_hand >= AT_ONCE:
            return []
        try:
            return await effects.store(self._store.take, AT_ONCE - self._in_hand, undo=self._give_back)
        except Exception as error:  # noqa: BLE001 (rule 4)
            log_store_failure(error)
            return []

    def _give_back(self, taken: Sequence[Recorded]) -> None:
        for recorded in taken:
            self._store.release(recorded.key, 0)

    async def _deliver(self, effects: AsyncEffects, recorded: Recorded) -> None:
        try:
            try:
                await effects.handle(self._handler, parse(recorded.body))
            except BaseException as error:
                pause = choose_pause(recorded.attempts)
                log_handler_failure(recorded.body, error, pause)
                await self._insist(effects, self._store.release, recorded.key, pause)
                if not isinstance(error, Exception):
                    raise
            else:
                await self._insist(effects, self._store.finish, recorded.key)
        finally:
            self._in_hand -= 1
            self._wakeup.set()

    async def _insist(self, effects: AsyncEffects, call: Callable[..., None], *args: object) -> None:
        while True:
            try:
                return await effects.store(call, *args)
            except Exception as error:  # noqa: BLE001 (rule 2)
                log_store_failure(error)
            await effects.sleep(_LOOK_PERIOD)


def choose_pause(attempts: int) -> float:
    """Say how many seconds a message waits after so many attempts (rule 1)."""
    # the exponent is bounded: 2.0**1024 overflows
    return random.uniform(0.5, 1) * min(_LONGEST_PAUSE, 2.0 ** min(attempts - 1, 60))
