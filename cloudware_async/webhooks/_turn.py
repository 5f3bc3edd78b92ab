"""One message's turn to be handled on the spot: claimed, then finished or released.

Rule 1: who comes while somebody else is at the same message waits for that to end. If it succeeded the message
        is handled; if it failed it is the next one's turn.
Rule 2: the wait has an end.
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


async def claim(effects: Effects, store: Store, key: bytes) -> Standing:
    """Claim a message, at most after 30 seconds of waiting for somebody else who is at it.

    Returns:
        `CLAIMED`, `HANDLED`, or if somebody else is still at it, `BUSY`.
    """

    def undo(standing: Standing) -> None:
        if standing is Standing.CLAIMED:
            store.release(key, 0)

    waited, pause = 0.0, _FIRST_PAUSE
    standing = await effects.store(store.claim, key, undo=undo)
    while standing is Standing.BUSY and waited < _PATIENCE:
        await effects.sleep(pause)
        waited += pause
        pause = min(2 * pause, _LONGEST_PAUSE)
        standing = await effects.store(store.claim, key, undo=undo)
    return standing
