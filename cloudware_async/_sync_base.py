"""What the generated blocking client stands on: its life cycle, and the iterators.

Rule 1: nothing is decided here: each step drives the async twin's coroutine, which over a blocking backend never waits.
"""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any, Protocol, Self, TypeVar

from cloudware_async._backend import drive
from cloudware_async._client import AsyncCloudware

if TYPE_CHECKING:
    from collections.abc import Coroutine
    from types import TracebackType

    from cloudware_async._backend import Backend
    from cloudware_async._models import Message, Page
    from cloudware_async._pager import AsyncMessagePager, AsyncPages
    from cloudware_async._wire import Origin

T_co = TypeVar("T_co", covariant=True)


class DrivenCloudware(AsyncCloudware):
    """The async client over a blocking backend: its coroutines are only ever driven."""

    def _open_backend(self, origin: Origin, max_connections: int, http_client: object) -> Backend:
        from cloudware_async._backend_httpx_blocking import open_blocking

        return open_blocking(origin, max_connections, http_client)


class SyncBase:
    """The life cycle of the blocking client."""

    def __init__(self, driven: DrivenCloudware) -> None:
        self._driven = driven

    def _wrap(self, driven: DrivenCloudware) -> Self:
        view = copy.copy(self)
        vars(view)["_driven"] = driven
        return view

    def __repr__(self) -> str:
        return repr(self._driven).replace(type(self._driven).__name__, type(self).__name__, 1)

    def __enter__(self) -> Self:
        drive(self._driven.__aenter__())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        drive(self._driven.aclose())


class MessagePager:
    """One walk over the messages of a listing: `for sms in cloudware.messages(): …`.

    Iterating it again goes on where it stopped. One thread at a time may use it.
    """

    def __init__(self, driven: AsyncMessagePager) -> None:
        self._driven = driven

    @property
    def cursor(self) -> str:
        """A string naming the first page not wholly handed out, for `messages(cursor=…)`, here or in another process.

        It holds the filters and the service's page token, so keep it as private as a number.
        """
        return self._driven.cursor

    @property
    def done(self) -> bool:
        """Whether the listing has been walked to its end; `cursor` then lists nothing more."""
        return self._driven.done

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Message:
        return _step(self._driven)

    def pages(self) -> Pages:
        """Walk whole pages instead: `for page in cloudware.messages().pages(): …`.

        A page with a malformed message raises `APIResponseError`; what could be read of it is in `error.page`.
        """
        return Pages(self._driven.pages())

    def read_ahead(self) -> ReadAhead:
        """Fetch the next page while you work on this one: `with pager.read_ahead() as messages: …`.

        Never more than one page ahead, and never past `limit`. One thread fetches; leaving the block stops it.
        """
        return ReadAhead(self, self._driven)


class Pages:
    """The pages of one walk."""

    def __init__(self, driven: AsyncPages) -> None:
        self._driven = driven

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Page:
        return _step(self._driven)


class ReadAhead:
    """The time in which a walk reads one page ahead."""

    def __init__(self, pager: MessagePager, driven: AsyncMessagePager) -> None:
        self._pager = pager
        self._driven = driven.read_ahead()

    def __enter__(self) -> MessagePager:
        drive(self._driven.__aenter__())
        return self._pager

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        drive(self._driven.__aexit__(kind, error, traceback))


class _Steps(Protocol[T_co]):
    def __anext__(self) -> Coroutine[Any, Any, T_co]: ...


def _step(driven: _Steps[T_co]) -> T_co:
    try:
        return drive(driven.__anext__())
    except StopAsyncIteration:
        pass
    raise StopIteration
