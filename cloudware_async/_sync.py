"""GENERATED from `_client.py` by `tools/generate_sync.py`: do not edit.

The blocking client: every method drives the async client's coroutine over a blocking backend, without an event loop.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, Self

from cloudware_async._backend import drive
from cloudware_async._client import UNSET
from cloudware_async._retry import RetryPolicy
from cloudware_async._sync_base import DrivenCloudware, MessagePager, SyncBase

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from cloudware_async._models import BulkReport, Draft, Receipt, SendResult


class Cloudware(SyncBase):
    """The Cloudware SMS API, blocking: no event loop, in any thread.

    Args:
        access_token: the API's access token; by default `CLOUDWARE_ACCESS_TOKEN`.
        base_url: where the API is; by default `CLOUDWARE_BASE_URL`, then `https://api.cloudware.chat/v1`.
        timeout: seconds for one whole call: every attempt, every wait and every pause in it. Of a walk, for each
            page; of `send_many`, for each text.
        connect_timeout: seconds for making one connection.
        retry: when a failed request is tried again (`RetryPolicy`); None is one attempt.
        from_: the sender's ID where a send gives none.
        max_connections: the most connections held at once; further requests wait for one.
        http_client: an `httpx.Client` (or httpx2's) of yours to send through. It
            is never closed here, and its proxies, hooks and cookies are your business. Without one, httpx is loaded
            when the `with` block is entered, or with the first call.

    Raises:
        ConfigurationError: the token is missing or malformed, or another setting is.
    """

    def __init__(
        self,
        access_token: str | None = None,
        *,
        base_url: str | None = None,
        timeout: float = 30.0,
        connect_timeout: float = 5.0,
        retry: RetryPolicy | None = RetryPolicy(),
        from_: str | None = None,
        max_connections: int = 100,
        http_client: Any = None,
    ) -> None:
        super().__init__(
            DrivenCloudware(
                access_token,
                base_url=base_url,
                timeout=timeout,
                connect_timeout=connect_timeout,
                retry=retry,
                from_=from_,
                max_connections=max_connections,
                http_client=http_client,
            )
        )

    def close(self) -> None:
        """Close the connections. Requests under way end first; new ones raise `ConfigurationError`.

        A view made by `with_options` closes nothing, and neither is an `http_client` of yours closed.
        """
        drive(self._driven.aclose())

    def send(self, to: str, message: str, *, from_: str | None = None) -> Receipt:
        """Send a text.

        Args:
            to: the recipient's number with country code. `+`, spaces, dashes, dots and brackets are taken out; 5 to 15
                digits must remain (`2348012345678`).
            message: the text, not empty. The service documents no maximum length.
            from_: the sender's ID; by default the client's.

        Returns:
            The service's receipt: it accepted the text.

        Raises:
            InvalidArgumentError: an argument is wrong; nothing was sent.
            APIConnectionError: no answer came. `may_have_been_sent` says whether the text may have gone out.
            APITimeoutError: none came within `timeout` (the same).
            APIStatusError: the service answered with an error; one of its subclasses for 400, 401, 403, 404, 409, 422,
                429 and 5xx (the same).
            APIResponseError: the service answered with success but in a way that says nothing: it may have gone out.
            ConfigurationError: the client is closed.
        """
        return drive(self._driven.send(to, message, from_=from_))

    def queue(self, to: str, message: str, *, from_: str | None = None) -> Receipt:
        """Queue a text: as `send`, but the service sends it when it can.

        Args:
            to: the recipient's number with country code, as for `send`.
            message: the text, not empty.
            from_: the sender's ID; by default the client's.

        Returns:
            The service's receipt: it accepted the text.

        Raises:
            CloudwareError: as for `send`.
        """
        return drive(self._driven.queue(to, message, from_=from_))

    def messages(
        self,
        *,
        device_id: str | None = None,
        phone: str | None = None,
        to: str | None = None,
        from_: str | None = None,
        message: str | None = None,
        limit: int | None = None,
        cursor: str | None = None,
    ) -> MessagePager:
        """Walk over the messages, page by page, in the service's order.

        The service documents no filter precisely; each is sent as it is given.

        Args:
            device_id: only this device's.
            phone: only this number's.
            to: only those to this number.
            from_: only those from this sender.
            message: only those with this text.
            limit: the most messages in all.
            cursor: go on where another walk stopped (`pager.cursor`, `error.cursor`, `page.cursor`).

        Returns:
            A pager to iterate; nothing is asked before that.

        Raises:
            InvalidArgumentError: an argument is wrong, or the cursor is another listing's.
            PaginationError: the cursor is none of this package's.
        """
        return MessagePager(
            self._driven.messages(
                device_id=device_id, phone=phone, to=to, from_=from_, message=message, limit=limit, cursor=cursor
            )
        )

    def send_many(
        self,
        drafts: Iterable[Draft],
        *,
        in_flight: int = 20,
        via: Literal["send", "queue"] = "send",
        on_result: Callable[[SendResult], object] | None = None,
    ) -> BulkReport:
        """Send many texts, several at once; no failure of one stops the others.

        Args:
            drafts: what to send; an iterator is read as it is needed.
            in_flight: the most under way at once.
            via: `send` or `queue`.
            on_result: called with each `SendResult` as it ends. If it raises,
                nothing new starts, what is under way ends and is told, and the exception leaves as itself.
                So too on Ctrl-C; a second one cuts off what is under way: what became of that is unknown.

        Returns:
            A report with every result in the drafts' order.

        Raises:
            InvalidArgumentError: `in_flight`, `via`, `drafts` or `on_result` is wrong; nothing was sent.
            ConfigurationError: the client is closed.
        """
        return drive(self._driven.send_many(drafts, in_flight=in_flight, via=via, on_result=on_result))

    def with_options(
        self,
        *,
        access_token: str = UNSET,
        from_: str | None = UNSET,
        timeout: float = UNSET,
        retry: RetryPolicy | None = UNSET,
    ) -> Self:
        """Make a view of this client with other settings. It shares the connections and owns none.

        Args:
            access_token: another token.
            from_: another sender's ID, or None for none.
            timeout: another timeout, in seconds.
            retry: another policy, or None for one attempt.

        Returns:
            The view. It ends with this client.

        Raises:
            ConfigurationError: a setting is malformed.
        """
        return self._wrap(
            self._driven.with_options(access_token=access_token, from_=from_, timeout=timeout, retry=retry)
        )
