"""What a backend knows of one attempt, whichever HTTP library makes it.

Rule 1: our own wrapper round a connection's stream is the witness of whether a byte was written; in a user's client
        it is what the library tells of its steps. Without either (a mock) the kind of the exception alone decides,
        and doubt is "written".
Rule 2: an exception is known by its name, so no library has to be imported for it, httpx2 among them. Where one library
        stands on another, the lowest is believed: it was there.
Rule 3: a closed client, and a second event loop, are refused in one sentence.
"""

from __future__ import annotations

import select
import ssl
import time
from typing import TYPE_CHECKING

from cloudware_async._backend import CLOSED
from cloudware_async._errors import ConfigurationError
from cloudware_async._wire import NEVER_WRITTEN, Answer, Failure, FailureKind

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Iterator

    from cloudware_async._privacy import Secret
    from cloudware_async._wire import Origin

# seconds after its deadline until a user's client is cut off, so that what ends in the last moment ends by itself
GRACE = 0.05

# seconds
_LONGEST = 1e6

CLIENT_CLOSED = "the http_client is closed: it must live as long as this client"
_SECOND_LOOP = (
    "this client belongs to another event loop: make one in each, or use Cloudware, the blocking client, from threads"
)


class Attempt:
    """What our wrapper saw of one attempt, and how long it may take."""

    __slots__ = (
        "begun",
        "connect_deadline",
        "connect_timeout",
        "deadline",
        "filled",
        "hidden",
        "overflown",
        "reads",
        "watched",
        "written",
    )

    def __init__(self, connect_timeout: float, deadline: float) -> None:
        self.connect_timeout = connect_timeout
        # the operating system takes no longer ones
        self.deadline = min(deadline, time.monotonic() + _LONGEST)
        self.connect_deadline: float | None = None
        # whether it is under way: in a slot, or with the first byte that a user's client tells of
        self.begun = False
        # whether somebody else's code may have written it where nothing is seen of that
        self.hidden = False
        self.watched = False
        self.written = False
        self.reads = 0
        self.filled = False
        self.overflown = False

    def left(self) -> float:
        return self.deadline - time.monotonic()

    def connect_left(self) -> float:
        """Give what is left for connecting, which begins at the first call."""
        now = time.monotonic()
        if self.connect_deadline is None:
            self.connect_deadline = min(self.deadline, now + self.connect_timeout)
        return max(0.001, self.connect_deadline - now)

    def is_connecting_late(self) -> bool:
        """Say whether connecting has taken its time: what is never waited for never times out."""
        return self.connect_deadline is not None and time.monotonic() >= self.connect_deadline

    def left_to_begin(self) -> float:
        """Give a time for what comes before the first byte, which ends before the call does: then nothing was sent."""
        return max(0.001, 0.9 * self.left())

    def left_to_connect(self) -> float:
        """Give a connect timeout that does the same."""
        return min(self.connect_timeout, self.left_to_begin())

    def note_write(self, data: bytes) -> None:
        # a proxy is talked to ahead of the request, which is written in one go
        if data.startswith((b"POST ", b"GET ")):
            self.written = True
            self.reads = 0

    def note_read(self, data: bytes, size: int) -> None:
        self.reads += 1
        # then there may be more, in a buffer where nobody can see it
        self.filled = len(data) >= size

    def failure(self, kind: FailureKind, reason: str = "") -> Failure:
        if self.written and kind in NEVER_WRITTEN:
            # then another connection was meant: a hook's, say
            kind = FailureKind.BROKEN
        return Failure(kind, written=self.written or not self.watched, reason=reason)

    def judge(self, answer: Answer) -> Answer | Failure:
        is_stray = self.watched and self.reads == 0
        return self.failure(FailureKind.STRAY) if is_stray else answer


_KINDS = {
    "ConnectTimeout": FailureKind.CONNECT_TIMEOUT,
    "ConnectionTimeoutError": FailureKind.CONNECT_TIMEOUT,
    "PoolTimeout": FailureKind.NO_CONNECTION,
    "TimeoutException": FailureKind.TIMEOUT,
    "TimeoutError": FailureKind.TIMEOUT,
    "ConnectError": FailureKind.CONNECT,
    "ClientConnectorError": FailureKind.CONNECT,
    "ClientHttpProxyError": FailureKind.CONNECT,
    "ProxyError": FailureKind.CONNECT,
    "UnsupportedProtocol": FailureKind.CONNECT,
}


def classify(error: Exception, attempt: Attempt) -> Failure:
    """Say what an exception of an HTTP library means (rule 2).

    Raises:
        AssertionError: respx knows no such request; that is said to the test as it is.
    """
    if isinstance(error, AssertionError) and _library(error) == "respx":
        raise error
    names = [parent.__name__ for parent in type(_find_lowest(error)).__mro__]
    kind = next((_KINDS[name] for name in names if name in _KINDS), FailureKind.BROKEN)
    root = _find_root(error)
    if kind is FailureKind.CONNECT and isinstance(root, ssl.SSLCertVerificationError):
        kind = FailureKind.CERTIFICATE
    return attempt.failure(kind, type(root).__name__)


_HTTP_LIBRARIES = ("httpx", "httpx2", "httpcore", "httpcore2", "aiohttp")


def _library(error: BaseException) -> str:
    return type(error).__module__.partition(".")[0]


def _chain(error: BaseException, below: Callable[[BaseException], BaseException | None]) -> Iterator[BaseException]:
    """Give an error and what lies below it, each once: `raise error from error` makes a circle."""
    seen: set[int] = set()
    found: BaseException | None = error
    while found is not None and id(found) not in seen:
        seen.add(id(found))
        yield found
        found = below(found)


def _find_lowest(error: BaseException) -> BaseException:
    """Find what the lowest HTTP library raised that others made something else of, perhaps wrongly."""
    lowest = error
    for found in _chain(error, lambda above: above.__cause__):
        if _library(found) in _HTTP_LIBRARIES:
            lowest = found
    return lowest


def _find_root(error: BaseException) -> BaseException:
    """Find what the operating system or TLS said, beneath what libraries made of it."""
    for found in _chain(error, _below):
        # a plain OSError says less than its cause
        if type(found).__module__ in {"builtins", "socket", "ssl"} and type(found) not in {OSError, ExceptionGroup}:
            return found
    return error


def _below(error: BaseException) -> BaseException | None:
    # several addresses fail as a group: the first stands for all
    return error.exceptions[0] if isinstance(error, ExceptionGroup) else error.__cause__ or error.__context__


def make_headers(origin: Origin, token: Secret, *, is_send: bool) -> list[tuple[str, str]]:
    """Give the headers of a request; `Content-Length` is the HTTP library's to add."""
    headers = [
        ("Host", origin.authority),
        ("Authorization", f"Bearer {token.reveal()}"),
        ("Accept", "application/json"),
        ("Accept-Encoding", "identity"),
        ("User-Agent", "cloudware-async"),
    ]
    return [*headers, ("Content-Type", "application/json")] if is_send else headers


def is_readable(raw: socket.socket) -> bool:
    """Say whether a read would not wait: an unused connection has then ended, or holds a stray answer."""
    number = raw.fileno()
    if number < 0:
        return True
    if hasattr(select, "poll"):
        poll = select.poll()
        poll.register(number, select.POLLIN)
        return bool(poll.poll(0))
    return bool(select.select([number], [], [], 0)[0])


class Collector:
    """An answer's body, up to its cap."""

    def __init__(self, max_body: int) -> None:
        self.chunks: list[bytes] = []
        self.left = max_body

    def add(self, chunk: bytes) -> bool:
        """Keep a chunk; false if it was one too many."""
        self.left -= len(chunk)
        if self.left >= 0:
            self.chunks.append(chunk)
        return self.left >= 0


class Usable:
    """Whether a backend may be used here and now (rule 3)."""

    def __init__(self) -> None:
        self.closed = False
        self.loop: object = None

    def check(self, loop: object) -> None:
        if self.closed:
            raise ConfigurationError(CLOSED)
        if self.loop is None:
            self.loop = loop
        elif self.loop is not loop:
            raise ConfigurationError(_SECOND_LOOP)
