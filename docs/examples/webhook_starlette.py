"""Receive texts beneath Starlette or FastAPI, with a store that keeps them: `pip install starlette uvicorn`."""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import uvicorn
from starlette.applications import Starlette
from starlette.routing import Mount

from cloudware_async import Message
from cloudware_async.webhooks import Receiver, SQLiteStore
from cloudware_async.webhooks.asgi import WebhookApp


async def handle(sms: Message) -> None:
    """Called once for each text."""
    print(sms.from_, sms.message, flush=True)


receiver = Receiver(handle, secret=os.environ["WEBHOOK_SECRET"], store=SQLiteStore("webhooks.db"))


@asynccontextmanager
async def lifespan(_: Starlette) -> AsyncIterator[None]:
    """A framework does not tell what is mounted when it starts and ends, so we do."""
    async with receiver:
        yield


app = Starlette(routes=[Mount("/webhooks", WebhookApp(receiver))], lifespan=lifespan)

if __name__ == "__main__":
    uvicorn.run(app, host="127.0.0.1", port=int(os.environ.get("PORT", "8000")))
