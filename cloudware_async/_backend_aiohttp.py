"""The effects over an `aiohttp.ClientSession` of the user's, on asyncio.

Rule 1: the session is the user's: it is never closed here, and only what a request needs is set, on the request.
Rule 2: a send's body is a payload that notes when aiohttp begins to write it: until then no text can have gone out.
        (aiohttp repeats a GET by itself on a connection that the server has closed, and never a POST.) Where the
        user's own code may have made something else of the request, nothing is certain.
Rule 3: an answer that was there before the body was written is another request's, and the connection is left. (aiohttp
        itself would take it.) Of a listing, whose request has no body, that cannot be told.
Rule 4: bodies are read in pieces and undecoded, so that the cap holds for what a compressed one becomes.
"""

from __future__ import annotations

import asyncio
import io
import math
import weakref
from typing import TYPE_CHECKING, Any

import aiohttp
import yarl
from multidict import CIMultiDict

from cloudware_async._backend_async import AsyncEffects, is_cancelled, running_loop
from cloudware_async._backend_attempt import (
    CLIENT_CLOSED,
    Attempt,
    Collector,
    classify,
    is_readable,
    make_headers,
)
from cloudware_async._errors import ConfigurationError
from cloudware_async._wire import MEBIBYTE, Answer, Failure, FailureKind

if TYPE_CHECKING:
    from aiohttp.abc import AbstractStreamWriter

    from cloudware_async._wire import Request


class AiohttpBackend(AsyncEffects):
    """Requests through the user's own session."""

    def __init__(self, session: Any) -> None:
        super().__init__()
        if getattr(session, "auth", None) is not None:
            raise ConfigurationError("the aiohttp session has auth= of its own: make it without")
        self._session: aiohttp.ClientSession = session
        # what may make something else of a request: a class of sessions, a class of requests, middlewares
        parts = (type(session), getattr(session, "_request_class", None), getattr(session, "_middlewares", None))
        self._is_plain = parts == (aiohttp.ClientSession, aiohttp.ClientRequest, ())
        # then a refusal may come before the body, which waits for it
        self._expects = "Expect" in getattr(session, "headers", ())
        # connections with TLS over which a send went before
        self._used: weakref.WeakSet[Any] = weakref.WeakSet()
        self._timeout = aiohttp.ClientTimeout()
        self._urls: dict[str, yarl.URL] = {}
        self._headers: tuple[object, CIMultiDict[str]] = (None, CIMultiDict())

    async def exchange(self, request: Request, *, connect_timeout: float, deadline: float) -> Answer | Failure:
        loop = running_loop()
        self.usable.check(loop)
        if not isinstance(loop, asyncio.AbstractEventLoop):
            raise ConfigurationError("an aiohttp session runs on asyncio only: make the client without it on trio")
        if self._session.closed:
            raise ConfigurationError(CLIENT_CLOSED)
        attempt = Attempt(connect_timeout, deadline)
        attempt.written = not self._is_plain
        collector = Collector(request.max_body)
        body = self._payload(request.body, attempt)
        try:
            async with (
                asyncio.timeout(attempt.left()),
                self._session.request(
                    request.method,
                    self._url(request),
                    data=body,
                    headers=self._prepared(request),
                    allow_redirects=False,
                    raise_for_status=False,
                    auto_decompress=False,
                    timeout=self._connecting(connect_timeout),
                ) as response,
            ):
                may_be_early = self._expects and response.status >= 400
                if isinstance(body, _Body) and attempt.watched and not body.is_begun and not may_be_early:
                    body.is_given_up = True
                    response.close()
                    return attempt.failure(FailureKind.STRAY)
                while chunk := await response.content.readany():
                    if not collector.add(chunk):
                        # what is left of it is not waited for
                        response.close()
                        break
                whole = b"".join(collector.chunks)
                return Answer(response.status, list(response.raw_headers), whole, collector.left >= 0)
        except asyncio.CancelledError as error:
            # a session that is closed cancels who waits for a connection of it
            if is_cancelled(error):
                raise
            return attempt.failure(FailureKind.BROKEN, type(error).__name__)
        except Exception as error:  # noqa: BLE001 (every kind is classified)
            return classify(error, attempt)

    def _url(self, request: Request) -> yarl.URL:
        """Give the URL as it stands, neither decoded nor encoded again; a send's is kept."""
        url = self._urls.get(request.target)
        if url is None:
            url = yarl.URL(f"{request.origin}{request.target}", encoded=True)
            if request.is_send:
                self._urls[request.target] = url
        return url

    def _connecting(self, seconds: float) -> aiohttp.ClientTimeout:
        """Give what bounds connecting, kept from call to call; the rest is bounded from outside."""
        if self._timeout.sock_connect != seconds:
            # nothing is rounded up to whole seconds
            self._timeout = aiohttp.ClientTimeout(sock_connect=seconds, ceil_threshold=math.inf)
        return self._timeout

    def _prepared(self, request: Request) -> CIMultiDict[str]:
        """Give the headers; the last send's are kept."""
        token, headers = self._headers
        if token is not request.token or not request.is_send:
            headers = CIMultiDict(make_headers(request.origin, request.token, is_send=request.is_send))
            if request.is_send:
                self._headers = (request.token, headers)
        return headers

    def _payload(self, body: bytes | None, attempt: Attempt) -> _Body | io.BytesIO | None:
        if body is None:
            return None
        # aiohttp warns of longer bytes, which it would write in one go
        return _Body(body, attempt, self._used) if len(body) <= MEBIBYTE else io.BytesIO(body)

    async def close(self) -> None:
        self.usable.closed = True


class _Body(aiohttp.BytesPayload):
    """The body of a send, watched (rules 2 and 3).

    Attributes:
        is_begun: whether aiohttp has begun to write it.
        is_given_up: whether it may not be written any more.
    """

    def __init__(self, body: bytes, attempt: Attempt, used: weakref.WeakSet[Any]) -> None:
        super().__init__(body)
        self._attempt = attempt
        self._connections = used
        self.is_begun = False
        self.is_given_up = False

    @property
    def size(self) -> int | None:
        # aiohttp asks when it makes a request; a mock makes none, and is not watched
        self._attempt.watched = True
        return super().size

    async def write_with_length(self, writer: AbstractStreamWriter, content_length: int | None) -> None:
        if self.is_given_up or self._holds_an_answer(writer):
            raise ConnectionResetError("an answer was there before the request")
        self.is_begun = self._attempt.written = True
        await super().write_with_length(writer, content_length)

    def _holds_an_answer(self, writer: Any) -> bool:
        connection, transport = writer.protocol, writer.transport
        is_told = True
        if transport.get_extra_info("ssl_object") is not None:
            # on a new connection TLS has messages of its own
            is_told = connection in self._connections
            self._connections.add(connection)
        return bool(connection.should_close or (is_told and is_readable(transport.get_extra_info("socket"))))
