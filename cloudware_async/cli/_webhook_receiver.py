"""A receiver for one webhook: a real HTTP server on loopback, for the demo.

Rule 1: it serves in the thread that waits for the delivery; until then the connection waits in the system's queue.
"""

import http.server
import json
from functools import partial
from typing import Any

from cloudware_async import Message
from cloudware_async._wire import read_message

# seconds
_PATIENCE = 10


class WebhookReceiver(http.server.HTTPServer):
    """Takes what is posted to its `url`. Enter it with `with`."""

    timeout: float | None = _PATIENCE

    def __init__(self) -> None:
        self.bodies: list[bytes] = []
        super().__init__(("127.0.0.1", 0), partial(_Handler, self.bodies))

    @property
    def url(self) -> str:
        """Where to post."""
        return f"http://127.0.0.1:{self.server_port}/"

    def wait(self) -> list[Message]:
        """Wait for a delivery and give its message; none if it did not come in time.

        Raises:
            Malformed: what came is no message.
        """
        self.handle_request()
        return [read_message(json.loads(body)) for body in self.bodies]


class _Handler(http.server.BaseHTTPRequestHandler):
    timeout = _PATIENCE

    def __init__(self, bodies: list[bytes], *connection: Any) -> None:
        self._bodies = bodies
        super().__init__(*connection)

    def do_POST(self) -> None:
        self._bodies.append(self.rfile.read(int(self.headers["Content-Length"])))
        self.send_response(204)
        self.end_headers()

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 (the library's name)
        """Say nothing: the demo draws its own picture."""
