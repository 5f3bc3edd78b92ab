"""A receiver as a WSGI application: alone under a server, or beneath Flask and the like.

Rule 1: the receiver decides; here a request is handed to it and its status handed back, with an empty body.
Rule 2: the body is read as far as the server says that there is one: up to its content length, or to its end where
        the server marks that.
"""

from __future__ import annotations

from http import HTTPStatus
from typing import TYPE_CHECKING, Any, final

from cloudware_async.webhooks._gate import response_headers

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from wsgiref.types import StartResponse, WSGIEnvironment

    from cloudware_async.webhooks._receiver import Receiver

# bytes; some servers wait until they have as many as were asked for
_CHUNK = 4 * 1024


@final
class WebhookApp:
    """A WSGI application that takes webhooks, under whatever path it is reached.

    Args:
        receiver: what decides and calls the handler.
    """

    def __init__(self, receiver: Receiver) -> None:
        self._receiver = receiver

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Answer one request."""
        status = self._receiver.receive_blocking(
            environ["REQUEST_METHOD"], environ.get("PATH_INFO", ""), read_headers(environ), read_chunks(environ)
        )
        headers = [*response_headers(status).items(), ("Content-Length", "0")]
        start_response(f"{status} {HTTPStatus(status).phrase}", headers)
        return []


def read_headers(environ: WSGIEnvironment) -> list[tuple[str, str]]:
    """Give a request's headers."""
    headers = [
        (name.removeprefix("HTTP_").replace("_", "-"), value)
        for name, value in environ.items()
        if name.startswith("HTTP_")
    ]
    named = {"Content-Type": environ.get("CONTENT_TYPE"), "Content-Length": environ.get("CONTENT_LENGTH")}
    return headers + [(name, value) for name, value in named.items() if value]


def read_chunks(environ: WSGIEnvironment) -> Iterator[bytes]:
    """Give a request's body chunk by chunk (rule 2)."""
    stream: Any = environ["wsgi.input"]
    length = environ.get("CONTENT_LENGTH") or "0"
    has_end = environ.get("wsgi.input_terminated", False)
    # a server that marks no end would wait for more than there is
    left = _CHUNK if has_end else int(length)
    while left > 0:
        chunk: bytes = stream.read(min(left, _CHUNK))
        if not chunk:
            return
        yield chunk
        if not has_end:
            left -= len(chunk)
