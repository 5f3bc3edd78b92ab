"""One message's turn to be handled on the spot: claimed, then settled, which is finished or released.

Rule 1: who comes while somebody else is at the same message waits for that to end. If it succeeded the message
        is handled; if it failed it is the next one's turn.
Rule 2: the wait has an end.
Rule 3: where the store fails to note how a turn ended, that is kept in mind and noted before the next claim.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cloudware_async.webhooks._store import Standing

if TYPE_CHECKING:
    from cloudware_async.webhooks._effects import Effects
    from cloudware_async.webhooks._store import Store

# seconds
_PATIENCE = 30.0
_FIRST_PAUSE = 0.01
_LONGEST_PAUSE = 0.25


class Turns:
    """The turns of those who share a store.

    Args:
        store: what remembers.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        # how those turns ended that the store does not know of: whether the message was handled
        self._unsettled: dict[bytes, bool] = {}

    async def claim(self, effects: Effects, key: bytes) -> Standing:
        """Claim a message, at most after 30 seconds of waiting for somebody else who is at it.

        Returns:
            `CLAIMED`, `HANDLED`, or if somebody else is still at it, `BUSY`.
        """

        def undo(standing: Standing) -> None:
            if standing is Standing.CLAIMED:
                self.give_back(key)

        for unsettled in list(self._unsettled):
            is_handled = self._unsettled.pop(unsettled, None)
            if is_handled is not None:
                await self.settle(effects, unsettled, is_handled=is_handled)
        waited, pause = 0.0, _FIRST_PAUSE
        standing = await effects.store(self._store.claim, key, undo=undo)
        while standing is Standing.BUSY and waited < _PATIENCE:
            await effects.sleep(pause)
            waited += pause
            pause = min(2 * pause, _LONGEST_PAUSE)
            standing = await effects.store(self._store.claim, key, undo=undo)
        return standing

    async def settle(self, effects: Effects, key: bytes, *, is_handled: bool) -> None:
        """End a turn: the message was handled, or it is as unseen."""

        def note() -> None:
            try:
                if is_handled:
                    self._store.finish(key)
                else:
                    self.give_back(key)
            except Exception:
                self._unsettled[key] = is_handled
                raise

        await effects.store(note)

    def give_back(self, key: bytes) -> None:
        """End a turn that came to nothing."""
        self._store.release(key, 0)
