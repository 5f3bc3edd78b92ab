"""The walk over a listing, page by page.

Rule 1: a pager is one walk: iterating it again goes on where it stopped.
Rule 2: the cursor names the first page that is not wholly handed out; a page is that when something after it is
        asked for. So resuming may repeat messages and never skips one. Where read-ahead is does not matter.
Rule 3: a page's messages are handed out before what is wrong with the page or its link is raised.
Rule 4: no page is fetched twice in a walk (a loop is an error), and none that `limit` does not need.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Self

from cloudware_async._errors import APIResponseError, CloudwareError, InvalidArgumentError, PaginationError
from cloudware_async._models import Message, Page

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine
    from types import TracebackType
    from typing import Any

    from cloudware_async._backend import Ahead
    from cloudware_async._wire import Listing, Place


class AsyncMessagePager:
    """One walk over the messages of a listing: `async for sms in cloudware.messages(): …`.

    Iterating it again goes on where it stopped. One task at a time may use it.
    """

    def __init__(
        self,
        fetch: Callable[[Place], Coroutine[Any, Any, Listing]],
        make_ahead: Callable[[], Ahead],
        place: Place,
        limit: int | None,
    ) -> None:
        self._fetch = fetch
        self._make_ahead = make_ahead
        self._place = place
        self._left = limit
        self._listing: Listing | None = None
        self._index = 0
        # hashes, not places: a walk of millions of messages stays flat in memory
        self._seen: set[int] = set()
        self._ahead: Ahead | None = None
        self._started: Place | None = None
        self._is_waiting = False

    @property
    def cursor(self) -> str:
        """A string naming the first page not wholly handed out, for `messages(cursor=…)`, here or in another process.

        It holds the filters and the service's page token, so keep it as private as a number.
        """
        return self._place.cursor()

    @property
    def done(self) -> bool:
        """Whether the listing has been walked to its end; `cursor` then lists nothing more."""
        return self._place.is_end

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Message:
        """Give the next message.

        Raises:
            CloudwareError: a page could not be had or read, or its link may not be followed; `.cursor` goes on there.
        """
        while True:
            listing = self._listing
            if listing is not None and self._index < len(listing.messages):
                if self._left == 0:
                    raise StopAsyncIteration
                self._index += 1
                if self._left is not None:
                    self._left -= 1
                return listing.messages[self._index - 1]
            self._finish_page()
            if self._place.is_end or self._left == 0:
                raise StopAsyncIteration
            await self._open_page()

    def pages(self) -> AsyncPages:
        """Walk whole pages instead: `async for page in cloudware.messages().pages(): …`.

        A page with a malformed message raises `APIResponseError`; what could be read of it is in `error.page`.
        """
        return AsyncPages(self)

    def read_ahead(self) -> AsyncReadAhead:
        """Fetch the next page while you work on this one: `async with pager.read_ahead() as messages: …`.

        Never more than one page ahead, and never past `limit`. Leaving the block stops the fetch.
        """
        return AsyncReadAhead(self)

    async def _next_page(self) -> Page:
        listing = self._listing
        if listing is None or self._index >= len(listing.messages):
            self._finish_page()
            if self._place.is_end or self._left == 0:
                raise StopAsyncIteration
            listing = await self._open_page()
        elif self._left == 0:
            raise StopAsyncIteration
        # after single messages, the rest of their page
        end = len(listing.messages) if self._left is None else min(len(listing.messages), self._index + self._left)
        messages = listing.messages[self._index : end]
        left = None if self._left is None else self._left - len(messages)
        is_whole = end == len(listing.messages) and not _is_beyond(listing, end, left)
        page = Page(messages, listing.query, (listing.next if is_whole else self._place).cursor())
        # after all that a Ctrl-C could fall into: going on would skip the page
        self._index, self._left = end, left
        if isinstance(listing.error, APIResponseError):
            self._finish_page()
        return page

    def _finish_page(self) -> None:
        """Leave a page that is wholly handed out, and raise what is wrong with it (rules 2 and 3)."""
        listing = self._listing
        if listing is None or _is_beyond(listing, self._index, self._left):
            return
        error = listing.error
        if isinstance(error, PaginationError):
            error.cursor = self.cursor
            raise error
        page_cursor = self.cursor
        self._listing, self._place = None, listing.next
        if error is not None:
            error.cursor, error.page_cursor = self.cursor, page_cursor
            error.page = Page(listing.messages, listing.query, self.cursor)
            raise error

    async def _open_page(self) -> Listing:
        mark = self._place.mark
        if mark in self._seen:
            error = PaginationError("The listing leads in a circle: its next_page is a page of this walk already.")
            error.cursor = self.cursor
            raise error
        if self._is_waiting:
            raise InvalidArgumentError("this walk is in use by another task or thread: make one for each")
        self._is_waiting = True
        try:
            listing = await self._load()
        except CloudwareError as error:
            error.cursor = self.cursor
            raise
        finally:
            self._is_waiting = False
        # in this order: a page that a Ctrl-C kept from being handed out is no circle
        self._listing, self._index = listing, 0
        self._seen.add(mark)
        if self._ahead is not None and self._is_wanted(listing):
            await self._ahead.start(lambda: self._fetch(listing.next))
            self._started = listing.next
        return listing

    async def _load(self) -> Listing:
        if self._ahead is None or self._started is None or self._started != self._place:
            return await self._fetch(self._place)
        try:
            listing: Listing = await self._ahead.result()
        except Exception:
            # not where the wait was only interrupted: then the page still comes
            self._started = None
            raise
        self._started = None
        return listing

    def _is_wanted(self, listing: Listing) -> bool:
        """Say whether the page after this one will be asked for, so that fetching it ahead is no waste (rule 4)."""
        is_limited = self._left is not None and self._left <= len(listing.messages)
        return not (is_limited or listing.next.is_end or listing.error is not None or listing.next.mark in self._seen)

    async def _begin_ahead(self) -> None:
        if self._ahead is not None:
            raise InvalidArgumentError("this walk is read ahead already: leave the other block first")
        self._ahead = self._make_ahead()

    async def _end_ahead(self) -> None:
        assert self._ahead is not None  # noqa: S101 (the block was entered)
        ahead, self._ahead, self._started = self._ahead, None, None
        await ahead.close()


def _is_beyond(listing: Listing, index: int, left: int | None) -> bool:
    """Say whether what is wrong with a page lies beyond `limit`: nobody asked for it."""
    return listing.error is not None and left == 0 and index <= listing.sound


class AsyncPages:
    """The pages of one walk."""

    def __init__(self, pager: AsyncMessagePager) -> None:
        self._pager = pager

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Page:
        return await self._pager._next_page()  # noqa: SLF001 (the other half of this file)


class AsyncReadAhead:
    """The time in which a walk reads one page ahead."""

    def __init__(self, pager: AsyncMessagePager) -> None:
        self._pager = pager

    async def __aenter__(self) -> AsyncMessagePager:
        await self._pager._begin_ahead()  # noqa: SLF001 (the other half of this file)
        return self._pager

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._pager._end_ahead()  # noqa: SLF001 (the other half of this file)
