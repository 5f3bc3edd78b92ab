"""The effects over an `aiohttp.ClientSession` of the user's, on asyncio.

Rule 1: the session is the user's: it is never closed here, and only what a request needs is set, on the request.
Rule 2: aiohttp tells no byte count, so the kind of the exception alone decides whether a text may have gone out.
        (It repeats a GET by itself on a connection that the server has closed, and never a POST.)
Rule 3: bodies are read in pieces and undecoded, so that the cap holds for what a compressed one becomes.
"""

from __future__ import annotations

import asyncio
import io
import math
from typing import TYPE_CHECKING, Any

import aiohttp
import anyio
import yarl
from multidict import CIMultiDict

from cloudware_async._backend_async import AsyncEffects, running_loop
from cloudware_async._backend_attempt import (
    CLIENT_CLOSED,
    GRACE,
    Attempt,
    Collector,
    classify,
    forget_nothing,
    make_headers,
)
from cloudware_async._backend_logs import our_request
from cloudware_async._errors import ConfigurationError
from cloudware_async._wire import MEBIBYTE, Answer, Failure, FailureKind

if TYPE_CHECKING:
    from cloudware_async._wire import Request


class AiohttpBackend(AsyncEffects):
    """Requests through the user's own session."""

    def __init__(self, session: Any) -> None:
        super().__init__()
        if getattr(session, "auth", None) is not None:
            raise ConfigurationError("the aiohttp session has auth= of its own: make it without")
        self._session: aiohttp.ClientSession = session
        self._urls: dict[str, yarl.URL] = {}
        self._headers: tuple[object, CIMultiDict[str]] = (None, CIMultiDict())

    async def exchange(self, request: Request, *, connect_timeout: float, deadline: float) -> Answer | Failure:
        loop = running_loop()
        self.usable.check(loop, forget_nothing)
        if not isinstance(loop, asyncio.AbstractEventLoop):
            raise ConfigurationError("an aiohttp session runs on asyncio only: make the client without it on trio")
        if self._session.closed:
            raise ConfigurationError(CLIENT_CLOSED)
        attempt = Attempt(connect_timeout, deadline)
        outcome: Answer | Failure = attempt.failure(FailureKind.TIMEOUT)
        with our_request(), anyio.move_on_after(attempt.left() + GRACE):
            try:
                outcome = await self._exchange(request, attempt)
            except Exception as error:  # noqa: BLE001 (every kind is classified)
                outcome = classify(error, attempt)
        return outcome

    async def _exchange(self, request: Request, attempt: Attempt) -> Answer:
        collector = Collector(request.max_body)
        async with self._session.request(
            request.method,
            self._url(request),
            data=_payload(request.body),
            headers=self._prepared(request),
            allow_redirects=False,
            raise_for_status=False,
            auto_decompress=False,
            # reading is bounded from outside, and nothing is rounded up to whole seconds
            timeout=aiohttp.ClientTimeout(
                connect=attempt.left_to_begin(), sock_connect=attempt.left_to_connect(), ceil_threshold=math.inf
            ),
        ) as response:
            while chunk := await response.content.readany():
                if not collector.add(chunk):
                    # what is left of it is not waited for
                    response.close()
                    break
            return Answer(response.status, list(response.raw_headers), b"".join(collector.chunks), collector.left >= 0)

    def _url(self, request: Request) -> yarl.URL:
        """Give the URL as it stands, neither decoded nor encoded again; a send's is kept."""
        url = self._urls.get(request.target)
        if url is None:
            url = yarl.URL(f"{request.origin}{request.target}", encoded=True)
            if request.is_send:
                self._urls[request.target] = url
        return url

    def _prepared(self, request: Request) -> CIMultiDict[str]:
        """Give the headers; the last send's are kept."""
        token, headers = self._headers
        if token is not request.token or not request.is_send:
            headers = CIMultiDict(make_headers(request.origin, request.token, is_send=request.is_send))
            if request.is_send:
                self._headers = (request.token, headers)
        return headers

    async def close(self) -> None:
        self.usable.close(forget_nothing)


def _payload(body: bytes | None) -> bytes | io.BytesIO | None:
    # aiohttp warns of longer bytes, which it would write in one go
    return body if body is None or len(body) <= MEBIBYTE else io.BytesIO(body)
