"""How a message is shown: for people in two lines, for programs as one JSON object a line.

Rule 1: what the service says reaches the terminal without control characters, and is no markup.
Rule 2: a text is not broken into lines: the terminal does that, and copying gives the text back.
Rule 3: JSON has the wire's own names, and is ASCII: it goes through any pipe and any terminal unharmed.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

from rich.text import Text

if TYPE_CHECKING:
    from datetime import datetime

    from cloudware_async import Message

# control characters, line separators, what turns the direction of writing, and halves of surrogate pairs;
# joiners and marks are left alone: emoji and many alphabets need them
_UNSAFE = re.compile("[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
# what Python makes of a number above 1.8e308, and writes as what is no JSON
_STRING_OR_INFINITY = re.compile(r'("(?:[^"\\]|\\.)*")|Infinity')
_KINDS = {"message_received": ("received", "green"), "message_sent": ("sent", "cyan")}


def escape(text: str) -> str:
    r"""Write control characters as `\n`, `\x1b`, `\u202e`."""
    return _UNSAFE.sub(lambda match: match[0].encode("unicode_escape").decode(), text)


def show(message: Message) -> Text:
    """Lay out a message for people."""
    kind, colour = _KINDS.get(message.type, (escape(message.type), "yellow"))
    moment = message.sent_at or message.created_at
    shown = Text().append(f"{kind:8}", style=colour)
    shown.append("  no time" if moment is None else f"  {_write(moment, ' ')}", style="dim")
    shown.append(f"  from {escape(message.from_)} to {escape(message.to)}")
    if message.message_id is not None:
        shown.append(f"  {escape(message.message_id)}", style="dim")
    return shown.append(f"\n  {escape(message.message)}")


def to_json(message: Message) -> str:
    """Write a message as the wire does, with whatever else the service said of it."""
    fields = {
        "type": message.type,
        "from": message.from_,
        "to": message.to,
        "message": message.message,
        "message_id": message.message_id,
        "created_at": None if message.created_at is None else _write(message.created_at, "T"),
        "sent_at": None if message.sent_at is None else _write(message.sent_at, "T"),
    }
    return _STRING_OR_INFINITY.sub(lambda match: match[1] or "1e999", json.dumps(fields | message.extra))


def _write(moment: datetime, separator: str) -> str:
    return moment.isoformat(separator).replace("+00:00", "Z")
