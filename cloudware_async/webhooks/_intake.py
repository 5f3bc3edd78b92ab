"""A request becomes a message, or the status that refuses it.

Rule 1: the order is the gate's. The body is asked for only after the head has passed, and no further than to the cap.
Rule 2: a refusal tells who lacks the secret nothing; one of somebody who has it is logged.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import attrs

from cloudware_async._errors import WebhookAuthenticationError, WebhookPayloadError
from cloudware_async._privacy import mask_text
from cloudware_async.webhooks._gate import read_head
from cloudware_async.webhooks._log import log_refusal
from cloudware_async.webhooks._payload import identify, parse

if TYPE_CHECKING:
    from cloudware_async._models import Message
    from cloudware_async.webhooks._effects import Effects
    from cloudware_async.webhooks._gate import Gate, Headers


@attrs.frozen
class Inbound:
    """A message that came in.

    Attributes:
        key: by which it is known again.
        body: as it was posted.
    """

    message: Message
    key: bytes = attrs.field(repr=False)
    body: bytes = attrs.field(repr=lambda body: mask_text(body.decode(errors="replace")))


async def take_in(gate: Gate, effects: Effects, method: str, path: str, headers: Headers, body: Any) -> Inbound | int:
    """Give the message that a request holds, or the status to refuse it with."""
    head = read_head(method, path, headers)
    try:
        refusal = gate.check_head(head)
    except WebhookAuthenticationError:
        return 401
    if refusal is not None:
        return _refuse(refusal, "the method is not POST" if refusal == 405 else _TOO_LONG.format(gate.max_body))
    try:
        whole = await effects.read(body, gate.max_body)
    except Exception as error:  # noqa: BLE001 (each server has its own for a body that breaks off)
        # aiohttp stumbles over what is compressed before its type has been looked at
        return _refuse(gate.check_type(head) or 400, f"its body could not be read: {type(error).__qualname__}")
    if whole is None:
        return _refuse(413, _TOO_LONG.format(gate.max_body))
    refusal = gate.check_type(head)
    if refusal is not None:
        return _refuse(refusal, "its content type is not application/json, or it is compressed")
    try:
        message = parse(whole)
    except WebhookPayloadError as error:
        return _refuse(400, str(error))
    return Inbound(message, identify(message, whole), whole)


_TOO_LONG = "its body is longer than {} bytes"


def _refuse(status: int, reason: str) -> int:
    log_refusal(status, reason)
    return status
