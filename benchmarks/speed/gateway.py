"""A gateway on loopback that answers at once and with little work, so that it is not what is measured.

    python benchmarks/speed/gateway.py     prints its port, and runs until its standard input ends

Rule 1. A send is answered with bytes made beforehand, in the shape that the client of that path expects.
Rule 2. A listing is described by its own first filter: `device_id=PAGES.SIZE.MILLISECONDS` is that many pages of so
        many messages, each answered so long after it was asked for. Its pages are made as they are asked for.
Rule 3. It counts what it did: `GET /stats` tells the connections accepted, the requests answered, and its CPU seconds.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from typing import Any

from cores import GATEWAY, pin
from messages import make_page

HOST = "127.0.0.1"
TWILIO_ACCOUNT = "AC" + "0" * 32
PLIVO_ACCOUNT = "MA" + "0" * 18
NUMBER = "+2348012345678"
WHEN = "2024-01-01T00:00:00Z"

CLOUDWARE = {
    "data": {"id": "1", "name": "Example", "description": "A text", "created_at": WHEN, "updated_at": WHEN},
    "status": "success",
}
TWILIO: dict[str, Any] = {
    "account_sid": TWILIO_ACCOUNT,
    "api_version": "2010-04-01",
    "body": "Hello",
    "date_created": "Mon, 01 Jan 2024 00:00:00 +0000",
    "date_sent": None,
    "date_updated": "Mon, 01 Jan 2024 00:00:00 +0000",
    "direction": "outbound-api",
    "error_code": None,
    "error_message": None,
    "from": NUMBER,
    "messaging_service_sid": None,
    "num_media": "0",
    "num_segments": "1",
    "price": None,
    "price_unit": "USD",
    "sid": "SM" + "0" * 32,
    "status": "queued",
    "subresource_uris": {"media": "/Media.json"},
    "to": NUMBER,
    "uri": "/Messages.json",
}
TELNYX = {
    "data": {
        "direction": "outbound",
        "from": {"carrier": "A", "line_type": "Wireless", "phone_number": NUMBER},
        "id": "40385f64-5717-4562-b3fc-2c963f66afa6",
        "messaging_profile_id": "4000eba1-a0c0-4563-9925-b25e842a7cb6",
        "organization_id": "b448f9cc-a842-4784-98e9-03c1a5872950",
        "parts": 1,
        "received_at": WHEN,
        "record_type": "message",
        "text": "Hello",
        "to": [{"carrier": "A", "line_type": "Wireless", "phone_number": NUMBER, "status": "queued"}],
        "type": "SMS",
        "valid_until": WHEN,
    }
}
VONAGE_MESSAGE = {
    "to": NUMBER[1:],
    "message-id": "0A0000000123ABCD1",
    "status": "0",
    "remaining-balance": "3.14",
    "message-price": "0.03",
    "network": "62120",
}
VONAGE = {"message-count": "1", "messages": [VONAGE_MESSAGE]}
PLIVO = {
    "message": "message(s) queued",
    "message_uuid": ["db3ce55a-7f1d-11e1-8ea7-1231380bc196"],
    "api_id": "db342550-7f1d-11e1-8ea7-1231380bc196",
}
ANDROID = {
    "id": "1",
    "deviceId": "1",
    "state": "Pending",
    "isHashed": False,
    "isEncrypted": False,
    "recipients": [{"phoneNumber": NUMBER, "state": "Pending", "error": None}],
    "states": {},
}


def make_answer(body: bytes, status: str = "200 OK") -> bytes:
    """Write a whole answer."""
    head = f"HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


SENDS = {
    path.encode(): make_answer(json.dumps(answer, separators=(",", ":")).encode(), status)
    for path, answer, status in (
        ("/v1/sms/send", CLOUDWARE, "200 OK"),
        (f"/2010-04-01/Accounts/{TWILIO_ACCOUNT}/Messages.json", TWILIO, "201 Created"),
        ("/messages", TELNYX, "200 OK"),
        ("/sms/json", VONAGE, "200 OK"),
        (f"/v1/Account/{PLIVO_ACCOUNT}/Message/", PLIVO, "202 Accepted"),
        ("/android/messages", ANDROID, "202 Accepted"),
    )
}
LISTING = b"/v1/sms/messages"


class Counts:
    """What the gateway did (rule 3)."""

    def __init__(self) -> None:
        self.connections = 0
        self.requests = 0

    def answer(self) -> bytes:
        """Write them as an answer."""
        counts = {"connections": self.connections, "requests": self.requests, "cpu": time.process_time()}
        return make_answer(json.dumps(counts).encode())


class Connection(asyncio.Protocol):
    """One connection; requests may come in pieces."""

    def __init__(self, counts: Counts) -> None:
        self.counts = counts
        self.received = b""
        self.transport: Any = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Count it."""
        self.transport = transport
        self.counts.connections += 1

    def data_received(self, data: bytes) -> None:
        """Answer if the request is whole."""
        self.received += data
        end = self.received.find(b"\r\n\r\n") + 4
        if end < 4 or len(self.received) < end + _body_length(self.received[:end]):
            return
        target = self.received[: self.received.index(b"\r")].split(b" ")[1]
        self.received = b""
        self.counts.requests += 1
        answer = SENDS.get(target)
        if answer is not None:
            self.transport.write(answer)
        elif target.startswith(LISTING):
            self._list(target.partition(b"=")[2].decode())
        elif target == b"/stats":
            self.transport.write(self.counts.answer())
        else:
            self.transport.write(make_answer(b"{}", "404 Not Found"))

    def _list(self, token: str) -> None:
        """Answer with a page (rule 2); what follows the first page is `token=PAGES.SIZE.MILLISECONDS.PAGE`."""
        loop = asyncio.get_running_loop()
        asked = loop.time()
        pages, size, milliseconds, page = map(int, [*token.split("."), "0"][:4])
        port = self.transport.get_extra_info("sockname")[1]
        follows = f"http://{HOST}:{port}{LISTING.decode()}?token={pages}.{size}.{milliseconds}.{page + 1}"
        answer = make_answer(make_page(page * size, size, follows if page + 1 < pages else ""))
        if milliseconds:
            loop.call_at(asked + milliseconds / 1000, self.transport.write, answer)
        else:
            self.transport.write(answer)


def _body_length(head: bytes) -> int:
    found = head.lower().find(b"content-length:")
    return int(head[found + 15 : head.index(b"\r", found)]) if found >= 0 else 0


async def main() -> None:
    """Serve until standard input ends."""
    pin(GATEWAY)
    counts = Counts()
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Connection(counts), HOST, 0, backlog=1000)
    print(server.sockets[0].getsockname()[1], flush=True)
    ended = asyncio.Event()
    loop.add_reader(sys.stdin.fileno(), ended.set)
    await ended.wait()


if __name__ == "__main__":
    asyncio.run(main())
