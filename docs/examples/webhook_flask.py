"""Receive texts beneath Flask: `pip install flask`."""

import os

from flask import Flask
from werkzeug.middleware.dispatcher import DispatcherMiddleware

from cloudware_async import Message
from cloudware_async.webhooks import Receiver, SQLiteStore
from cloudware_async.webhooks.wsgi import WebhookApp


def handle(sms: Message) -> None:
    """Called once for each text."""
    print(sms.from_, sms.message, flush=True)


receiver = Receiver(handle, secret=os.environ["WEBHOOK_SECRET"], store=SQLiteStore("webhooks.db"))
app = Flask(__name__)
app.wsgi_app = DispatcherMiddleware(app.wsgi_app, {"/webhooks": WebhookApp(receiver)})

if __name__ == "__main__":
    receiver.start()
    app.run(host="127.0.0.1", port=int(os.environ.get("PORT", "8000")))
