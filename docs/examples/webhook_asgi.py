"""Receive texts with nothing but uvicorn: `pip install uvicorn`."""

import os

import uvicorn

from cloudware_async import Message
from cloudware_async.webhooks import Receiver, SQLiteStore
from cloudware_async.webhooks.asgi import WebhookApp


async def handle(sms: Message) -> None:
    """Called once for each text."""
    print(sms.from_, sms.message, flush=True)


receiver = Receiver(handle, secret=os.environ["WEBHOOK_SECRET"], store=SQLiteStore("webhooks.db"))
app = WebhookApp(receiver)

if __name__ == "__main__":
    uvicorn.run(app, host="127.0.0.1", port=int(os.environ.get("PORT", "8000")))
