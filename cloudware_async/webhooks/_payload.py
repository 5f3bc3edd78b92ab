"""What a webhook's body says, and which message it is. Pure.

Rule 1: a body is read strictly, as a listed message is: one object with `type`, `from`, `to` and `message`.
        A byte order mark is ignored, of a key given twice the last counts, unknown keys and types are kept.
Rule 2: the same message is the same `type` and `message_id`; without an id it is the same bytes.
Rule 3: an error names the place and shows nothing of what stood there.
"""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING

from cloudware_async._errors import InvalidArgumentError, WebhookPayloadError
from cloudware_async._wire import Malformed, read_json, read_message

if TYPE_CHECKING:
    from cloudware_async._models import Message


def parse(body: bytes) -> Message:
    """Read the body of a webhook: one message as JSON in UTF-8 (vendor page, "Receive a message").

    Args:
        body: the request's body, as it came.

    Raises:
        WebhookPayloadError: it is not one readable message; the text names the place (`from is missing`).
        InvalidArgumentError: it is not bytes.
    """
    _check_bytes(body)
    try:
        return read_message(read_json(bytes(body)))
    except Malformed as malformed:
        subject = malformed.place or "it"
        problem = malformed.problem
    # outside the `except`, so that no chain holds what could not be read
    raise WebhookPayloadError(f"The webhook's body is not one readable message: {subject} {problem}.")


def _check_bytes(body: object) -> None:
    if not isinstance(body, bytes | bytearray | memoryview):
        raise InvalidArgumentError("parse takes the request's body as bytes, undecoded")


def identify(message: Message, body: bytes) -> bytes:
    """Give the 32 bytes by which a message is known again (rule 2)."""
    # an id of nothing but spaces names no message: all such would be one
    if message.message_id is not None and message.message_id.strip():
        # JSON keeps the two apart, and writes half a surrogate pair, which UTF-8 does not
        named = json.dumps([message.type, message.message_id]).encode()
        return hashlib.sha256(b"id " + named).digest()
    return hashlib.sha256(b"body " + body).digest()
