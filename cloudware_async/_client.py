"""The client: its settings, and one method a call of the API.

Rule 1: a method checks its arguments, and then makes one `call`; everything else stands on a lower floor.
Rule 2: the blocking client is generated from this file (`tools/generate_sync.py`): every public method has a docstring
        and spells its parameters out.
"""

from __future__ import annotations

import copy
import inspect
import os
from typing import TYPE_CHECKING, Any, Literal, Self, cast

import attrs

from cloudware_async._backend_opening import Opening
from cloudware_async._call import Calling, call
from cloudware_async._errors import CloudwareError, ConfigurationError, InvalidArgumentError
from cloudware_async._models import BulkReport, Draft, Receipt, SendResult
from cloudware_async._pager import AsyncMessagePager
from cloudware_async._retry import RetryBudget, RetryPolicy, is_number
from cloudware_async._wire import (
    VENDOR_URL,
    Listing,
    Place,
    messages_request,
    read_base_url,
    read_cursor,
    read_filters,
    read_limit,
    read_page,
    read_receipt,
    read_token,
    send_request,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from types import TracebackType

    from cloudware_async._backend import Ahead, Backend
    from cloudware_async._wire import Origin


class _Unset:
    """What stands for "as it is" where None means something."""

    def __repr__(self) -> str:
        return "UNSET"


UNSET: Any = _Unset()


class AsyncCloudware:
    """The Cloudware SMS API, async: on asyncio and on trio.

    Args:
        access_token: the API's access token; by default `CLOUDWARE_ACCESS_TOKEN`.
        base_url: where the API is; by default `CLOUDWARE_BASE_URL`, then `https://api.cloudware.chat/v1`.
        timeout: seconds for one whole call: every attempt, every wait and every pause in it. Of a walk, for each
            page; of `send_many`, for each text.
        connect_timeout: seconds for making one connection.
        retry: when a failed request is tried again (`RetryPolicy`); None is one attempt.
        from_: the sender's ID where a send gives none.
        max_connections: the most connections held at once; further requests wait for one.
        http_client: an `httpx.AsyncClient` (or httpx2's), or an `aiohttp.ClientSession`, of yours to send through. It
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
        token = os.environ.get("CLOUDWARE_ACCESS_TOKEN") if access_token is None else access_token
        self._token = read_token(token)
        url = base_url if base_url is not None else os.environ.get("CLOUDWARE_BASE_URL") or VENDOR_URL
        self._base = read_base_url(url)
        self._from = _read_sender(from_)
        if isinstance(max_connections, bool) or not isinstance(max_connections, int) or max_connections < 1:
            raise ConfigurationError("max_connections must be a whole number from 1")
        seconds = _read_seconds("timeout", timeout)
        connect_seconds = _read_seconds("connect_timeout", connect_timeout)
        policy = _read_retry(retry)
        opening = Opening(lambda: self._open_backend(self._base.origin, max_connections, http_client))
        self._calling = Calling(opening, policy, RetryBudget(), seconds, connect_seconds)
        self._owns_connections = True
        if http_client is not None:
            # one that cannot be used is refused at once
            self._open()

    def __repr__(self) -> str:
        return f"{type(self).__name__}(base_url={str(self._base)!r})"

    async def __aenter__(self) -> Self:
        # here rather than in the midst of the first call
        self._open()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close the connections. Requests under way end first; new ones raise `ConfigurationError`.

        A view made by `with_options` closes nothing, and neither is an `http_client` of yours closed.
        """
        if self._owns_connections:
            await self._calling.opening.close()

    async def send(self, to: str, message: str, *, from_: str | None = None) -> Receipt:
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
            ConfigurationError: the client is closed, or is used from a second event loop.
        """
        return await self._send("/sms/send", to, message, from_)

    async def queue(self, to: str, message: str, *, from_: str | None = None) -> Receipt:
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
        return await self._send("/sms/queue", to, message, from_)

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
    ) -> AsyncMessagePager:
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
        filters = read_filters(**{"device_id": device_id, "phone": phone, "to": to, "from": from_, "message": message})
        place = read_cursor(cursor, filters)
        return AsyncMessagePager(self._fetch, self._ahead, place, read_limit(limit))

    async def send_many(
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
            on_result: called with each `SendResult` as it ends; what it returns is awaited if it can be. If it raises,
                nothing new starts, what is under way ends and is told, and the exception leaves as itself.
                A cancellation or Ctrl-C cuts off what is under way: what became of that is unknown.

        Returns:
            A report with every result in the drafts' order.

        Raises:
            InvalidArgumentError: `in_flight`, `via`, `drafts` or `on_result` is wrong; nothing was sent.
            ConfigurationError: the client is closed, or is used from a second event loop.
        """
        _check_bulk(drafts, in_flight, via, on_result)
        path = f"/sms/{via}"
        results: dict[int, SendResult] = {}

        async def work(draft: Draft) -> SendResult:
            if not isinstance(cast("object", draft), Draft):
                return SendResult(draft, error=InvalidArgumentError("each draft must be a Draft"))
            try:
                return SendResult(draft, receipt=await self._send(path, draft.to, draft.message, draft.from_))
            except CloudwareError as error:
                # a client that is closed, say, is no text's own failure; but what may have gone out is told
                if isinstance(error, ConfigurationError) and not error.may_have_been_sent:
                    raise
                return SendResult(draft, error=error)

        async def report(index: int, result: SendResult) -> None:
            if index in results:
                # a Ctrl-C fell into its telling
                return
            results[index] = result
            if on_result is not None:
                outcome = on_result(result)
                if inspect.isawaitable(outcome):
                    await outcome

        await self._calling.backend.each(drafts, work, report, in_flight)
        return BulkReport(tuple(results[index] for index in sorted(results)))

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
        calling = attrs.evolve(
            self._calling,
            retry=self._calling.retry if retry is UNSET else _read_retry(retry),
            timeout=self._calling.timeout if timeout is UNSET else _read_seconds("timeout", timeout),
        )
        view = copy.copy(self)
        vars(view).update(
            _token=self._token if access_token is UNSET else read_token(access_token),
            _from=self._from if from_ is UNSET else _read_sender(from_),
            _calling=calling,
            _owns_connections=False,
        )
        return view

    def _open(self) -> Backend:
        return self._calling.backend

    def _ahead(self) -> Ahead:
        return self._open().ahead()

    def _open_backend(self, origin: Origin, max_connections: int, http_client: object) -> Backend:
        from cloudware_async._backend_httpx_async import open_async

        return open_async(origin, max_connections, http_client)

    async def _send(self, path: str, to: str, message: str, from_: str | None) -> Receipt:
        sender = self._from if from_ is None else from_
        request = send_request(self._base, self._token, path, to, message, sender)
        return await call(self._calling, request, lambda answer: read_receipt(answer, request))

    async def _fetch(self, place: Place) -> Listing:
        request = messages_request(self._base, self._token, place)
        return await call(self._calling, request, lambda answer: read_page(answer, request, self._base, place))


def _check_bulk(drafts: object, in_flight: object, via: object, on_result: object) -> None:
    if isinstance(in_flight, bool) or not isinstance(in_flight, int) or in_flight < 1:
        raise InvalidArgumentError("in_flight must be a whole number from 1")
    if via not in ("send", "queue"):
        raise InvalidArgumentError("via must be 'send' or 'queue'")
    if on_result is not None and not callable(on_result):
        raise InvalidArgumentError("on_result must be a function, or None")
    if not hasattr(drafts, "__iter__") or isinstance(drafts, str | bytes | dict):
        raise InvalidArgumentError("drafts must be an iterable of Draft")


def _read_seconds(name: str, value: object) -> float:
    if not is_number(value) or value <= 0:
        raise ConfigurationError(f"{name} must be a finite number of seconds greater than 0")
    return float(value)


def _read_sender(from_: object) -> str | None:
    if from_ is not None and (not isinstance(from_, str) or not from_):
        raise ConfigurationError("from_ must be a string that is not empty, or None")
    return from_


def _read_retry(retry: object) -> RetryPolicy | None:
    if retry is not None and not isinstance(retry, RetryPolicy):
        raise ConfigurationError("retry must be a RetryPolicy, or None for one attempt")
    return retry
