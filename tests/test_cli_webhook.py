"""The commands about webhooks, through their front door; `command.py` runs them."""

from __future__ import annotations

import contextlib
import errno
import http.client
import json
import os
import re
import signal
import socket
import subprocess
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from command import DONE, FAILED, MISUSED, PATIENCE, Ended, finish, needs_posix, read_exports, run, start
from webhook_cases import GONE, NEW, OLD, encode, message

from cloudware_async.sandbox import Sandbox
from cloudware_async.webhooks import Receiver, webhook_url

pytestmark = needs_posix


class Destination:
    """A server of the user's own, which keeps what is posted to it and answers with what it is told."""

    def __init__(self) -> None:
        self.bodies: list[bytes] = []
        self.answers: list[int] = []
        destination = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                destination.bodies.append(self.rfile.read(int(self.headers["Content-Length"])))
                self.send_response(destination.answers.pop(0) if destination.answers else 200)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: object) -> None:
                """Say nothing."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/{GONE}"


@pytest.fixture
def destination() -> Iterator[Destination]:
    destination = Destination()
    thread = threading.Thread(target=destination.server.serve_forever, args=(0.01,))
    thread.start()
    yield destination
    destination.server.shutdown()
    thread.join()
    destination.server.server_close()


class Listening:
    """A `cloudware webhook listen` that has started."""

    def __init__(self, process: subprocess.Popen[str], url: str) -> None:
        self.process = process
        self.url = url

    def post(self, body: bytes, url: str | None = None) -> int:
        """Post as the service does; give the status."""
        target = urlsplit(url or self.url)
        with contextlib.closing(http.client.HTTPConnection(target.netloc, timeout=PATIENCE)) as connection:
            connection.request("POST", target.path, body, {"Content-Type": "application/json"})
            return connection.getresponse().status

    def end(self) -> Ended:
        """Press Ctrl-C."""
        self.process.send_signal(signal.SIGINT)
        return finish(self.process)


@contextlib.contextmanager
def listening(*options: str, stdout: int = subprocess.PIPE, **settings: str) -> Iterator[Listening]:
    process = start("webhook", "listen", *options, stdout=stdout, **settings)
    try:
        stream = "stderr" if "--json" in options else "stdout"
        yield Listening(process, read_exports(process, 1, stream)["CLOUDWARE_WEBHOOK_URL"])
    finally:
        process.kill()
        # what is left in the pipes
        process.communicate()


def lines(*names: str) -> str:
    return "".join(f"{encode(message(name)).decode()}\n" for name in names)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "texts.jsonl"
    path.write_text(lines("one", "two", "three"))
    return path


# ---------------------------------------------------------------- listen


def test_listen():
    """A text is printed as it comes, its repeat is not, and Ctrl-C ends it quietly with status 0."""
    with listening() as running:
        assert 200 == running.post(encode(message("one", message="Ẹ ṣé\x1b[31m")))
        shown = [running.process.stdout.readline() for _ in range(3)]
        assert 200 == running.post(encode(message("one", message="Ẹ ṣé\x1b[31m")))
        ended = running.end()
    assert ["\n", "received  2020-01-01 00:00:00Z  from 1234567890 to 0987654321  id of one\n"] == shown[:2]
    assert "  Ẹ ṣé\\x1b[31m\n" == shown[2]
    assert Ended(DONE, "", "") == ended


def test_listen_to_a_sandbox():
    """What a sandbox delivers is printed, word for word."""
    with listening("--json") as running, Sandbox(webhook_url=running.url, webhook_repeat=True) as sandbox:
        sms = sandbox.receive(from_="2348012345678", message="Grüße\n👩🏿‍🚀")
        printed = json.loads(running.process.stdout.readline())
        ended = running.end()
    assert (sms.message_id, sms.message) == (printed["message_id"], printed["message"])
    assert (DONE, "") == (ended.status, ended.output)


def test_listen_refuses():
    """Who lacks the secret gets 401, what is no message 400 and a line on stderr; nothing is printed."""
    with listening() as running:
        assert 401 == running.post(encode(message("one")), f"{running.url.rpartition('/')[0]}/{OLD}")
        assert 400 == running.post(b"{")
        ended = running.end()
    assert (DONE, "") == (ended.status, ended.output.strip())
    assert (
        "a webhook was refused with 400: The webhook's body is not one readable message: it is not JSON." == ended.line
    )


def test_listen_with_secrets_of_ones_own():
    """The environment's secrets are taken, two while one replaces the other, and the URL has the new one."""
    with listening(CLOUDWARE_WEBHOOK_SECRET=f"{NEW}, {OLD}") as running:
        base, _, secret = running.url.rpartition("/")
        assert NEW == secret
        assert [200, 200, 401] == [
            running.post(encode(message(name)), f"{base}/{each}")
            for name, each in (("one", NEW), ("two", OLD), ("three", GONE))
        ]
        assert DONE == running.end().status


@pytest.mark.parametrize("secret", ["short", f"{NEW},{OLD},{GONE}", f"{NEW},", "with a space and many letters"])
def test_listen_with_a_poor_secret(secret):
    """A secret that is too weak or no secret is one line that does not hold it, and status 2."""
    ended = run("webhook", "listen", CLOUDWARE_WEBHOOK_SECRET=secret)
    assert (MISUSED, "") == (ended.status, ended.output)
    assert ended.line.startswith("CLOUDWARE_WEBHOOK_SECRET: ")
    assert secret not in ended.line


def test_listen_on_a_port_in_use():
    """A port that is taken is one line and status 1."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        ended = run("webhook", "listen", "--port", str(port))
    assert (FAILED, f"cannot listen on port {port}: {os.strerror(errno.EADDRINUSE)}") == (ended.status, ended.line)


def test_forward(destination):
    """A text is posted on to the letter, and printed when it was taken there."""
    body = b'{"type": "message_received", "from": "1", "to": "2",  "message": "\\u00e9", "more": [1.0]}'
    with listening("--forward-to", destination.url) as running:
        assert 200 == running.post(body)
        ended = running.end()
    assert [body] == destination.bodies
    assert ended.output.endswith("received  no time  from 1 to 2\n  é\n")


def test_forward_fails(destination):
    """A text that is not taken there is answered with 500 and not printed, and is forwarded when it is posted again."""
    destination.answers = [503]
    with listening("--json", "--forward-to", destination.url) as running:
        assert [500, 200, 200] == [running.post(encode(message("one"))) for _ in range(3)]
        ended = running.end()
    assert (DONE, lines("one")) == (ended.status, ended.output)
    assert 2 == len(destination.bodies)
    assert (
        "message id of one was not taken by 127.0.0.1: 503. It was answered with 500, to be posted again"
        in ended.errors
    )
    assert GONE not in ended.errors


def test_forward_to_nobody():
    """Where nobody listens the line names the host and not the secret, and the text is not lost without a word."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with listening("--forward-to", f"http://127.0.0.1:{port}/{GONE}") as running:
        assert 500 == running.post(encode(message("one")))
        ended = running.end()
    assert "message id of one was not taken by 127.0.0.1: no connection." in ended.line
    assert GONE not in ended.errors


def test_listen_into_a_closed_pipe():
    """When nobody reads what it prints it ends, and the text was not taken."""
    reading, writing = os.pipe()
    with listening("--json", stdout=writing) as running:
        os.close(writing)
        os.close(reading)
        assert 500 == running.post(encode(message("one")))
        assert FAILED == running.process.wait(PATIENCE)


# ---------------------------------------------------------------- url


def test_url():
    """Each URL is the base and a secret that a receiver takes, and no two are the same."""
    first, second = (run("webhook", "url", "https://hooks.example.com/webhooks/") for _ in range(2))
    assert (DONE, "") == (first.status, first.errors)
    base, _, secret = first.output.rstrip("\n").rpartition("/")
    assert "https://hooks.example.com/webhooks" == base
    assert Receiver(print, secret=secret)
    assert webhook_url(base, secret) == first.output.rstrip("\n")
    assert first.output != second.output


@pytest.mark.parametrize("base", ["hooks.example.com", "https://you@example.com", "https://example.com/?a", ""])
def test_url_of_a_wrong_base(base):
    """What is no base for a URL is one line and status 2."""
    ended = run("webhook", "url", base)
    assert (MISUSED, "") == (ended.status, ended.output)
    assert ended.line.startswith("base must be like 'https://example.com/webhooks'")


# ---------------------------------------------------------------- replay


@pytest.mark.parametrize("given", ["option", "environment"])
def test_replay(destination, file, given):
    """Every line is posted as it stands, in order, and how each was answered is printed."""
    if given == "option":
        ended = run("webhook", "replay", str(file), "--to", destination.url)
    else:
        ended = run("webhook", "replay", str(file), CLOUDWARE_WEBHOOK_URL=destination.url)
    assert Ended(DONE, "line 1: 200\nline 2: 200\nline 3: 200\n", "") == ended
    assert file.read_bytes().splitlines() == destination.bodies


def test_replay_what_listen_printed(tmp_path):
    """What `listen --json` wrote is what `replay` reads: the texts come out of another listener the same."""
    file = tmp_path / "texts.jsonl"
    with file.open("wb") as output, listening("--json", stdout=output.fileno()) as running:
        for name in ("one", "two"):
            body = encode(message(name, message=f'{name} 👩🏿‍🚀\n\ud800 "Infinity', carrier={"MTN": 1, "cost": 8888}))
            assert 200 == running.post(body.replace(b"8888", b"-1e999"))
        assert DONE == running.end().status
    with listening("--json") as running:
        assert DONE == run("webhook", "replay", str(file), "--to", running.url).status
        assert file.read_text() == running.end().output
    # and JSON (RFC 8259), of which Python writes more
    assert ["-1e999"] * 2 == re.findall(r'"cost": ([^}]*)', file.read_text())


def test_replay_is_not_all_taken(destination, file):
    """A text that is not taken does not hold up the others; the status is 1, and a line counts."""
    destination.answers = [200, 500, 200]
    ended = run("webhook", "replay", str(file), "--to", destination.url)
    assert (FAILED, "line 1: 200\nline 2: 500\nline 3: 200\n") == (ended.status, ended.output)
    assert "1 of 3 texts were not taken by 127.0.0.1" == ended.line


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (lines("one") + "{}\n", "line 2 of FILE: The webhook's body is not one readable message: type is missing."),
        (
            "\n" + lines("one") + "no JSON",
            "line 3 of FILE: The webhook's body is not one readable message: it is not JSON.",
        ),
        ("", "FILE is empty"),
        ("\n \n", "FILE is empty"),
        (None, f"FILE cannot be read: {os.strerror(errno.ENOENT)}"),
    ],
    ids=["no message", "no JSON", "empty", "blank", "missing"],
)
def test_replay_of_a_bad_file(destination, tmp_path, content, told):
    """Unless every line is a message nothing is posted, and a line says which is none."""
    file = tmp_path / "texts.jsonl"
    if content is not None:
        file.write_text(content)
    ended = run("webhook", "replay", str(file), "--to", destination.url)
    assert (MISUSED, "") == (ended.status, ended.output)
    assert ended.line.startswith(told)
    assert [] == destination.bodies


def test_replay_to_nowhere(file):
    """Without a URL to post to there is one line and status 2."""
    ended = run("webhook", "replay", str(file))
    assert (MISUSED, "no URL to post to: give --to, or set CLOUDWARE_WEBHOOK_URL") == (ended.status, ended.line)


@pytest.mark.parametrize(
    "url", ["localhost:1/secret", "ftp://127.0.0.1/secret", "http:///secret", "http://127.0.0.1:port/secret"]
)
@pytest.mark.parametrize("command", [("replay", "FILE", "--to"), ("listen", "--forward-to")], ids=["replay", "listen"])
def test_a_destination_that_is_none(file, url, command):
    """What is no URL to post to is one line that names the option and not the secret, and status 2."""
    ended = run("webhook", *(str(file) if word == "FILE" else word for word in command), url)
    assert (MISUSED, "") == (ended.status, ended.output)
    assert ended.line == f"{command[-1]} must be like 'http://127.0.0.1:8000/webhook'"


# ---------------------------------------------------------------- help


@pytest.mark.parametrize("command", [(), ("listen",), ("url",), ("replay",)])
def test_help(command):
    """Every command has help, and it shows no secret of the environment."""
    ended = run("webhook", *command, "--help", CLOUDWARE_WEBHOOK_SECRET=NEW)
    assert (DONE, "") == (ended.status, ended.errors)
    assert re.search(r"\bUsage: cloudware webhook\b", ended.output)
    assert NEW not in ended.output
