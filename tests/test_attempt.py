"""What an attempt's evidence and an exception's kind make of a failure: the classification, as a table."""

from __future__ import annotations

import select
import socket
import ssl
import time

import aiohttp
import httpcore
import httpx
import pytest
import respx

from cloudware_async import ConfigurationError
from cloudware_async._backend_attempt import Attempt, Collector, Usable, classify, is_readable, make_headers
from cloudware_async._privacy import Secret
from cloudware_async._wire import Answer, Failure, FailureKind, Origin

REQUEST = httpx.Request("POST", "http://127.0.0.1/v1/sms/send")
KEY = type("ConnectionKey", (), {"host": "h", "port": 1, "ssl": True, "is_ssl": False})()


def attempt(*, watched: bool = False, written: bool = False, left: float = 30.0) -> Attempt:
    made = Attempt(5.0, time.monotonic() + left)
    made.watched = watched
    if written:
        made.note_write(b"POST / HTTP/1.1\r\n\r\n")
    return made


def caused(error: Exception, cause: Exception | None) -> Exception:
    error.__cause__ = cause
    return error


KINDS = {
    "refused": (httpx.ConnectError("no"), FailureKind.CONNECT),
    "name not found": (caused(httpx.ConnectError("no"), socket.gaierror()), FailureKind.CONNECT),
    "certificate": (caused(httpx.ConnectError("no"), ssl.SSLCertVerificationError()), FailureKind.CERTIFICATE),
    "TLS that is none": (caused(httpx.ConnectError("no"), ssl.SSLError()), FailureKind.CONNECT),
    "certificate after the connect": (
        caused(httpx.ReadError("no"), ssl.SSLCertVerificationError()),
        FailureKind.BROKEN,
    ),
    "connect timeout": (httpx.ConnectTimeout("no"), FailureKind.CONNECT_TIMEOUT),
    "a drop that another library takes for a connect timeout": (
        caused(httpx.ConnectTimeout("no"), aiohttp.ServerDisconnectedError()),
        FailureKind.BROKEN,
    ),
    "refused, says another library too": (
        caused(httpx.ConnectError("no"), caused(httpcore.ConnectError("no"), ConnectionRefusedError())),
        FailureKind.CONNECT,
    ),
    "no connection free": (httpx.PoolTimeout("no"), FailureKind.NO_CONNECTION),
    "read timeout": (httpx.ReadTimeout("no"), FailureKind.TIMEOUT),
    "write timeout": (httpx.WriteTimeout("no"), FailureKind.TIMEOUT),
    "read": (httpx.ReadError("no"), FailureKind.BROKEN),
    "write": (httpx.WriteError("no"), FailureKind.BROKEN),
    "close": (httpx.CloseError("no"), FailureKind.BROKEN),
    "protocol": (httpx.RemoteProtocolError("no"), FailureKind.BROKEN),
    "proxy": (httpx.ProxyError("no"), FailureKind.CONNECT),
    "scheme": (httpx.UnsupportedProtocol("no"), FailureKind.CONNECT),
    "httpcore's own": (httpcore.ConnectError("no"), FailureKind.CONNECT),
    "the operating system's timeout": (TimeoutError("no"), FailureKind.TIMEOUT),
    "anything": (ValueError("no"), FailureKind.BROKEN),
    "aiohttp refused": (aiohttp.ClientConnectorError(KEY, OSError(1, "no")), FailureKind.CONNECT),
    "aiohttp connect timeout": (aiohttp.ConnectionTimeoutError("no"), FailureKind.CONNECT_TIMEOUT),
    "aiohttp read timeout": (aiohttp.SocketTimeoutError("no"), FailureKind.TIMEOUT),
    "aiohttp disconnected": (aiohttp.ServerDisconnectedError("no"), FailureKind.BROKEN),
    "aiohttp broken": (aiohttp.ClientOSError("no"), FailureKind.BROKEN),
    "aiohttp half a body": (aiohttp.ClientPayloadError("no"), FailureKind.BROKEN),
}


@pytest.mark.parametrize(("error", "kind"), KINDS.values(), ids=KINDS)
def test_the_kind_decides_by_name(error, kind):
    """An exception is known by the name of its class or of one that it comes from."""
    assert kind is classify(error, attempt()).kind


@pytest.mark.parametrize(
    ("watched", "written", "said"),
    [(False, False, True), (False, True, True), (True, False, False), (True, True, True)],
)
def test_doubt_is_written(watched, written, said):
    """Only where our wrapper watched and saw no byte is it certain that none was written."""
    made = attempt(watched=watched, written=written)
    assert said is classify(httpx.ReadError("no"), made).written
    assert said is made.failure(FailureKind.TIMEOUT).written


def test_reason_is_what_the_system_said():
    """The name beneath what libraries made of it is told, past groups and plain OSErrors; else the error's own."""
    deep = caused(httpx.ConnectError("no"), caused(OSError("all"), ExceptionGroup("", [ConnectionRefusedError()])))
    assert "ConnectionRefusedError" == classify(deep, attempt()).reason
    below = httpx.ConnectError("no")
    below.__context__ = ConnectionResetError()
    assert "ConnectionResetError" == classify(below, attempt()).reason
    assert "ReadError" == classify(httpx.ReadError("no"), attempt()).reason


@pytest.mark.parametrize("link", ["__cause__", "__context__"])
def test_an_error_that_is_its_own_cause(link):
    """`raise error from error`, and longer circles, are looked through once."""
    error, other = httpx.ReadTimeout("no"), httpx.ReadError("no")
    setattr(error, link, other)
    setattr(other, link, error)
    for first in (error, other, caused(error, error)):
        assert classify(first, attempt()).kind in {FailureKind.TIMEOUT, FailureKind.BROKEN}


def test_a_test_doubles_refusal_is_the_tests_own():
    """What respx does not know leaves as itself; any other failed assertion is a failure of what raised it."""
    with pytest.raises(AssertionError, match="not mocked"):
        classify(respx.models.AllMockedAssertionError("not mocked"), attempt())
    assert Failure(FailureKind.BROKEN, written=True, reason="AssertionError") == classify(AssertionError(), attempt())


def test_what_a_proxy_is_asked_first_is_not_the_request():
    """A CONNECT that was written is no byte of the request; a new write forgets the reads before it."""
    made = attempt(watched=True)
    made.note_write(b"CONNECT api.cloudware.chat:443 HTTP/1.1\r\n\r\n")
    assert made.written is False
    made.note_read(b"HTTP/1.1 200 OK\r\n\r\n", 100)
    assert 1 == made.reads
    made.note_write(b"POST /v1/sms/send HTTP/1.1\r\n\r\n")
    assert made.written is True
    assert 0 == made.reads


def test_nothing_is_known_at_first():
    """Nothing has begun, nobody watches, nothing was written or read."""
    made = Attempt(5.0, time.monotonic() + 30)
    assert [False] * 5 == [made.begun, made.watched, made.written, made.filled, made.overflown]
    assert 0 == made.reads


def test_a_listing_is_a_request_too():
    """The first bytes of a GET are bytes of the request."""
    made = attempt(watched=True)
    made.note_write(b"GET /v1/sms/messages HTTP/1.1\r\n\r\n")
    assert made.written is True


@pytest.mark.parametrize("kind", [FailureKind.CONNECT, FailureKind.CERTIFICATE, FailureKind.NO_CONNECTION])
def test_what_never_writes_did_not_happen_after_a_write(kind):
    """Where something was written, a failure that comes before any write was another connection's: ours is broken."""
    assert Failure(FailureKind.BROKEN, written=True) == attempt(watched=True, written=True).failure(kind)
    assert Failure(kind, written=False) == attempt(watched=True).failure(kind)


def test_an_answer_without_a_read_is_a_stray_one():
    """What was there before the request was written is no answer to it; without a witness nobody can tell."""
    answer = Answer(200, [], b"")
    made = attempt(watched=True, written=True)
    stray = made.judge(answer)
    assert (FailureKind.STRAY, True) == (stray.kind, stray.written)
    made.note_read(b"x", 100)
    assert answer is made.judge(answer)
    assert answer is attempt().judge(answer)


@pytest.mark.parametrize(("size", "filled"), [(9, False), (10, True), (11, True)])
def test_a_read_that_filled_its_buffer_may_hide_more(size, filled):
    """Only a read shorter than what was asked for shows that nothing is left."""
    made = attempt()
    made.note_read(b"x" * size, 10)
    assert filled is made.filled


def test_time_is_what_is_left():
    """A connect gets its own timeout or what is left; one of a user's client ends before the call; neither is 0."""
    made = attempt(left=100.0)
    assert 99 < made.left() <= 100
    assert 5.0 == made.connect_left()
    assert 5.0 == made.left_to_connect()
    short = attempt(left=2.0)
    assert 1.9 < short.connect_left() <= 2.0
    assert 1.7 < short.left_to_connect() <= 1.8
    over = attempt(left=-1.0)
    assert over.left() < 0
    assert 0.001 == over.connect_left()
    assert 0.001 == over.left_to_connect()
    assert attempt(left=1e300).left() <= 1e6


def test_a_body_is_kept_up_to_its_cap():
    """The chunk that is one byte too many is not kept, and says so."""
    collector = Collector(3)
    assert collector.add(b"ab")
    assert collector.add(b"c")
    assert not collector.add(b"d")
    assert [b"ab", b"c"] == collector.chunks


def test_headers_of_a_request():
    """A send says that it is JSON, a read does not; the token stands in one header."""
    origin = Origin("http", "127.0.0.1", 8000)
    read = make_headers(origin, Secret("token"), is_send=False)
    assert [
        ("Host", "127.0.0.1:8000"),
        ("Authorization", "Bearer token"),
        ("Accept", "application/json"),
        ("Accept-Encoding", "identity"),
        ("User-Agent", "cloudware-async"),
    ] == read
    assert [*read, ("Content-Type", "application/json")] == make_headers(origin, Secret("token"), is_send=True)


def test_one_loop_one_client():
    """A second loop and a closed client are refused in one sentence."""
    usable = Usable()
    first, second = object(), object()
    usable.check(first)
    usable.check(first)
    with pytest.raises(ConfigurationError, match=r"^this client belongs to another event loop"):
        usable.check(second)
    usable.closed = True
    with pytest.raises(ConfigurationError, match=r"^this client is closed"):
        usable.check(first)


@pytest.mark.parametrize("system", ["Linux", "Windows"])
def test_whether_a_read_would_wait(system: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A connection is readable that holds something, has ended, or was closed; one that waits is not."""
    if system == "Windows":
        monkeypatch.delattr(select, "poll")
    left, right = socket.socketpair()
    with left, right:
        assert not is_readable(left)
        right.sendall(b"x")
        assert is_readable(left)
        left.recv(1)
        right.close()
        assert is_readable(left)
    assert is_readable(left)
