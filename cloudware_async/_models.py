"""What goes in and what comes out: frozen, slotted, and private in its `repr`.

Rule 1: what is on the wire keeps the wire's name (`from` becomes `from_`).
Rule 2: `repr` shows no whole number and no text; `attrs.asdict(sms)` looks inside on purpose.
Rule 3: what the documentation does not name is kept in `extra`, which is no part of equality or hash.
"""

from __future__ import annotations

from datetime import datetime  # noqa: TC003 (cattrs reads the annotations when the package runs)
from typing import Any

import attrs

from cloudware_async._errors import APIStatusError, CloudwareError
from cloudware_async._privacy import HIDDEN, mask_extra, mask_number, mask_text


@attrs.frozen(weakref_slot=False)
class Message:
    """One text, as a listing or a webhook tells it (vendor page, "Get a list of received messages").

    Attributes:
        type: `message_received` or `message_sent`; any other string is kept as it is.
        from_: the device that sent it.
        to: the number that received it.
        message: the text itself.
        message_id: the service's name for it, or None if it gave none.
        created_at: when the service made its record (aware; UTC where no offset was given), or None.
        sent_at: when it was sent (the same), or None.
        extra: whatever else the service said of it.
    """

    type: str
    from_: str = attrs.field(repr=mask_number)
    to: str = attrs.field(repr=mask_number)
    message: str = attrs.field(repr=mask_text)
    message_id: str | None = None
    created_at: datetime | None = None
    sent_at: datetime | None = None
    extra: dict[str, Any] = attrs.field(factory=dict, eq=False, repr=mask_extra)

    @property
    def received(self) -> bool:
        """Whether it came in (`type` is `message_received`)."""
        return self.type == "message_received"


@attrs.frozen(weakref_slot=False)
class Receipt:
    """The service accepted a text (vendor page, "Send a message", "Queue a message").

    Attributes:
        id: the service's name for what it accepted, or None. Whether it is the later `message_id` is not documented.
        status: `success`, or None if the service left it out.
        name: as the service gave it, or None.
        description: as the service gave it, or None.
        created_at: aware; UTC where no offset was given; None if absent or malformed.
        updated_at: the same.
        extra: whatever else the service said, and what of the above was malformed.
    """

    id: str | None = None
    status: str | None = None
    name: str | None = attrs.field(default=None, repr=mask_text)
    description: str | None = attrs.field(default=None, repr=mask_text)
    created_at: datetime | None = None
    updated_at: datetime | None = None
    extra: dict[str, Any] = attrs.field(factory=dict, eq=False, repr=mask_extra)


@attrs.frozen(weakref_slot=False)
class Page:
    """One page of a listing.

    Attributes:
        messages: the texts on it, in the service's order.
        query: the filters as the service understood them, or None.
        cursor: where the page after this one begins, or this one again if `limit` cut it short; pass it to
            `messages(cursor=…)`.
    """

    messages: tuple[Message, ...]
    query: str | None = attrs.field(default=None, repr=mask_text)
    cursor: str = attrs.field(default="", repr=mask_text)


@attrs.frozen
class Draft:
    """One text to send with `send_many`: the arguments of `send`.

    Attributes:
        to: the recipient's number with country code; `+`, spaces, dashes, dots and brackets are taken out.
        message: the text, not empty.
        from_: the sender's ID, or None for the client's own.
    """

    to: str = attrs.field(repr=mask_number)
    message: str = attrs.field(repr=mask_text)
    from_: str | None = attrs.field(default=None, repr=mask_number)


@attrs.frozen
class SendResult:
    """How one draft of `send_many` ended: with a receipt or with an error, never with both."""

    draft: Draft = attrs.field(repr=lambda draft: repr(draft) if isinstance(draft, Draft) else HIDDEN)
    receipt: Receipt | None = None
    error: CloudwareError | None = None


@attrs.frozen(repr=False)
class BulkReport:
    """How every draft of `send_many` ended. Each result is in exactly one of the four groups.

    Attributes:
        results: one `SendResult` a draft, in the drafts' order.
    """

    results: tuple[SendResult, ...]

    @property
    def accepted(self) -> tuple[SendResult, ...]:
        """The service accepted these."""
        return tuple(result for result in self.results if result.error is None)

    @property
    def rejected(self) -> tuple[SendResult, ...]:
        """The service turned these down for good (a 4xx); sending them again as they are is no use."""
        return tuple(result for result in self.results if _is_rejection(result.error))

    @property
    def unknown(self) -> tuple[SendResult, ...]:
        """Nobody knows whether these went out (`may_have_been_sent`); do not send them again blindly."""
        return tuple(result for result in self.results if result.error is not None and result.error.may_have_been_sent)

    @property
    def not_sent(self) -> tuple[SendResult, ...]:
        """These certainly did not go out and may be sent again: no connection, throttled, or a wrong argument."""
        return tuple(
            result
            for result in self.results
            if result.error is not None and not result.error.may_have_been_sent and not _is_rejection(result.error)
        )

    def __repr__(self) -> str:
        groups = ("accepted", "rejected", "unknown", "not_sent")
        return f"BulkReport({', '.join(f'{group}={len(getattr(self, group))}' for group in groups)})"


def _is_rejection(error: CloudwareError | None) -> bool:
    return isinstance(error, APIStatusError) and not error.may_have_been_sent and not error._passing  # noqa: SLF001 (the tree's own)
