"""The examples of the documentation: each is run as it stands, and receives a text over a real socket."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import queue
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import pytest

from cloudware_async.webhooks import new_secret

DOCS = Path(__file__).parents[1] / "docs"
EXAMPLES = sorted((DOCS / "examples").glob("*.py"))
PATIENCE = 30.0
SECRET = new_secret()


@contextlib.contextmanager
def reserved_port() -> Iterator[int]:
    """A port that nobody else is given: it is bound, and the server may bind it once more, for nobody listens there."""
    with socket.socket() as holder:
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        holder.bind(("127.0.0.1", 0))
        port = holder.getsockname()[1]
        if sys.platform != "linux":
            # elsewhere only one may bind it
            holder.close()
        yield port


class Running:
    """An example that was started: its process, its port, and what it writes."""

    def __init__(self, process: subprocess.Popen[str], port: int) -> None:
        assert process.stdout
        self.port = port
        self.lines: list[str] = []
        self._process = process
        self._queue: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self._reader = threading.Thread(target=self._read, args=(process.stdout,))
        self._reader.start()

    def _read(self, stdout: IO[str]) -> None:
        for line in stdout:
            self._queue.put(line.rstrip("\n"))
        self._queue.put(None)

    def wait_until_it_accepts(self) -> None:
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            with contextlib.suppress(ConnectionRefusedError):
                socket.create_connection(("127.0.0.1", self.port), timeout=PATIENCE).close()
                return
            with contextlib.suppress(subprocess.TimeoutExpired):
                pytest.fail(f"it ended with {self._process.wait(0.02)}")
        pytest.fail("it does not listen")

    def wait_for_line(self, wanted: str) -> None:
        deadline = time.monotonic() + PATIENCE
        while wanted not in self.lines:
            line = self._queue.get(timeout=max(0, deadline - time.monotonic()))
            assert line is not None, self.lines
            self.lines.append(line)

    def end(self) -> None:
        """End the process, and read what is left of what it wrote."""
        self._process.terminate()
        try:
            self._process.wait(PATIENCE)
        finally:
            self._process.kill()
            self._process.wait()
            self._reader.join()
        self.lines.extend(iter(self._queue.get, None))

    def post(self, text: str, secret: str = SECRET) -> int:
        message = {"type": "message_received", "from": "2348012345678", "to": "1234", "message": text}
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE)
        with contextlib.closing(connection):
            body = json.dumps({**message, "message_id": f"id of {text}"})
            connection.request("POST", f"/webhooks/{secret}", body, {"Content-Type": "application/json"})
            return connection.getresponse().status


@contextlib.contextmanager
def run(example: Path, folder: Path) -> Iterator[Running]:
    """Run an example in a folder, where its standard error goes to a file, until the block ends."""
    with reserved_port() as port, (folder / "stderr").open("w") as stderr:
        environment = {**os.environ, "WEBHOOK_SECRET": SECRET, "PORT": str(port)}
        with subprocess.Popen(
            [sys.executable, example], cwd=folder, env=environment, text=True, stdout=subprocess.PIPE, stderr=stderr
        ) as process:
            running = Running(process, port)
            try:
                running.wait_until_it_accepts()
                yield running
            finally:
                running.end()


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: example.stem)
def test_example(example: Path, tmp_path: Path) -> None:
    """An example hands a text to its handler once, refuses who lacks the secret, and writes the secret nowhere."""
    with run(example, tmp_path) as running:
        assert 200 == running.post("Hello")
        running.wait_for_line("2348012345678 Hello")
        assert 200 == running.post("Hello")
        assert 401 == running.post("Forged", new_secret())
        # what is handled in the background is handled in order, so that a repeat would have been before this one
        assert 200 == running.post("Bye")
        running.wait_for_line("2348012345678 Bye")
    texts = [line for line in running.lines if line.startswith("2348012345678 ")]
    assert ["2348012345678 Hello", "2348012345678 Bye"] == texts
    assert SECRET not in (tmp_path / "stderr").read_text() + "\n".join(running.lines)


def test_every_example_is_shown() -> None:
    """No example lies about that no page of the documentation includes."""
    pages = "".join(page.read_text(encoding="utf-8") for page in DOCS.glob("*.md"))
    assert EXAMPLES
    assert [] == [path.name for path in EXAMPLES if f"{{literalinclude}} examples/{path.name}" not in pages]
