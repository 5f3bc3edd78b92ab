"""A receiver as Django views: `WebhookView`, and `AsyncWebhookView` for ASGI.

Rule 1: the receiver decides; here a request is handed to it and its status handed back, with an empty body.
Rule 2: CSRF tokens are for browsers; the secret takes their place.
Rule 3: Django logs the path of what it refuses, and the path may hold the secret. So these answers pass its log by.
Rule 4: Django has no lifespan: what a durable store has recorded is handled in a thread, from `receiver.start()` on,
        and at the latest from the first request on.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

try:
    from django.http import HttpResponse  # type: ignore[import-untyped]  # pyright: ignore[reportMissingTypeStubs]
    from django.views import View  # type: ignore[import-untyped]  # pyright: ignore[reportMissingTypeStubs]
except ImportError as error:
    raise ImportError(
        "cloudware_async.webhooks.django needs Django: pip install 'cloudware-async[django]'", name=error.name
    ) from error

from cloudware_async._errors import ConfigurationError
from cloudware_async.webhooks._gate import response_headers
from cloudware_async.webhooks.wsgi import read_chunks

if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Self

    from cloudware_async.webhooks._receiver import Receiver

_CHUNK = 64 * 1024


class WebhookView(View):  # type: ignore[misc]
    """A view that takes webhooks: `re_path("^webhooks/", WebhookView.as_view(receiver=receiver))`.

    Give it every path under a prefix, as here: one with a wrong secret is then answered with 401 and not with 404.

    Attributes:
        receiver: what decides and calls the handler.
    """

    receiver: Receiver | None = None

    def dispatch(self, request: Any, *_: Any, **__: Any) -> HttpResponse:
        """Answer one request, whatever its method."""
        receiver = _check(self.receiver)
        return _answer(receiver.receive_blocking(request.method, request.path, request.headers, _read(request)))

    vars(dispatch)["csrf_exempt"] = True


class AsyncWebhookView(View):  # type: ignore[misc]
    """What `WebhookView` is, for ASGI: it does not block the event loop.

    Attributes:
        receiver: what decides and calls the handler.
    """

    receiver: Receiver | None = None
    # what Django asks before it looks at `dispatch`
    view_is_async: Any = True

    async def dispatch(self, request: Any, *_: Any, **__: Any) -> HttpResponse:
        """Answer one request, whatever its method."""
        receiver = _check(self.receiver)
        # a thread outlives this event loop, which under WSGI is the request's own
        receiver.start()
        body = _read(request)
        chunks = body if isinstance(body, bytes) else _Chunks(body)
        return _answer(await receiver.receive(request.method, request.path, request.headers, chunks))

    vars(dispatch)["csrf_exempt"] = True


def _check(receiver: Receiver | None) -> Receiver:
    if receiver is None:
        raise ConfigurationError("the view needs a receiver: as_view(receiver=…)")
    return receiver


def _read(request: Any) -> bytes | Iterable[bytes]:
    """Give a request's body, by chunks unless a middleware has read it already."""
    if "_body" in vars(request):
        return bytes(request.body)
    # Django takes a body without a content length for empty, where the server may have one
    environ = getattr(request, "environ", None)
    return iter(lambda: request.read(_CHUNK), b"") if environ is None else read_chunks(environ)


class _Chunks:
    """Chunks that are there already, for `receive`."""

    def __init__(self, chunks: Iterable[bytes]) -> None:
        self._chunks = iter(chunks)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        for chunk in self._chunks:
            return chunk
        raise StopAsyncIteration


def _answer(status: int) -> HttpResponse:
    response = HttpResponse(status=status, headers=response_headers(status))
    # Django's answers have a content type; there is no content
    del response["Content-Type"]
    # Django's own mark (rule 3)
    vars(response)["_has_been_logged"] = True
    return response
