"""The effects over httpx for blocking callers: coroutines that never suspend.

Rule 1: slots are held as on an event loop (`_backend_httpx_async`), behind a limiter of threads.
Rule 2: our wrapper writes head and body at once, and gives each read and write what is left of the call.
Rule 3: several addresses share what is left for connecting, so that a dead one does not use it up.
"""

from __future__ import annotations

import contextlib
import functools
import socket
import threading
import time
import weakref
from collections import deque
from typing import TYPE_CHECKING, Any

import httpcore
import httpx

from cloudware_async._backend_attempt import CLIENT_CLOSED, GRACE, Attempt, Collector, classify, is_readable
from cloudware_async._backend_blocking import LONGEST_WAIT, BlockingEffects, Limiter, Turn, Work, current_work, is_cut
from cloudware_async._backend_forks import start_afresh_after_fork
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
    import ssl

    from cloudware_async._backend import Backend
    from cloudware_async._wire import Origin, Request

# bytes: blocking writes go in pieces of a TLS record, each bounded by what is left
_WRITE_SIZE = 16 * 1024
_NETWORK: httpcore.NetworkBackend = httpcore.SyncBackend()


class _BlockingStream(httpcore.NetworkStream):
    """Our wrapper round a slot's stream (rule 2): each read and write gets what is left."""

    def __init__(self, stream: httpcore.NetworkStream, slot: _BlockingSlot) -> None:
        self._stream = stream
        self._slot = slot
        self._pending = b""
        self._is_kept = False

    def _left(self, error: type[Exception]) -> float:
        left = self._slot.attempt.left()
        if left <= 0:
            raise error("the time ran out")
        return left

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        if self._pending:  # SOCKS ends its writes with none
            self._flush()
        attempt = self._slot.attempt
        if attempt.overflown:
            raise httpcore.ReadError("the body is over its cap")
        if attempt.written:
            data = self._receive(self._left(httpcore.ReadTimeout))
        else:
            # a proxy's part of connecting
            if attempt.is_connecting_late():
                raise httpcore.ConnectTimeout
            try:
                data = self._receive(attempt.connect_left())
            except httpcore.ReadTimeout as error:
                raise httpcore.ConnectTimeout from error
        attempt.note_read(data, READ_SIZE)
        return data

    def _receive(self, left: float) -> bytes:
        until = time.monotonic() + left
        while left > LONGEST_WAIT:
            try:
                return self._stream.read(READ_SIZE, LONGEST_WAIT)
            except httpcore.ReadTimeout:
                left = max(0.001, until - time.monotonic())
        return self._stream.read(READ_SIZE, left)

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        # httpcore ends a request with an empty write
        if buffer:
            self._pending += buffer
        elif self._pending:
            self._flush()

    def _flush(self) -> None:
        data, self._pending = self._pending, b""
        left = self._left(httpcore.WriteTimeout)
        # other threads had their turn since httpcore looked
        if self._is_kept and is_readable(self._stream.get_extra_info("socket")):
            # httpcore passes over an error in writing
            raise httpcore.ReadError("it has ended, or holds an answer to nothing")
        self._slot.attempt.note_write(data)
        for start in range(0, len(data), _WRITE_SIZE):
            self._stream.write(data[start : start + _WRITE_SIZE], left)
            left = self._left(httpcore.WriteTimeout)

    def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore.NetworkStream:
        left = self._slot.attempt.connect_left()
        self._slot.stream = _BlockingStream(self._stream.start_tls(ssl_context, server_hostname, left), self._slot)
        return self._slot.stream

    def get_extra_info(self, info: str) -> Any:
        if info == "is_readable":
            # httpcore asks before it uses a kept connection: this very attempt is watched, and no mock's
            self._slot.attempt.watched = self._is_kept = True
        return self._stream.get_extra_info(info)

    def close(self) -> None:
        self._stream.close()


class _BlockingSlot(httpcore.NetworkBackend):
    """One transport with one connection; it is its own transport's network backend."""

    def __init__(self, network: Network) -> None:
        self.transport = network.make_transport(httpx.HTTPTransport)
        pool: Any = self.transport._pool  # noqa: SLF001 (httpx hands nothing through)
        pool._network_backend = self  # noqa: SLF001 (the same)
        # one thread at a time has a slot, and a Ctrl-C could leave the lock held that the pool then waits for itself
        pool._optional_thread_lock = contextlib.nullcontext()  # noqa: SLF001 (the same)
        # only asked for its transport, which is this one unless somebody intercepts it
        self._client = httpx.Client(transport=self.transport, trust_env=False)
        self.attempt = Attempt(0, 0)
        self.stream: _BlockingStream | None = None
        self.idle_since = 0.0

    def connect_tcp(self, host: str, port: int, *args: Any, **options: Any) -> httpcore.NetworkStream:
        self.attempt.watched = True
        failure: Exception = httpcore.ConnectTimeout("no address answered in time")
        addresses = _resolve(host, port)
        for number, address in enumerate(addresses):
            options["timeout"] = self.attempt.connect_left() / (len(addresses) - number)
            try:
                stream = _NETWORK.connect_tcp(address, port, **options)
            except (httpcore.ConnectError, httpcore.ConnectTimeout) as error:
                failure = error
                continue
            self.stream = _BlockingStream(stream, self)
            if is_cut(current_work.get()):
                raise httpcore.ConnectError("it was told to stop")
            return self.stream
        raise failure

    def exchange(self, request: httpx.Request, max_body: int, attempt: Attempt) -> Answer:
        self.attempt = attempt
        transport = self._client._transport_for_url(request.url)  # noqa: SLF001 (what respx intercepts)
        response = transport.handle_request(request)
        collector = Collector(max_body)
        stream: Any = response.stream
        try:
            for chunk in stream:
                if not collector.add(chunk):
                    attempt.overflown = True
                    if not attempt.watched:
                        break
        except Exception:
            if not attempt.overflown:
                raise
        if not attempt.overflown:
            stream.close()
        return make_answer(response, collector.chunks, is_whole=not attempt.overflown)

    def is_reusable(self) -> bool:
        return not self.attempt.overflown and self.stream is not None and is_quiet(self.transport)

    def shut_down(self) -> None:
        """Wake the thread that reads or writes."""
        stream = self.stream
        raw = None if stream is None else stream.get_extra_info("socket")
        if raw is not None:
            with contextlib.suppress(OSError):
                # not SSLSocket's own, which takes the TLS object from under the reader
                socket.socket.shutdown(raw, socket.SHUT_RDWR)

    def close(self) -> None:
        if self.stream is not None:
            with contextlib.suppress(Exception):
                self.stream.close()


def _resolve(host: str, port: int) -> list[str]:
    try:
        return [str(found[4][0]) for found in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)]
    except OSError as error:
        raise httpcore.ConnectError("the name was not found") from error


def _close_all(slots: set[_BlockingSlot]) -> None:
    for slot in list(slots):
        slot.close()
    slots.clear()


class _BlockingSlots(BlockingEffects):
    """Requests over slots of our own."""

    def __init__(self, origin: Origin, max_connections: int) -> None:
        super().__init__()
        self._network = Network(origin)
        self._max_connections = max_connections
        self._all: set[_BlockingSlot] = set()
        # a client that was not closed leaves no socket open, and says nothing at the interpreter's exit
        weakref.finalize(self, _close_all, self._all)
        self._start_afresh()
        start_afresh_after_fork(self)

    def _start_afresh(self) -> None:
        # before the child has a second thread, which could take a connection of the parent's;
        # this closes the child's copies only, without a word to the server
        _close_all(self._all)
        self._free: deque[_BlockingSlot] = deque()
        self._limiter = Limiter(self._max_connections)

    async def exchange(self, request: Request, *, connect_timeout: float, deadline: float) -> Answer | Failure:
        self.usable.check(None)
        work = current_work.get()
        attempt = Attempt(connect_timeout, deadline)
        turn = Turn(self._limiter)
        try:
            if not turn.take(attempt.left(), work):
                return Failure(FailureKind.NO_CONNECTION, written=False)
            with our_request():
                return self._exchange_in_slot(request, attempt, work)
        finally:
            turn.give_back()

    def _exchange_in_slot(self, request: Request, attempt: Attempt, work: Work | None) -> Answer | Failure:
        self._close_unused()
        try:
            slot = self._free.pop()
        except IndexError:
            slot = _BlockingSlot(self._network)
        is_reusable = False
        watchdog: threading.Timer | None = None
        try:
            self._all.add(slot)
            if work is not None and not work.hold(slot):
                return Failure(FailureKind.NO_CONNECTION, written=False)
            if self._network.is_tls_in_tls:
                # httpcore's TLS within TLS waits anew for each piece of a record
                watchdog = threading.Timer(attempt.left() + GRACE, slot.shut_down)
                watchdog.start()
            answer = slot.exchange(self._network.request(request), request.max_body, attempt)
            outcome = attempt.judge(answer)
            is_kept = not self.usable.closed and not self._network.is_tls_in_tls
            is_reusable = outcome is answer and is_kept and slot.is_reusable()
        except Exception as error:  # noqa: BLE001 (every kind is classified)
            outcome = classify(error, attempt)
        finally:
            if watchdog is not None:
                watchdog.cancel()
            if work is not None:
                work.give_back(slot)
            if is_reusable:
                slot.idle_since = time.monotonic()
                self._free.append(slot)
            else:
                self._discard(slot)
        return outcome

    def _close_unused(self) -> None:
        """Close what nobody has needed for long: it lies at the bottom of the stack."""
        limit = time.monotonic() - KEEP_ALIVE
        # another thread may take the last one meanwhile
        with contextlib.suppress(IndexError):
            while self._free[0].idle_since < limit:
                self._discard(self._free.popleft())

    def _discard(self, slot: _BlockingSlot) -> None:
        self._all.discard(slot)
        slot.close()

    async def close(self) -> None:
        self.usable.closed = True
        # another thread may take the last one meanwhile
        with contextlib.suppress(IndexError):
            while True:
                self._discard(self._free.pop())


class _BlockingBorrowed(BlockingEffects):
    """Requests through the user's own client; bounded only between reads."""

    def __init__(self, client: Any) -> None:
        super().__init__()
        self._client = client

    async def exchange(self, request: Request, *, connect_timeout: float, deadline: float) -> Answer | Failure:
        self.usable.check(None)
        if self._client.is_closed:
            raise ConfigurationError(CLIENT_CLOSED)
        attempt = Attempt(connect_timeout, deadline)
        try:
            with our_request():
                return self._exchange(request, attempt)
        except Exception as error:  # noqa: BLE001 (every kind is classified)
            return classify(error, attempt)

    def _exchange(self, request: Request, attempt: Attempt) -> Answer | Failure:
        collector = Collector(request.max_body)
        is_whole = True
        trace = functools.partial(note_step, attempt)
        built = build_request(self._client, request, attempt, trace)
        response = self._client.send(built, stream=True, auth=None, follow_redirects=False)
        try:
            if response.is_stream_consumed:
                return answer_already_read(response, request.max_body)
            for chunk in response.iter_raw():
                if attempt.left() <= 0:
                    return attempt.failure(FailureKind.TIMEOUT)
                if not collector.add(chunk):
                    is_whole = False
                    break
        finally:
            response.close()
        return make_answer(response, collector.chunks, is_whole=is_whole)

    async def close(self) -> None:
        self.usable.closed = True


def open_blocking(origin: Origin, max_connections: int, http_client: object) -> Backend:
    """Give the effects for a blocking caller.

    Raises:
        ConfigurationError: `http_client` is none that a blocking client can use.
    """
    if http_client is None:
        return _BlockingSlots(origin, max_connections)
    if not is_instance(http_client, "Client"):
        raise ConfigurationError("http_client must be an httpx.Client: a blocking client cannot use an async one")
    return _BlockingBorrowed(http_client)
