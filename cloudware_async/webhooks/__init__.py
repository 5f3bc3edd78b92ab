"""Texts that the service posts to a URL of yours, received safely though the service signs nothing.

A `Receiver` turns a request into a status and, once a message, a call of your handler:

    receiver = Receiver(handle, secret=SECRET, store=SQLiteStore("texts.db"))
    status = await receiver.receive(method, path, headers, body)

Servers and frameworks ask it through a module each, to be imported by itself: `webhooks.asgi`, `webhooks.fastapi`,
`webhooks.django`, `webhooks.wsgi`.
"""

from cloudware_async._errors import WebhookAuthenticationError, WebhookError, WebhookPayloadError
from cloudware_async._models import Message
from cloudware_async.webhooks._gate import new_secret, response_headers, webhook_url
from cloudware_async.webhooks._payload import parse
from cloudware_async.webhooks._postgresql import PostgreSQLStore
from cloudware_async.webhooks._receiver import Receiver
from cloudware_async.webhooks._sqlite import SQLiteStore
from cloudware_async.webhooks._store import DurableStore, MemoryStore, Recorded, Standing, Store

__all__ = [
    "DurableStore",
    "MemoryStore",
    "Message",
    "PostgreSQLStore",
    "Receiver",
    "Recorded",
    "SQLiteStore",
    "Standing",
    "Store",
    "WebhookAuthenticationError",
    "WebhookError",
    "WebhookPayloadError",
    "new_secret",
    "parse",
    "response_headers",
    "webhook_url",
]
