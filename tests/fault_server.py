r"""A server that breaks on purpose: raw sockets on loopback, own threads, one fault a request by script.

Rule 1. A script is a row of acts, an act a row of steps. Each request takes the next act when its first byte
        arrives; when the row is used up, `Script.then` answers, by default what the service documents.
Rule 2. An act whose first step does not read begins when a fresh connection is accepted, before TLS too.
        On a kept-alive connection it begins, like any other, with the first byte of the next request.
Rule 3. An act that neither closes, resets nor hangs leaves the connection open for the next request.
Rule 4. The ledger holds a request once its head and its whole `Content-Length` body were read, before a byte
        of an answer is sent. What was read of one that never became whole is in `partial`.
Rule 5. `Close` is a clean end (FIN, never a reset): what the client still sends is thrown away.
        `Reset` is a reset. `Hang` neither reads nor writes. Whatever waits wakes up when the client leaves or
        the server closes; `close()` ends every thread, and raises what went wrong in one.
Rule 6. A new step is one class with `run(connection)`; nothing else here has to know of it.

    script = Script(acts=((ReadRequest(), Send(b"HTTP/1.1 200 OK\r\nConte"), Reset()),))
    with FaultServer(script) as server:
        ...                                     # a client posts to server.base_url
        assert server.wait_for(1)
        assert len(server.posts) == 1
"""

from __future__ import annotations

import contextlib
import datetime as dt
import itertools
import json
import math
import select
import socket
import ssl
import struct
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from types import TracebackType
from typing import ClassVar, Literal, Self

import trustme
from attrs import field, frozen

LOOPBACK = "127.0.0.1"
PATIENCE = 5.0  # the bound of every wait and join in here, in seconds
CHUNK = 65536
HEAD_END = b"\r\n\r\n"
JSON_TYPE = b"Content-Type: application/json"
# Linux tells that the other side has ended; elsewhere a waiting step then notices only a reset or `close()`.
CLIENT_LEFT: int = getattr(select, "POLLRDHUP", 0)

# ----------------------------------------------------------------------------------------------------
# Answers, as bytes


def head(status: int = 200, *headers: bytes, reason: bytes = b"Answer", version: bytes = b"HTTP/1.1") -> bytes:
    """A status line and header lines, with the blank line that ends them."""
    return b"\r\n".join([b"%s %d %s" % (version, status, reason), *headers]) + HEAD_END


def answer(
    body: bytes, status: int = 200, *headers: bytes, content_type: bytes = JSON_TYPE, reason: bytes = b"Answer"
) -> bytes:
    """A whole answer of `Content-Length` framing."""
    return head(status, content_type, b"Content-Length: %d" % len(body), *headers, reason=reason) + body


def chunks(*pieces: bytes) -> bytes:
    """The pieces in chunked framing, without the last chunk."""
    return b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in pieces)


def receipt(receipt_id: str) -> bytes:
    """The documented answer to a send."""
    resource = {
        "id": receipt_id,
        "name": "Example Resource",
        "description": "This is an example resource.",
        "created_at": "2023-01-01T00:00:00Z",
        "updated_at": "2023-01-01T00:00:00Z",
    }
    return json.dumps({"data": resource, "status": "success"}).encode()


def listing(message_id: str, next_page: object = None) -> bytes:
    """The documented answer to a listing: one message and, unless one is given, no next page."""
    message = {
        "type": "message_received",
        "from": "1234567890",
        "to": "0987654321",
        "message": "Hello, World!",
        "message_id": message_id,
        "created_at": "2020-01-01T00:00:00Z",
        "sent_at": "2020-01-01T00:00:00Z",
    }
    page = {"query": "device_id=2254&phone=+40722000000", "data": [message], "next_page": next_page}
    return json.dumps(page).encode()


# ----------------------------------------------------------------------------------------------------
# Steps, acts, scripts


@frozen
class Step:
    """One thing the server does on a connection."""

    reads: ClassVar[bool] = False

    def run(self, connection: Connection) -> None:
        """Do it."""
        raise NotImplementedError


Act = tuple[Step, ...]


@frozen
class AwaitRequest(Step):
    """Wait until a request begins to arrive; read no more than its first byte."""

    reads: ClassVar[bool] = True

    def run(self, connection: Connection) -> None:
        """Wait."""
        connection.await_request()


@frozen
class ReadSome(Step):
    """Read just so many bytes of the request (100: about half of a send, and less than any head)."""

    reads: ClassVar[bool] = True
    count: int = 100

    def run(self, connection: Connection) -> None:
        """Read them."""
        connection.read_some(self.count)


@frozen
class ReadHead(Step):
    """Read the head and no byte of the body. A request without a body is whole then."""

    reads: ClassVar[bool] = True

    def run(self, connection: Connection) -> None:
        """Read it."""
        connection.read_head()


@frozen
class ReadRequest(Step):
    """Read the request wholly: the ledger has it."""

    reads: ClassVar[bool] = True

    def run(self, connection: Connection) -> None:
        """Read it."""
        connection.read_request()


@frozen
class Send(Step):
    """Send these bytes, in one write (over TLS: in records of their own)."""

    payload: bytes = field(repr=lambda payload: f"<{len(payload)} bytes>")

    def run(self, connection: Connection) -> None:
        """Send them."""
        connection.write(self.payload)


@frozen
class Answer(Step):
    """Send a whole answer in which `{base_url}` and `{port}` have become the server's own."""

    body: bytes
    status: int = 200
    headers: tuple[bytes, ...] = ()

    def run(self, connection: Connection) -> None:
        """Send it."""

        def here(data: bytes) -> bytes:
            return data.replace(b"{base_url}", connection.base_url.encode()).replace(b"{port}", b"%d" % connection.port)

        connection.write(answer(here(self.body), self.status, *map(here, self.headers)))


@frozen
class Healthy(Step):
    """Send what the service documents for the request that was read, under an id that no other answer has."""

    def run(self, connection: Connection) -> None:
        """Send it."""
        connection.write(healthy_answer(connection.last_request))


@frozen
class Trickle(Step):
    """Send the bytes a few at a time with a pause before each, until they or the client's patience end."""

    payload: bytes = field(repr=lambda payload: f"<{len(payload)} bytes>")
    pause: float = 0.05
    size: int = 1

    def run(self, connection: Connection) -> None:
        """Send them."""
        for start in range(0, len(self.payload), self.size):
            connection.pause(self.pause)
            connection.write(self.payload[start : start + self.size])


@frozen
class Repeat(Step):
    """Send the bytes again and again, with a pause before each: so many times, or until the client leaves."""

    payload: bytes = field(repr=lambda payload: f"<{len(payload)} bytes>")
    times: int | None = None
    pause: float = 0.0

    def run(self, connection: Connection) -> None:
        """Send them."""
        for _ in itertools.count() if self.times is None else range(self.times):
            connection.pause(self.pause)
            connection.write(self.payload)


@frozen
class Pause(Step):
    """Say nothing for so long, and then go on."""

    seconds: float

    def run(self, connection: Connection) -> None:
        """Wait."""
        connection.pause(self.seconds)


@frozen
class Close(Step):
    """End the connection cleanly: close_notify over TLS, then FIN."""

    def run(self, connection: Connection) -> None:
        """End it."""
        connection.close_cleanly()


@frozen
class Drop(Step):
    """End the connection with FIN alone: over TLS without the close_notify that proves an end."""

    def run(self, connection: Connection) -> None:
        """End it."""
        connection.close_cleanly(notify=False)


@frozen
class Reset(Step):
    """End the connection with a reset."""

    def run(self, connection: Connection) -> None:
        """End it."""
        connection.reset()


@frozen
class Hang(Step):
    """Neither read nor write again; the connection stays until the client leaves or the server closes."""

    def run(self, connection: Connection) -> None:
        """Hang."""
        connection.hang()


HEALTHY: Act = (ReadRequest(), Healthy())


@frozen
class Script:
    """The acts in their order, and what every request after them gets."""

    acts: tuple[Act, ...] = ()
    then: Act = HEALTHY


# ----------------------------------------------------------------------------------------------------
# What was received


@frozen
class Received:
    """A request that was wholly received."""

    number: int  # the first is 1
    connection: int  # the first is 1
    method: str
    path: str  # with its query
    headers: tuple[tuple[str, str], ...]
    body: bytes
    at: float  # time.monotonic() when the last byte had been read

    @property
    def receipt_id(self) -> str:
        """The id under which the healthy answer to this request, and no other, comes."""
        return f"receipt-{self.number}"

    def header(self, name: str) -> tuple[str, ...]:
        """Every value of the header of this name."""
        return tuple(value for key, value in self.headers if key.lower() == name.lower())


@frozen
class Partial:
    """What was read of a request that never became whole."""

    connection: int
    data: bytes
    at: float


def healthy_answer(request: Received) -> bytes:
    """What the service documents for this request."""
    match request.method, request.path.partition("?")[0]:
        case "POST", "/v1/sms/send" | "/v1/sms/queue":
            return answer(receipt(request.receipt_id))
        case "GET", "/v1/sms/messages":
            return answer(listing(request.receipt_id))
        case _:
            return answer(b'{"error": "there is nothing at this address"}', 404)


def parse_headers(lines: Iterable[bytes]) -> Iterator[tuple[str, str]]:
    """The header lines as names and values."""
    for line in lines:
        name, _, value = line.decode("latin-1").partition(":")
        yield name.strip(), value.strip()


# ----------------------------------------------------------------------------------------------------
# One connection


class _Over(Exception):  # noqa: N818  it is no error: the script ended the connection, the client left, or close() came
    """Nothing more happens on this connection."""


class Connection:
    """One accepted connection, and what the steps do with it. Everything runs in its own thread."""

    def __init__(self, server: FaultServer, number: int, accepted: socket.socket) -> None:
        self.number = number
        self.base_url = server.base_url
        self.port = server.port
        self.socket = accepted
        self._server = server
        self._received = bytearray()
        self._last_request: Received | None = None
        self._partial_is_recorded = False

    def serve(self) -> None:
        """Play the acts of the requests of this connection until it ends."""
        try:
            if (act := self._server.take_act_for_accept(self.number)) is not None:
                self._play(act)
            while True:
                self.await_request()
                self._play(self._server.take_act(self.number))
        except (_Over, OSError):
            pass
        finally:
            self._record_partial()
            self._server.forget(self)

    def _play(self, act: Act) -> None:
        for step in act:
            step.run(self)
        self._server.record_settled(self.number)

    # Reading

    @property
    def last_request(self) -> Received:
        """The request read last."""
        if self._last_request is None:
            message = "the script answers before it has read a request"
            raise RuntimeError(message)
        return self._last_request

    def await_request(self) -> None:
        """Wait for the first byte of a request."""
        if not self._received:
            self._receive(1)

    def read_some(self, count: int) -> None:
        """Read until just so many bytes of the request are here."""
        while len(self._received) < count:
            self._receive(count - len(self._received))

    def read_head(self) -> None:
        """Read up to the end of the head, byte by byte so that nothing of the body is touched."""
        while HEAD_END not in self._received:
            self._receive(1)
        self._take_request()

    def read_request(self) -> None:
        """Read the request wholly and write it into the ledger."""
        while not self._take_request():
            self._receive(CHUNK)

    def _receive(self, limit: int) -> None:
        self._shake_hands()
        data = self.socket.recv(limit)
        if not data:
            raise _Over
        self._received += data

    def _take_request(self) -> bool:
        end_of_head = self._received.find(HEAD_END)
        if end_of_head < 0:
            return False
        request_line, *lines = bytes(self._received[:end_of_head]).split(b"\r\n")
        headers = tuple(parse_headers(lines))
        length = next((int(value) for name, value in headers if name.lower() == "content-length"), 0)
        start = end_of_head + len(HEAD_END)
        if len(self._received) < start + length:
            return False
        method, path, _ = request_line.decode("latin-1").split(" ", 2)
        body = bytes(self._received[start : start + length])
        del self._received[: start + length]
        self._last_request = self._server.record(self.number, method, path, headers, body)
        return True

    def _record_partial(self) -> None:
        if self._received and not self._partial_is_recorded:
            self._partial_is_recorded = True
            self._server.record_partial(self.number, bytes(self._received))

    def _shake_hands(self) -> None:
        """Begin TLS, if this server speaks it and it has not begun: whatever was sent before went bare."""
        if self._server.ssl_context is None or isinstance(self.socket, ssl.SSLSocket):
            return
        with self._server.changed:  # so that close() finds one socket or the other, never one half wrapped
            self.socket = self._server.ssl_context.wrap_socket(
                self.socket, server_side=True, do_handshake_on_connect=False, suppress_ragged_eofs=True
            )
        self.socket.do_handshake()

    # Writing and waiting

    def write(self, payload: bytes) -> None:
        """Send all of it, however long the client takes to read it."""
        self.socket.sendall(payload)

    def pause(self, seconds: float) -> None:
        """Wait so long, and no longer than the client stays."""
        if self._wait(seconds):
            raise _Over

    def hang(self) -> None:
        """Wait until the client leaves or the server closes."""
        self._record_partial()
        self._server.record_settled(self.number)
        self._wait(None)
        raise _Over

    def _wait(self, seconds: float | None) -> bool:
        """Whether the client left, or the server began to close, within that time."""
        poll = select.poll()
        poll.register(self.socket.fileno(), CLIENT_LEFT)  # a reset is told unasked; bytes do not wake it
        poll.register(self._server.closing.fileno(), select.POLLIN)
        return bool(poll.poll(None if seconds is None else math.ceil(seconds * 1000)))

    # Ending

    def close_cleanly(self, *, notify: bool = True) -> None:
        """Send a clean end, then throw away what still comes so that it stays a clean one."""
        self._record_partial()
        if notify and isinstance(self.socket, ssl.SSLSocket):
            self.socket.settimeout(0)  # our close_notify goes out; the client's is not waited for
            with contextlib.suppress(OSError):
                self.socket.unwrap()
            self.socket.settimeout(None)
        socket.socket.shutdown(self.socket, socket.SHUT_WR)
        self._server.record_end(self.number)
        while socket.socket.recv(self.socket, CHUNK):
            pass
        raise _Over

    def reset(self) -> None:
        """Send a reset."""
        self._record_partial()
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        raise _Over  # the socket is closed on the way out


# ----------------------------------------------------------------------------------------------------
# The server


Door = Literal["open", "refused", "full", "nameless"]
"""How a connection is met: accepted; refused; never completed (the queue is full); at a name that is none."""


class FaultServer:
    """The server: `with FaultServer(script) as server`. Its properties are copies, to be read at any time."""

    def __init__(
        self,
        script: Script = Script(),
        *,
        ssl_context: ssl.SSLContext | None = None,
        door: Door = "open",
        host: str = LOOPBACK,
        port: int = 0,
    ) -> None:
        self.ssl_context = ssl_context
        self.changed = threading.Condition(threading.RLock())
        self.closing, self._close_signal = socket.socketpair()
        self._door = door
        self._acts = list(script.acts)
        self._then = script.then
        self._ledger: list[Received] = []
        self._partial: list[Partial] = []
        self._ended: set[int] = set()
        self._playing: set[int] = set()
        self._accepted = 0
        self._open: set[Connection] = set()
        self._threads: list[threading.Thread] = []
        self._failures: list[BaseException] = []
        self._queue_fillers: list[socket.socket] = []
        self._listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        self._listener.bind((host, port))
        self._host = host
        self.port: int = self._listener.getsockname()[1]

    @property
    def base_url(self) -> str:
        """Where a client is to be pointed to."""
        # The name is longer than a name can be: looking it up fails at once and asks nobody.
        host = self._host if self._door != "nameless" else ".".join(["nameless" * 6] * 6)
        return f"{'http' if self.ssl_context is None else 'https'}://{host}:{self.port}/v1"

    # What was received

    @property
    def ledger(self) -> list[Received]:
        """The wholly received requests, in their order."""
        with self.changed:
            return list(self._ledger)

    @property
    def posts(self) -> list[Received]:
        """The wholly received POSTs."""
        return [request for request in self.ledger if request.method == "POST"]

    @property
    def partial(self) -> list[Partial]:
        """What was received of requests that never became whole."""
        with self.changed:
            return list(self._partial)

    @property
    def connections(self) -> int:
        """How many connections were accepted."""
        with self.changed:
            return self._accepted

    @property
    def authorizations(self) -> list[str]:
        """Every `Authorization` value that came, in whole requests and then in partial ones."""
        whole = [value for request in self.ledger for value in request.header("authorization")]
        lines = (line for partial in self.partial for line in partial.data.split(b"\r\n")[1:-1])
        return whole + [value for name, value in parse_headers(lines) if name.lower() == "authorization"]

    def wait_for(self, requests: int, timeout: float = PATIENCE) -> bool:
        """Wait until so many requests have been wholly received."""
        return self._wait_until(lambda: len(self._ledger) >= requests, timeout)

    def wait_for_partial(self, requests: int, timeout: float = PATIENCE) -> bool:
        """Wait until so many requests have been given up before they were whole."""
        return self._wait_until(lambda: len(self._partial) >= requests, timeout)

    def wait_for_connections(self, connections: int, timeout: float = PATIENCE) -> bool:
        """Wait until so many connections have been accepted."""
        return self._wait_until(lambda: self._accepted >= connections, timeout)

    def wait_for_ended(self, connections: int, timeout: float = PATIENCE) -> bool:
        """Wait until so many connections have ended, or been ended by this side."""
        return self._wait_until(lambda: len(self._ended) >= connections, timeout)

    def wait_until_settled(self, timeout: float = PATIENCE) -> bool:
        """Wait until every act that has begun is over, or hangs: whatever it sent or ended is on the wire by then."""
        return self._wait_until(lambda: not self._playing, timeout)

    def _wait_until(self, holds: Callable[[], bool], timeout: float) -> bool:
        with self.changed:
            return self.changed.wait_for(holds, timeout)

    # Life

    def __enter__(self) -> Self:
        if self._door == "open":
            self._listener.listen(128)
            self._listener.setblocking(False)
            self._start(self._accept, "accept")
        elif self._door == "full":
            self._listener.listen(0)
            self._fill_queue()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End every connection and every thread, and raise what went wrong in one."""
        self._close_signal.close()
        with self.changed:
            # Not SSLSocket's own: that one forgets its state under the feet of the connection's thread.
            for connection in self._open:
                with contextlib.suppress(OSError):
                    socket.socket.shutdown(connection.socket, socket.SHUT_RDWR)
            threads = list(self._threads)
        deadline = time.monotonic() + PATIENCE
        for thread in threads:
            thread.join(max(0.0, deadline - time.monotonic()))
        for filler in self._queue_fillers:
            filler.close()
        self._listener.close()
        self.closing.close()
        if alive := [thread.name for thread in threads if thread.is_alive()]:
            message = f"threads of the fault server did not end: {alive}"
            raise RuntimeError(message)
        if self._failures:
            raise self._failures[0]

    def _start(self, target: Callable[[], None], name: str) -> None:
        thread = threading.Thread(
            target=self._guard, args=(target,), name=f"fault-server-{self.port}-{name}", daemon=True
        )
        self._threads.append(thread)
        thread.start()

    def _guard(self, target: Callable[[], None]) -> None:
        try:
            target()
        except BaseException as failure:  # noqa: BLE001  close() raises it
            with self.changed:
                self._failures.append(failure)

    def _accept(self) -> None:
        poll = select.poll()
        poll.register(self._listener.fileno(), select.POLLIN)
        poll.register(self.closing.fileno(), select.POLLIN)
        while self.closing.fileno() not in dict(poll.poll()):
            try:
                accepted, _ = self._listener.accept()
            except (BlockingIOError, ConnectionAbortedError):  # it went away again before it was accepted
                continue
            accepted.setblocking(True)
            accepted.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            with self.changed:
                if self.closing_has_begun():
                    accepted.close()
                    return
                self._accepted += 1
                connection = Connection(self, self._accepted, accepted)
                self._open.add(connection)
                self._start(connection.serve, f"connection-{connection.number}")
                self.changed.notify_all()

    def _fill_queue(self) -> None:
        """Connect until no further connection is completed: they wait in a queue that nobody empties."""
        for _ in range(32):
            filler = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
            filler.settimeout(0.2)
            self._queue_fillers.append(filler)
            try:
                filler.connect((self._host, self.port))
            except TimeoutError:
                return
        message = "this machine's queue of connections cannot be filled"
        raise RuntimeError(message)

    # For the connections

    def closing_has_begun(self) -> bool:
        """Whether `close()` was called."""
        return self._close_signal.fileno() < 0

    def take_act_for_accept(self, connection: int) -> Act | None:
        """The next act, if it is one that begins at accept."""
        with self.changed:
            upcoming = self._acts[0] if self._acts else self._then
            return None if upcoming[0].reads else self.take_act(connection)

    def take_act(self, connection: int) -> Act:
        """The act of the request that has begun to arrive."""
        with self.changed:
            self._playing.add(connection)
            return self._acts.pop(0) if self._acts else self._then

    def record_settled(self, connection: int) -> None:
        """Write down that nothing more happens on a connection of itself."""
        with self.changed:
            self._playing.discard(connection)
            self.changed.notify_all()

    def record(
        self, connection: int, method: str, path: str, headers: tuple[tuple[str, str], ...], body: bytes
    ) -> Received:
        """Write a whole request into the ledger."""
        with self.changed:
            request = Received(
                number=len(self._ledger) + 1,
                connection=connection,
                method=method,
                path=path,
                headers=headers,
                body=body,
                at=time.monotonic(),
            )
            self._ledger.append(request)
            self.changed.notify_all()
            return request

    def record_partial(self, connection: int, data: bytes) -> None:
        """Write down what came of a request that will never be whole."""
        with self.changed:
            self._partial.append(Partial(connection=connection, data=data, at=time.monotonic()))
            self.changed.notify_all()

    def record_end(self, connection: int) -> None:
        """Write down that this side has ended a connection."""
        with self.changed:
            self._ended.add(connection)
            self.record_settled(connection)

    def forget(self, connection: Connection) -> None:
        """Close the connection's socket, where no `close()` can meet it half closed."""
        with self.changed:
            self._open.discard(connection)
            connection.socket.close()
        self.record_end(connection.number)


# ----------------------------------------------------------------------------------------------------
# Certificates


Trust = Literal["good", "unknown-authority", "wrong-name", "expired"]


class Certificates:
    """An authority that the tests trust, and server certificates that are good or bad in one way each."""

    def __init__(self) -> None:
        self.authority = trustme.CA()
        self._stranger = trustme.CA()

    def server_context(self, trust: Trust = "good") -> ssl.SSLContext:
        """A server's side with such a certificate."""
        authority = self._stranger if trust == "unknown-authority" else self.authority
        name = "elsewhere.invalid" if trust == "wrong-name" else LOOPBACK
        yesterday = dt.datetime.now(dt.UTC) - dt.timedelta(days=1)
        certificate = authority.issue_cert(name, not_after=yesterday if trust == "expired" else None)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        certificate.configure_cert(context)
        return context

    def client_context(self) -> ssl.SSLContext:
        """A client's side that trusts this authority and no other."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        self.authority.configure_trust(context)
        return context
