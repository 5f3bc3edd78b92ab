"""Receive texts in a FastAPI endpoint: `pip install 'cloudware-async[fastapi]' uvicorn`."""

import os
from typing import Annotated

import uvicorn
from fastapi import Depends, FastAPI

from cloudware_async import Message
from cloudware_async.webhooks.fastapi import Webhook

app = FastAPI()
webhook = Webhook(secret=os.environ["WEBHOOK_SECRET"])


# every method and path under a prefix, so that whoever lacks the secret is told nothing else
@app.api_route("/webhooks/{rest:path}", methods=["GET", "HEAD", "OPTIONS", "POST", "PUT", "PATCH", "DELETE"])
async def receive(sms: Annotated[Message, Depends(webhook, scope="function")]) -> None:
    """Called once for each text."""
    print(sms.from_, sms.message, flush=True)


if __name__ == "__main__":
    uvicorn.run(app, host="127.0.0.1", port=int(os.environ.get("PORT", "8000")))
