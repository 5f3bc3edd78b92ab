"""What both worlds over httpx share: how a connection is made and kept, and what a user's client is given.

Rule 1: requests go through httpx's own transport methods, so what intercepts those intercepts us.
Rule 2: nothing may be left over on a connection after an answer; else it is discarded, so that a stray answer
        never becomes another request's. In TLS within TLS it may lie where nobody looks, so no such one is kept.
"""

from __future__ import annotations

import functools
import os
import ssl
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import httpx

from cloudware_async._backend_attempt import make_headers
from cloudware_async._errors import ConfigurationError
from cloudware_async._wire import Answer

if TYPE_CHECKING:
    from collections.abc import Callable

    from cloudware_async._backend_attempt import Attempt
    from cloudware_async._privacy import Secret
    from cloudware_async._wire import Origin, Request

T = TypeVar("T")

# seconds that an unused connection is kept: httpx's own default, and short of most servers'
KEEP_ALIVE = 5.0
# bytes: what is read at once is parsed at once, so it bounds how long a flood holds up an event loop
READ_SIZE = 16 * 1024
# how many tokens' headers are kept prepared
_PREPARED = 64


def make_answer(response: Any, chunks: list[bytes], *, is_whole: bool) -> Answer:
    return Answer(response.status_code, response.headers.raw, b"".join(chunks), is_whole)


def answer_already_read(response: Any, max_body: int) -> Answer:
    """Make an answer of a response that a mock or a hook of the user's has read, and decoded, before us."""
    headers = [pair for pair in response.headers.raw if pair[0].lower() != b"content-encoding"]
    body: bytes = response.content
    return Answer(response.status_code, headers, body[:max_body], is_whole=len(body) <= max_body)


def is_quiet(transport: Any) -> bool:
    """Say whether a connection is open and no byte is left over; false where that cannot be told (rule 2)."""
    connections = transport._pool.connections  # noqa: SLF001 (no public way; false if it goes away)
    inner: Any = connections[0] if len(connections) == 1 else None
    while hasattr(inner, "_connection"):
        inner = inner._connection  # noqa: SLF001 (the same)
    state = getattr(inner, "_h11_state", None)
    return state is not None and state.trailing_data == (b"", False)


class Network:
    """How connections to one origin are made: through which proxy, and trusting whom."""

    def __init__(self, origin: Origin) -> None:
        self.origin = origin
        host = f"{origin.host}:{origin.port}"
        proxies = {} if urllib.request.proxy_bypass(host) else urllib.request.getproxies()
        proxy = proxies.get(origin.scheme) or proxies.get("all")
        self._proxy = proxy if proxy is None or "://" in proxy else f"http://{proxy}"
        self._is_proxy_secure = (self._proxy or "").lower().startswith("https:")
        self.is_tls_in_tls = origin.scheme == "https" and self._is_proxy_secure
        self._tls: ssl.SSLContext | None = None
        self._headers: dict[tuple[Secret, bool], httpx.Headers] = {}
        self._urls: dict[str, httpx.URL] = {}

    def make_transport(self, transport_class: Callable[..., T]) -> T:
        """Make a transport with one connection.

        Raises:
            ConfigurationError: what the environment says of certificates or of a proxy cannot be used.
        """
        if self._tls is None:
            self._tls = self._load_tls()
        limits = httpx.Limits(max_connections=1, max_keepalive_connections=1, keepalive_expiry=KEEP_ALIVE)
        try:
            proxy = None
            if self._proxy is not None:
                proxy = httpx.Proxy(self._proxy, ssl_context=self._tls if self._is_proxy_secure else None)
            return transport_class(verify=self._tls, trust_env=False, limits=limits, proxy=proxy)
        except (ValueError, ImportError, httpx.InvalidURL) as error:
            reason = str(error) if isinstance(error, ImportError) else "its URL cannot be read"
        # the reasons of the others show the URL, and with it perhaps a password
        raise ConfigurationError(f"the proxy that the environment names cannot be used: {reason}")

    def _load_tls(self) -> ssl.SSLContext:
        # loading the trusted certificates takes tens of milliseconds: once a client, and only for TLS
        if self.origin.scheme == "http" and not self._is_proxy_secure:
            return ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        try:
            named = os.environ.get("SSL_CERT_FILE")
            if named:
                # httpx 0.27 passes over one that is not there
                Path(named).stat()
            return httpx.create_ssl_context()
        except OSError as error:
            reason = error.strerror or type(error).__name__
        raise ConfigurationError(
            f"the certificates to trust cannot be read ({reason}): see SSL_CERT_FILE and SSL_CERT_DIR"
        )

    def request(self, request: Request) -> httpx.Request:
        """Build httpx's request from prepared parts: parsing URL and headers each time is costly."""
        key = (request.token, request.is_send)
        headers = self._headers.get(key)
        if headers is None:
            headers = httpx.Headers(make_headers(self.origin, request.token, is_send=request.is_send))
            if len(self._headers) >= _PREPARED:
                self._headers.clear()
            self._headers[key] = headers
        url = self._urls.get(request.target)
        if url is None:
            url = httpx.URL(f"{self.origin}{request.target}")
            if request.is_send:
                self._urls[request.target] = url
        built = httpx.Request(request.method, url, headers=headers, content=request.body)
        built.stream = _whole_class(httpx.ByteStream)(request.body or b"")
        return built


class _OnePiece:
    """An async iterator that nobody has to close."""

    def __init__(self, piece: bytes) -> None:
        self._pieces = [piece]

    def __aiter__(self) -> _OnePiece:
        return self

    async def __anext__(self) -> bytes:
        if not self._pieces:
            raise StopAsyncIteration
        return self._pieces.pop()


@functools.cache
def _whole_class(body_class: Any) -> Any:
    """Give a class of bodies in one piece: httpx leaves its own generator open where a write fails; trio complains."""

    def iterate(body: Any) -> _OnePiece:
        return _OnePiece(b"".join(body))

    return type("WholeBody", (body_class,), {"__aiter__": iterate})


class _TimeLeft(dict[str, float]):
    """The timeouts of a request, as the library asks for them before each of its steps: what is left then."""

    def __init__(self, attempt: Attempt) -> None:
        self._attempt = attempt
        super().__init__({step: self._left(step) for step in ("pool", "connect", "write", "read")})

    def get(self, step: str, default: Any = None) -> Any:
        return self._left(step) if step in self else default

    def _left(self, step: str) -> float:
        if step == "pool":
            return self._attempt.left_to_begin()
        return self._attempt.left_to_connect() if step == "connect" else max(0.001, self._attempt.left())


_LIBRARIES = ("httpx", "httpx2")
# the classes that hand a request to the network as it is
_TRANSPORTS = ("AsyncHTTPTransport", "HTTPTransport")


def build_request(client: Any, request: Request, attempt: Attempt, trace: Callable[..., Any]) -> Any:
    """Build the user's client's own kind of request, which tells `trace` of its steps; note if they tell nothing."""
    url = f"{request.origin}{request.target}"
    built = client.build_request(
        request.method,
        url,
        headers=make_headers(request.origin, request.token, is_send=request.is_send),
        content=request.body,
        extensions={"timeout": _TimeLeft(attempt), "trace": trace},
    )
    url_class: Any = type(built.url)
    # parameters that the client has for its own requests would take the place of ours
    built.url = url_class(url)
    body_class: Any = type(built.stream)
    built.stream = _whole_class(body_class)(request.body or b"")
    # what another transport did before it failed nobody can tell: it may have asked somebody else
    transport = client._transport_for_url(built.url)  # noqa: SLF001 (no public way)
    is_network = type(transport).__name__ in _TRANSPORTS and _is_of(type(transport), _LIBRARIES)
    attempt.hidden = not (is_network or is_instance(transport, "MockTransport"))
    # nor what a client of another class did, until a step of this very request is told
    attempt.written = attempt.hidden or not _is_of(type(client), _LIBRARIES)
    return built


def note_step(attempt: Attempt, step: str, about: dict[str, Any]) -> None:
    """Note that a request begins to be written, by whoever sends it: a hook or a subclass may do so more than once."""
    # a proxy is asked to connect by a request of its own
    if step.endswith(".send_request_headers.started") and about["request"].method != b"CONNECT":
        attempt.begun = True
    attempt.written = attempt.begun or attempt.hidden


def is_instance(value: object, name: str, libraries: tuple[str, ...] = _LIBRARIES) -> bool:
    """Say whether it is an instance of such a class of such a library, without importing any."""
    return any(parent.__name__ == name and _is_of(parent, libraries) for parent in type(value).__mro__)


def _is_of(class_: type, libraries: tuple[str, ...]) -> bool:
    return class_.__module__.partition(".")[0] in libraries
