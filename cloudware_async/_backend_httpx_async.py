"""The effects over httpx on an event loop: asyncio and trio.

Rule 1: a slot is one httpx transport with one connection. Slots are a stack behind a limiter, made as they are needed;
        the body is read inside the slot, and after any exception or cancellation the slot is closed and thrown away.
        (A pool of many loses connections to a task's cancellation: encode/httpcore#1093.)
Rule 2: our wrapper writes head and body at once; one scope a call bounds everything, so no operation has a timeout.
Rule 3: what becomes of a connection never takes the place of what became of the request.
"""

from __future__ import annotations

import contextlib
import os
import socket
import ssl
import time
from collections import deque
from typing import TYPE_CHECKING, Any

import anyio
import httpcore
import httpx
from anyio.abc import SocketAttribute
from anyio.streams.tls import TLSAttribute, TLSStream

from cloudware_async._backend_async import AsyncEffects, running_loop
from cloudware_async._backend_attempt import CLIENT_CLOSED, GRACE, Attempt, Collector, classify, is_readable
from cloudware_async._backend_httpx import (
    KEEP_ALIVE,
    READ_SIZE,
    Network,
    answer_already_read,
    build_request,
    is_instance,
    is_quiet,
    make_answer,
    note_step,
)
from cloudware_async._backend_logs import our_request
from cloudware_async._errors import ConfigurationError
from cloudware_async._wire import Answer, Failure, FailureKind

if TYPE_CHECKING:
    from anyio.abc import ByteStream

    from cloudware_async._backend import Backend
    from cloudware_async._wire import Origin, Request

# what a stream raises when the other side, or the network, has ended it
_BROKEN = (anyio.BrokenResourceError, anyio.ClosedResourceError, OSError)


class _AsyncStream(httpcore.AsyncNetworkStream):
    """A slot's stream, watched (rule 2)."""

    def __init__(self, stream: ByteStream, slot: _AsyncSlot) -> None:
        self._stream = stream
        self._slot = slot
        self._pending = b""
        self._is_kept = False
        self._socket = stream.extra(SocketAttribute.raw_socket)  # noqa: S610 (no Django)
        self._tls = stream.extra(TLSAttribute.ssl_object, None)  # noqa: S610 (the same)

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        if self._pending:  # SOCKS ends its writes with none
            await self._flush()
        attempt = self._slot.attempt
        if attempt.overflown:
            raise httpcore.ReadError("the body is over its cap")
        if attempt.written:
            data = await self._receive()
        else:
            # a proxy's part of connecting
            try:
                with anyio.fail_after(attempt.connect_left()):
                    data = await self._receive()
            except TimeoutError as error:
                raise httpcore.ConnectTimeout from error
        attempt.note_read(data, READ_SIZE)
        return data

    async def _receive(self) -> bytes:
        try:
            return await self._stream.receive(READ_SIZE)
        except anyio.EndOfStream:
            return b""
        except _BROKEN as error:
            raise httpcore.ReadError from error

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:
        # httpcore ends a request with an empty write
        if buffer:
            self._pending += buffer
        elif self._pending:
            await self._flush()

    async def _flush(self) -> None:
        data, self._pending = self._pending, b""
        # others had their turn since httpcore looked, and may have held up the loop
        if self._is_kept and is_readable(self._socket):
            # httpcore passes over an error in writing
            raise httpcore.ReadError("it has ended, or holds an answer to nothing")
        self._slot.attempt.note_write(data)
        try:
            await self._stream.send(data)
        except _BROKEN as error:
            raise httpcore.WriteError from error

    async def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,
    ) -> httpcore.AsyncNetworkStream:
        try:
            with anyio.fail_after(self._slot.attempt.connect_left()):
                stream = await TLSStream.wrap(
                    self._stream,
                    ssl_context=ssl_context,
                    hostname=server_hostname,
                    standard_compatible=False,
                    server_side=False,
                )
        except TimeoutError as error:
            raise httpcore.ConnectTimeout from error
        except (*_BROKEN, anyio.EndOfStream) as error:
            raise httpcore.ConnectError from error
        self._slot.stream = _AsyncStream(stream, self._slot)
        return self._slot.stream

    def get_extra_info(self, info: str) -> Any:
        if info == "is_readable":
            # httpcore asks before it uses a kept connection: this very attempt is watched, and no mock's
            self._slot.attempt.watched = self._is_kept = True
            return is_readable(self._socket)
        return {"socket": self._socket, "ssl_object": self._tls}.get(info)

    async def aclose(self) -> None:
        await self._stream.aclose()


class _AsyncSlot(httpcore.AsyncNetworkBackend):
    """One transport with one connection; it is its own transport's network backend."""

    def __init__(self, network: Network) -> None:
        self.transport = network.make_transport(httpx.AsyncHTTPTransport)
        self.transport._pool._network_backend = self  # noqa: SLF001 (httpx hands none through)
        # only asked for its transport, which is this one unless somebody intercepts it
        self._client = httpx.AsyncClient(transport=self.transport, trust_env=False)
        self.attempt = Attempt(0, 0)
        self.stream: _AsyncStream | None = None
        self.idle_since = 0.0

    async def connect_tcp(self, host: str, port: int, *_: Any, **__: Any) -> httpcore.AsyncNetworkStream:
        self.attempt.watched = True
        try:
            with anyio.fail_after(self.attempt.connect_left()):
                stream = await anyio.connect_tcp(host, port)
        except TimeoutError as error:
            raise httpcore.ConnectTimeout from error
        except OSError as error:
            raise httpcore.ConnectError from error
        self.stream = _AsyncStream(stream, self)
        return self.stream

    async def exchange(self, request: httpx.Request, max_body: int, attempt: Attempt) -> Answer:
        self.attempt = attempt
        attempt.begun = True
        transport = self._client._transport_for_url(request.url)  # noqa: SLF001 (what respx intercepts)
        response = await transport.handle_async_request(request)
        collector = Collector(max_body)
        stream: Any = response.stream
        try:
            async for chunk in stream:
                if not collector.add(chunk):
                    attempt.overflown = True
                    if not attempt.watched:
                        break
        except Exception:
            if not attempt.overflown:
                raise
        if not attempt.overflown:
            await stream.aclose()
        return make_answer(response, collector.chunks, is_whole=not attempt.overflown)

    def is_reusable(self) -> bool:
        if self.attempt.overflown or self.attempt.filled or self.stream is None:
            return False
        return is_quiet(self.transport) and not _has_tls_rest(self.stream)

    async def close(self) -> None:
        """Close the connection even under cancellation, native or not, single or double."""
        if self.stream is not None:
            # this alone, which cannot be cancelled, makes the loop let go of a socket that still has bytes to write
            self.shut_down()
            with anyio.CancelScope(shield=True), contextlib.suppress(Exception):
                await self.stream.aclose()

    def shut_down(self) -> None:
        """End the connection, whichever loop it belongs to."""
        assert self.stream is not None  # noqa: S101 (who has no connection is not kept)
        raw = self.stream.get_extra_info("socket")
        with contextlib.suppress(OSError):
            try:
                raw.shutdown(socket.SHUT_RDWR)
            except TypeError:
                # uvloop's sockets cannot
                with socket.socket(fileno=os.dup(raw.fileno())) as same:
                    same.shutdown(socket.SHUT_RDWR)


def _has_tls_rest(stream: _AsyncStream) -> bool:
    """Say whether TLS records came that nobody asked for: in memory they are invisible to the socket's own check."""
    tls = stream.get_extra_info("ssl_object")
    if not isinstance(tls, ssl.SSLObject):
        return False
    try:
        tls.read(1)
    except ssl.SSLWantReadError:
        return False
    except ssl.SSLError:
        pass
    return True


class _AsyncSlots(AsyncEffects):
    """Requests over slots of our own."""

    def __init__(self, origin: Origin, max_connections: int) -> None:
        super().__init__()
        self._network = Network(origin)
        self._max_connections = max_connections
        self._free: deque[_AsyncSlot] = deque()
        self._of_parents: list[deque[_AsyncSlot]] = []
        self._limiter: anyio.Semaphore | None = None

    def _start_afresh(self) -> None:
        super()._start_afresh()
        # let go of later: right after a fork another library's locks may be held
        self._of_parents.append(self._free)
        self._free = deque()
        self._limiter = None

    async def exchange(self, request: Request, *, connect_timeout: float, deadline: float) -> Answer | Failure:
        self.usable.check(running_loop())
        self._of_parents.clear()
        if self._limiter is None:
            self._limiter = anyio.Semaphore(self._max_connections)
        limiter = self._limiter
        attempt = Attempt(connect_timeout, deadline)
        outcome: Answer | Failure = Failure(FailureKind.NO_CONNECTION, written=False)
        with our_request(), anyio.move_on_after(attempt.left()) as scope:
            try:
                # without a turn of the loop where a place is free
                limiter.acquire_nowait()
            except anyio.WouldBlock:
                await limiter.acquire()
            try:
                outcome = await self._exchange_in_slot(request, attempt)
            finally:
                limiter.release()
        if scope.cancelled_caught and attempt.begun:
            return attempt.failure(FailureKind.TIMEOUT)
        return outcome

    async def _exchange_in_slot(self, request: Request, attempt: Attempt) -> Answer | Failure:
        await self._close_unused()
        slot = self._free.pop() if self._free else _AsyncSlot(self._network)
        is_reusable = False
        try:
            answer = await slot.exchange(self._network.request(request), request.max_body, attempt)
            outcome = attempt.judge(answer)
            is_kept = not self.usable.closed and not self._network.is_tls_in_tls
            is_reusable = outcome is answer and is_kept and slot.is_reusable()
        except Exception as error:  # noqa: BLE001 (every kind is classified)
            outcome = classify(error, attempt)
        finally:
            if is_reusable:
                slot.idle_since = time.monotonic()
                self._free.append(slot)
            else:
                await slot.close()
        return outcome

    async def _close_unused(self) -> None:
        """Close what nobody has needed for long: it lies at the bottom of the stack."""
        limit = time.monotonic() - KEEP_ALIVE
        while self._free and self._free[0].idle_since < limit:
            await self._free.popleft().close()

    async def close(self) -> None:
        self.usable.closed = True
        is_here = self.usable.loop is running_loop()
        while self._free:
            slot = self._free.pop()
            if is_here:
                await slot.close()
            else:
                # a stream can be closed in its own loop only; it goes with its last reference
                slot.shut_down()


class _AsyncBorrowed(AsyncEffects):
    """Requests through the user's own client."""

    def __init__(self, client: Any) -> None:
        super().__init__()
        self._client = client

    async def exchange(self, request: Request, *, connect_timeout: float, deadline: float) -> Answer | Failure:
        self.usable.check(running_loop())
        if self._client.is_closed:
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
        is_whole = True

        async def trace(step: str, about: dict[str, Any]) -> None:
            note_step(attempt, step, about)

        built = build_request(self._client, request, attempt, trace)
        response = await self._client.send(built, stream=True, auth=None, follow_redirects=False)
        try:
            if response.is_stream_consumed:
                return answer_already_read(response, request.max_body)
            async with contextlib.aclosing(response.aiter_raw()) as chunks:
                async for chunk in chunks:
                    if not collector.add(chunk):
                        is_whole = False
                        break
        finally:
            await response.aclose()
        return make_answer(response, collector.chunks, is_whole=is_whole)

    async def close(self) -> None:
        self.usable.closed = True


def open_async(origin: Origin, max_connections: int, http_client: object) -> Backend:
    """Give the effects for an event loop.

    Raises:
        ConfigurationError: `http_client` is none that an async client can use.
    """
    if http_client is None:
        return _AsyncSlots(origin, max_connections)
    if is_instance(http_client, "AsyncClient"):
        return _AsyncBorrowed(http_client)
    if is_instance(http_client, "ClientSession", ("aiohttp",)):
        from cloudware_async._backend_aiohttp import AiohttpBackend

        return AiohttpBackend(http_client)
    raise ConfigurationError(
        "http_client must be an httpx.AsyncClient or an aiohttp.ClientSession; a blocking one is for Cloudware"
    )
