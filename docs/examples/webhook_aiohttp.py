"""Receive texts in aiohttp's server, or in any other: ask the receiver. `pip install aiohttp`."""

import os
from collections.abc import AsyncIterator

from aiohttp import web

from cloudware_async import Message
from cloudware_async.webhooks import Receiver, SQLiteStore, response_headers


async def handle(sms: Message) -> None:
    """Called once for each text."""
    print(sms.from_, sms.message, flush=True)


receiver = Receiver(handle, secret=os.environ["WEBHOOK_SECRET"], store=SQLiteStore("webhooks.db"))


async def receive(request: web.Request) -> web.Response:
    """Hand over the request, and hand back the status."""
    status = await receiver.receive(request.method, request.path, request.headers, request.content.iter_any())
    return web.Response(status=status, headers=response_headers(status))


async def run(_: web.Application) -> AsyncIterator[None]:
    """Start and end the receiver with the server."""
    async with receiver:
        yield


app = web.Application()
app.router.add_route("*", "/webhooks/{rest:.*}", receive)
app.cleanup_ctx.append(run)

if __name__ == "__main__":
    web.run_app(app, host="127.0.0.1", port=int(os.environ.get("PORT", "8000")))
