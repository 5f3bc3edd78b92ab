"""A receiver as an ASGI application: alone under a server, or mounted in Starlette, FastAPI and the like.

Rule 1: the receiver decides; here a request is handed to it and its status handed back, with an empty body.
Rule 2: chunks are asked for one by one, so that the receiver can stop at its cap.
Rule 3: alone, its lifespan is the receiver's. A framework does not pass its own on to what is mounted: enter
        `async with receiver:` in the framework's lifespan.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from typing import TYPE_CHECKING, Any, final

from cloudware_async.webhooks._gate import response_headers

if TYPE_CHECKING:
    from typing import Self

    from cloudware_async.webhooks._receiver import Receiver

Event = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Event]]
Send = Callable[[Event], Awaitable[None]]


@final
class WebhookApp:
    """An ASGI application that takes webhooks, under whatever path it is reached.

    Args:
        receiver: what decides and calls the handler.
    """

    def __init__(self, receiver: Receiver) -> None:
        self._receiver = receiver

    async def __call__(self, scope: Event, receive: Receive, send: Send) -> None:
        """Answer one request, or live through one lifespan."""
        if scope["type"] == "http":
            await self._answer(scope, receive, send)
        elif scope["type"] == "lifespan":
            await self._live(receive, send)
        elif scope["type"] == "websocket":
            await receive()
            await send({"type": "websocket.close"})
        else:
            raise NotImplementedError(f"webhooks do not come as {scope['type']}")

    async def _answer(self, scope: Event, receive: Receive, send: Send) -> None:
        try:
            status = await self._receiver.receive(scope["method"], scope["path"], scope["headers"], _Chunks(receive))
        except _Gone:
            return  # nobody is there to be answered
        headers = [(name.lower().encode(), value.encode()) for name, value in response_headers(status).items()]
        headers.append((b"content-length", b"0"))
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": b""})

    async def _live(self, receive: Receive, send: Send) -> None:
        await receive()
        async with self._receiver:
            await send({"type": "lifespan.startup.complete"})
            await receive()
        await send({"type": "lifespan.shutdown.complete"})


class _Gone(BaseException):
    """The other side went away before its request was whole."""


class _Chunks:
    """The body of a request, chunk by chunk."""

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self._is_over = False

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        if self._is_over:
            raise StopAsyncIteration
        event = await self._receive()
        if event["type"] == "http.disconnect":
            raise _Gone
        self._is_over = not event.get("more_body", False)
        chunk: bytes = event.get("body", b"")
        return chunk
