"""The sandbox speaks the documented API over real sockets, loses nothing, and leaves nothing behind."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import http.server
import json
import os
import queue
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self

import anyio
import httpx
import pytest
import requests

from cloudware_async._errors import ConfigurationError
from cloudware_async._models import Message
from cloudware_async.sandbox import Sandbox, _webhook, create_app

# seconds; a test that waits this long has failed
PATIENCE = 20

BODY = {"to": "2348012345678", "message": "Hello"}


@pytest.fixture
def sandbox() -> Iterator[Sandbox]:
    with Sandbox() as sandbox:
        yield sandbox


@pytest.fixture
def session(sandbox: Sandbox) -> Iterator[requests.Session]:
    with open_session(sandbox) as session:
        yield session


def open_session(sandbox: Sandbox) -> requests.Session:
    session = requests.Session()
    session.trust_env = False
    session.headers["Authorization"] = f"Bearer {sandbox.access_token}"
    return session


def walk(session: requests.Session, url: str, **params: str) -> Iterator[dict[str, Any]]:
    """Follow `next_page` as anybody would, and give every page."""
    page = session.get(url, params=params, timeout=PATIENCE).json()
    yield page
    while page["next_page"]:
        page = session.get(page["next_page"], timeout=PATIENCE).json()
        yield page


def texts(pages: Iterator[dict[str, Any]]) -> list[str]:
    return [message["message"] for page in pages for message in page["data"]]


def is_documented_moment(value: str) -> bool:
    moment = datetime.strptime(value, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC)
    return abs((datetime.now(UTC) - moment).total_seconds()) < PATIENCE


def sandbox_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "cloudware-sandbox"]


# ---------------------------------------------------------------- the documented shapes


@pytest.mark.parametrize(("path", "description"), [("send", "Message sent"), ("queue", "Message queued")])
def test_a_text_is_answered_with_the_documented_receipt(
    sandbox: Sandbox, session: requests.Session, path: str, description: str
) -> None:
    """`send` and `queue` answer with an object of just the documented keys."""
    answer = session.post(f"{sandbox.base_url}/sms/{path}", json=BODY, timeout=PATIENCE)

    receipt = answer.json()

    assert 200 == answer.status_code
    assert "application/json" == answer.headers["Content-Type"]
    assert ["data", "status"] == list(receipt)
    assert "success" == receipt["status"]
    assert ["id", "name", "description", "created_at", "updated_at"] == list(receipt["data"])
    assert description == receipt["data"]["description"]
    assert receipt["data"]["id"].isdecimal()
    assert is_documented_moment(receipt["data"]["created_at"])
    assert is_documented_moment(receipt["data"]["updated_at"])


def test_a_listing_has_the_documented_shape(sandbox: Sandbox, session: requests.Session) -> None:
    """A page has just the documented keys, its messages too, and the last page's `next_page` is null."""
    session.post(f"{sandbox.base_url}/sms/send", json={**BODY, "from": "2254"}, timeout=PATIENCE)
    sandbox.receive(from_="1234567890", to="0987654321", message="Hello, World!")

    page = session.get(f"{sandbox.base_url}/sms/messages", timeout=PATIENCE).json()

    assert ["query", "data", "next_page"] == list(page)
    assert "" == page["query"]
    assert page["next_page"] is None
    sent, received = page["data"]
    keys = ["type", "from", "to", "message", "message_id", "created_at", "sent_at"]
    assert keys == list(sent) == list(received)
    assert ["message_sent", "2254", "2348012345678", "Hello"] == list(sent.values())[:4]
    assert ["message_received", "1234567890", "0987654321", "Hello, World!"] == list(received.values())[:4]
    for message in page["data"]:
        assert message["message_id"].isdecimal()
        assert is_documented_moment(message["created_at"])
        assert is_documented_moment(message["sent_at"])


def test_the_query_is_told_as_documented(sandbox: Sandbox, session: requests.Session) -> None:
    """`query` is the query's text, with the `+` of a number in it, as in the vendor's example."""
    params = {"device_id": "2254", "phone": "+40722000000"}

    page = session.get(f"{sandbox.base_url}/sms/messages", params=params, timeout=PATIENCE).json()

    assert "device_id=2254&phone=+40722000000" == page["query"]


def test_a_text_without_a_sender_comes_from_the_sandboxs_device(sandbox: Sandbox, session: requests.Session) -> None:
    """`from` may be left out or be null; the listing still names a device."""
    for body in (BODY, {**BODY, "from": None}):
        assert 200 == session.post(f"{sandbox.base_url}/sms/send", json=body, timeout=PATIENCE).status_code

    assert ["0987654321", "0987654321"] == [message.from_ for message in sandbox.messages]


# ---------------------------------------------------------------- the vendor's samples

# Word for word from the vendor's page, where the Python ones stand on one line. The samples under
# "Queue a message" post to /sms/send, too.
CURL_SEND = """\
curl -X POST "https://api.cloudware.chat/v1/sms/send" \\
-H "Authorization: Bearer YOUR_ACCESS_TOKEN" \\
-H "Content-Type: application/json" \\
-d '{
"to": "recipient_number",
"message": "Your message here"
}'
"""
PYTHON_SEND = """\
import requests
import json
url = "https://api.cloudware.chat/v1/sms/send"
headers = {
    "Authorization": "Bearer YOUR_ACCESS_TOKEN",
    "Content-Type": "application/json"
}
data = {
    "to": "recipient_number",
    "message": "Your message here"
}
response = requests.post(url, headers=headers, data=json.dumps(data))
"""
CURL_MESSAGES = """\
curl "https://api.cloudware.chat/v1/sms/messages" \\
-H "Authorization: Bearer YOUR_ACCESS_TOKEN"
"""
PYTHON_MESSAGES = """\
import requests
url = "https://api.cloudware.chat/v1/sms/messages"
headers = {
    "Authorization": "Bearer YOUR_ACCESS_TOKEN",
}
response = requests.get(url, headers=headers)
"""
# runs a sample as it is, then shows the answer, which the sample leaves in `response`
RUN_PYTHON = "import sys; exec(sys.argv[1]); print(response.text)"


def run_sample(sandbox: Sandbox, sample: str) -> dict[str, Any]:
    """Run a sample, with only host and token substituted, and give the answer."""
    sample = sample.replace("https://api.cloudware.chat/v1", sandbox.base_url)
    sample = sample.replace("YOUR_ACCESS_TOKEN", sandbox.access_token)
    command = ["sh", "-c", sample] if sample.startswith("curl") else [sys.executable, "-c", RUN_PYTHON, sample]
    environment = os.environ | {"NO_PROXY": "127.0.0.1", "no_proxy": "127.0.0.1"}
    done = subprocess.run(command, env=environment, check=True, capture_output=True, timeout=PATIENCE)
    return json.loads(done.stdout)


needs_curl = pytest.mark.skipif(shutil.which("curl") is None, reason="there is no curl")


@pytest.mark.parametrize("sample", [pytest.param(CURL_SEND, marks=needs_curl, id="curl"), PYTHON_SEND])
def test_the_vendors_samples_send(sandbox: Sandbox, sample: str) -> None:
    """The vendor's samples for sending and queueing run unedited but for host and token."""
    answer = run_sample(sandbox, sample)

    assert "success" == answer["status"]
    (message,) = sandbox.messages
    assert ("recipient_number", "Your message here") == (message.to, message.message)
    assert answer["data"]["id"] == message.message_id


@pytest.mark.parametrize("sample", [pytest.param(CURL_MESSAGES, marks=needs_curl, id="curl"), PYTHON_MESSAGES])
def test_the_vendors_samples_list(sandbox: Sandbox, sample: str) -> None:
    """The vendor's samples for the listing run unedited but for host and token."""
    sandbox.receive(from_="1234567890", message="Hello, World!")

    answer = run_sample(sandbox, sample)

    assert ["Hello, World!"] == [message["message"] for message in answer["data"]]


# ---------------------------------------------------------------- refusals


@pytest.mark.parametrize("authorization", [None, "", "Bearer", "Bearer wrong", "Basic {token}", "Bearer {token}x"])
@pytest.mark.parametrize(("method", "path"), [("POST", "send"), ("POST", "queue"), ("GET", "messages")])
def test_without_the_token_nothing_is_told_or_taken(
    sandbox: Sandbox, authorization: str | None, method: str, path: str
) -> None:
    """Every call wants the bearer token, and answers 401 with a JSON error without it."""
    headers = {} if authorization is None else {"Authorization": authorization.format(token=sandbox.access_token)}

    answer = requests.request(method, f"{sandbox.base_url}/sms/{path}", json=BODY, headers=headers, timeout=PATIENCE)

    assert 401 == answer.status_code
    assert "Bearer" == answer.headers["WWW-Authenticate"]
    assert "error" == answer.json()["status"]
    assert [] == sandbox.messages


def test_the_scheme_is_read_in_any_case(sandbox: Sandbox) -> None:
    """`bearer` is a scheme, whose case does not matter (RFC 9110, 11.1)."""
    headers = {"Authorization": f"bearer {sandbox.access_token}"}

    assert 200 == requests.get(f"{sandbox.base_url}/sms/messages", headers=headers, timeout=PATIENCE).status_code


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (400, b""),
        (400, b"to=2348012345678"),
        (400, b'{"to": "2348012345678", "message": "Hel'),
        (400, b"[" * 100_000),
        (400, b'{"to": "\xff"}'),
        (422, b"[]"),
        (422, b"null"),
        (422, b"{}"),
        (422, b'{"to": "2348012345678"}'),
        (422, b'{"to": "2348012345678", "message": ""}'),
        (422, b'{"to": "2348012345678", "message": 5}'),
        (422, b'{"to": "2348012345678", "message": "half a pair: \\ud83d"}'),
        (422, b'{"message": "Hello"}'),
        (422, b'{"to": "", "message": "Hello"}'),
        (422, b'{"to": 2348012345678, "message": "Hello"}'),
        (422, b'{"to": ["2348012345678"], "message": "Hello"}'),
        (422, b'{"to": "2348012345678", "message": "Hello", "from": ""}'),
        (422, b'{"to": "2348012345678", "message": "Hello", "from": 2254}'),
        (413, b'{"to": "2348012345678", "message": "' + b"x" * 2**20 + b'"}'),
    ],
)
@pytest.mark.parametrize("path", ["send", "queue"])
def test_what_is_no_text_is_refused(
    sandbox: Sandbox, session: requests.Session, path: str, status: int, body: bytes
) -> None:
    """A body that is no JSON, too large, or lacks a field is refused with a JSON error, and nothing is kept."""
    headers = {"Content-Type": "application/json"}

    answer = session.post(f"{sandbox.base_url}/sms/{path}", data=body, headers=headers, timeout=PATIENCE)

    assert status == answer.status_code
    assert ["status", "message"] == list(answer.json())
    assert "error" == answer.json()["status"]
    assert [] == sandbox.messages


@pytest.mark.parametrize("media_type", [None, "text/plain", "application/x-www-form-urlencoded"])
def test_what_is_not_called_json_is_refused(
    sandbox: Sandbox, session: requests.Session, media_type: str | None
) -> None:
    """A text must come as application/json: 415 otherwise."""
    headers = {"Content-Type": media_type}

    answer = session.post(f"{sandbox.base_url}/sms/send", data=json.dumps(BODY), headers=headers, timeout=PATIENCE)

    assert 415 == answer.status_code
    assert "error" == answer.json()["status"]


@pytest.mark.parametrize("media_type", ["application/json; charset=utf-8", "Application/JSON"])
def test_json_may_have_a_parameter_and_any_case(sandbox: Sandbox, session: requests.Session, media_type: str) -> None:
    """The media type is read as HTTP has it."""
    headers = {"Content-Type": media_type}
    data = json.dumps(BODY)

    answer = session.post(f"{sandbox.base_url}/sms/send", data=data, headers=headers, timeout=PATIENCE)

    assert 200 == answer.status_code


@pytest.mark.parametrize(
    ("status", "method", "path"),
    [
        (405, "GET", "sms/send"),
        (405, "PUT", "sms/queue"),
        (405, "POST", "sms/messages"),
        (404, "GET", "sms"),
        (404, "POST", "sms/send/"),
        (404, "GET", "../nothing"),
    ],
)
def test_what_is_not_in_the_api_is_answered_in_json(
    sandbox: Sandbox, session: requests.Session, status: int, method: str, path: str
) -> None:
    """A wrong method is 405, a wrong path is 404, both with a JSON error and no redirect."""
    answer = session.request(method, f"{sandbox.base_url}/{path}", json=BODY, timeout=PATIENCE, allow_redirects=False)

    assert status == answer.status_code
    assert "error" == answer.json()["status"]
    assert (status == 405) == ("Allow" in answer.headers)


def test_a_caller_that_goes_away_does_no_harm(
    sandbox: Sandbox, session: requests.Session, caplog: pytest.LogCaptureFixture
) -> None:
    """A connection that breaks within a body leaves no text, no error in the log, and a sandbox that works."""
    with open_request(sandbox, body=b'{"to": '):
        pass

    session.post(f"{sandbox.base_url}/sms/send", json=BODY, timeout=PATIENCE)

    assert ["Hello"] == [message.message for message in sandbox.messages]
    assert [] == caplog.records


@contextlib.contextmanager
def open_request(sandbox: Sandbox, body: bytes) -> Iterator[socket.socket]:
    """Begin a request and send the beginning of its body, once the sandbox waits for it."""
    port = int(sandbox.base_url.split(":")[2].removesuffix("/v1"))
    with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE) as connection:
        head = (
            f"POST /v1/sms/send HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {sandbox.access_token}\r\n"
            "Content-Type: application/json\r\nContent-Length: 1000\r\nExpect: 100-continue\r\n\r\n"
        )
        connection.sendall(head.encode())
        assert connection.recv(1000).startswith(b"HTTP/1.1 100 ")
        connection.sendall(body)
        yield connection


# ---------------------------------------------------------------- the listing


@pytest.mark.parametrize(("count", "sizes"), [(0, [0]), (2, [2]), (3, [3]), (4, [3, 1]), (9, [3, 3, 3])])
def test_a_walk_by_next_page_gives_every_text_once(count: int, sizes: list[int]) -> None:
    """Plain requests, following `next_page` from page to page, sees every text once, the oldest first."""
    with Sandbox(page_size=3) as sandbox, open_session(sandbox) as session:
        for number in range(count):
            sandbox.receive(from_="1234567890", message=f"text {number}")

        pages = list(walk(session, f"{sandbox.base_url}/sms/messages"))

        assert sizes == [len(page["data"]) for page in pages]
        assert [f"text {number}" for number in range(count)] == texts(iter(pages))


def test_texts_that_come_in_during_a_walk_move_no_other() -> None:
    """A walk skips nothing and repeats nothing while texts come in, and ends with the newest of them."""
    with Sandbox(page_size=2) as sandbox, open_session(sandbox) as session:
        for number in range(5):
            sandbox.receive(from_="1234567890", message=f"text {number}")
        seen = []

        for page in walk(session, f"{sandbox.base_url}/sms/messages"):
            seen += [message["message"] for message in page["data"]]
            if len(sandbox.messages) < 8:
                sandbox.receive(from_="1234567890", message=f"text {len(sandbox.messages)}")

        assert [f"text {number}" for number in range(8)] == seen


def test_next_page_names_the_origin_that_was_asked() -> None:
    """`next_page` is absolute and keeps scheme, host and port that the request came to."""
    with Sandbox(page_size=1) as sandbox, open_session(sandbox) as session:
        for _ in range(2):
            sandbox.receive(from_="1234567890", message="Hello")
        url = f"{sandbox.base_url}/sms/messages"

        plain = session.get(url, timeout=PATIENCE).json()["next_page"]
        relayed = session.get(url, headers={"Host": "relay.example:8443"}, timeout=PATIENCE).json()["next_page"]
        headers = {"Host": "relay.example", "X-Forwarded-Proto": "https"}
        secure = session.get(url, headers=headers, timeout=PATIENCE).json()["next_page"]

        assert plain.startswith(f"{url}?token=")
        assert relayed.startswith("http://relay.example:8443/v1/sms/messages?token=")
        assert secure.startswith("https://relay.example/v1/sms/messages?token=")


@pytest.mark.parametrize(
    ("filters", "expected"),
    [
        ({}, ["sent", "from 2254", "received 100%", "second"]),
        ({"device_id": "0987654321"}, ["sent", "received 100%"]),
        ({"device_id": "2254"}, ["from 2254"]),
        ({"phone": "2348012345678"}, ["sent", "from 2254"]),
        ({"phone": "+2348012345678"}, ["sent", "from 2254"]),
        ({"phone": "1234567890"}, ["received 100%"]),
        ({"to": "2348012345678"}, ["sent", "from 2254"]),
        ({"to": "+0987654321"}, ["received 100%"]),
        ({"from": "1234567890"}, ["received 100%"]),
        ({"from": "40722000000"}, ["second"]),
        ({"message": "e"}, ["sent", "received 100%", "second"]),
        ({"message": "100%"}, ["received 100%"]),
        ({"message": "m 2"}, ["from 2254"]),
        ({"message": "SENT"}, []),
        ({"phone": "2348012345678", "message": "from"}, ["from 2254"]),
        ({"phone": ""}, ["sent", "from 2254", "received 100%", "second"]),
        ({"limit": "1"}, ["sent", "from 2254", "received 100%", "second"]),
    ],
)
def test_filters_choose_and_last_a_whole_walk(filters: dict[str, str], expected: list[str]) -> None:
    """A filter holds on every page; numbers are compared without a leading `+`, `message` is a part of the text."""
    with Sandbox(page_size=1) as sandbox, open_session(sandbox) as session:
        url = f"{sandbox.base_url}/sms/messages"
        for body in (
            {"to": "2348012345678", "message": "sent"},
            {"to": "+2348012345678", "message": "from 2254", "from": "2254"},
        ):
            session.post(f"{sandbox.base_url}/sms/send", json=body, timeout=PATIENCE)
        sandbox.receive(from_="1234567890", message="received 100%")
        sandbox.receive(from_="+40722000000", message="second", to="+40721111111")

        pages = list(walk(session, url, **filters))

        assert expected == texts(iter(pages))
        assert 1 == len({page["query"] for page in pages})


def test_a_plus_that_is_not_encoded_is_a_plus(sandbox: Sandbox, session: requests.Session) -> None:
    """`phone=+40…` typed into a URL as it stands in the vendor's page means that number."""
    sandbox.receive(from_="40722000000", message="Hello")

    page = session.get(f"{sandbox.base_url}/sms/messages?phone=+40722000000", timeout=PATIENCE).json()

    assert ["Hello"] == texts(iter([page]))
    assert "phone=+40722000000" == page["query"]


@pytest.mark.parametrize(
    "token",
    [
        "",
        "TOKEN_FOR_NEXT_PAGE",
        "é",
        *(
            base64.urlsafe_b64encode(content).decode()
            for content in (
                b"5",
                b"{}",
                b'["1", ""]',
                b"[1, 2]",
                b"[1]",
                b'[true, ""]',
                b'[-1, ""]',
                b'[9223372036854775808, ""]',
                b'[1, "message=\\ud800"]',
                b"[" * 30_000,
            )
        ),
    ],
    ids=lambda token: token[:20],
)
def test_a_token_that_no_page_gave_is_refused(sandbox: Sandbox, session: requests.Session, token: str) -> None:
    """A token that is none is 400 with a JSON error, not a first page and not a failure."""
    answer = session.get(f"{sandbox.base_url}/sms/messages", params={"token": token}, timeout=PATIENCE)

    assert 400 == answer.status_code
    assert "error" == answer.json()["status"]


def test_sent_texts_may_be_left_out_of_the_listing() -> None:
    """With `list_sent=False` the listing shows received texts only; `messages` still has all."""
    with Sandbox(list_sent=False) as sandbox, open_session(sandbox) as session:
        session.post(f"{sandbox.base_url}/sms/send", json=BODY, timeout=PATIENCE)
        sandbox.receive(from_="1234567890", message="in")

        assert ["in"] == texts(walk(session, f"{sandbox.base_url}/sms/messages"))
        assert ["Hello", "in"] == [message.message for message in sandbox.messages]


# ---------------------------------------------------------------- what the sandbox remembers


def test_messages_are_all_texts_oldest_first(sandbox: Sandbox, session: requests.Session) -> None:
    """`messages` has what was sent, queued and received, in that order, as the client would read it."""
    text = "Grüße 👋\nחדש\x00"
    session.post(f"{sandbox.base_url}/sms/send", json={**BODY, "message": text}, timeout=PATIENCE)
    session.post(f"{sandbox.base_url}/sms/queue", json=BODY, timeout=PATIENCE)
    received = sandbox.receive(from_="1234567890", message="in", to="40721111111")

    messages = sandbox.messages

    assert ["message_sent", "message_sent", "message_received"] == [message.type for message in messages]
    assert [text, "Hello", "in"] == [message.message for message in messages]
    assert received == messages[2]
    assert isinstance(received, Message)
    assert ("1234567890", "40721111111") == (received.from_, received.to)
    assert received.created_at is not None
    assert UTC == received.created_at.tzinfo
    assert received.created_at == received.sent_at
    assert {} == received.extra
    assert 3 == len({message.message_id for message in messages})


def test_receive_may_be_called_from_many_threads(sandbox: Sandbox) -> None:
    """Texts that many threads let come in at once are all kept, each with an id of its own."""
    with ThreadPoolExecutor(8) as threads:
        receive = lambda number: sandbox.receive(from_="1234567890", message=str(number))  # noqa: E731
        received = list(threads.map(receive, range(400)))

    assert 400 == len({message.message_id for message in received})
    assert sorted(map(str, range(400))) == sorted(message.message for message in sandbox.messages)


@pytest.mark.anyio
async def test_two_hundred_in_flight_lose_none() -> None:
    """200 sends at a time, 2,000 in all: each gets a receipt of its own, and each is there afterwards."""
    ids = []
    async with Sandbox() as sandbox, sandbox.client(max_connections=200) as cloudware:

        async def send_ten(first: int) -> None:
            for number in range(first, first + 10):
                receipt = await cloudware.send("2348012345678", str(number))
                ids.append(receipt.id)

        async with anyio.create_task_group() as tasks:
            for first in range(0, 2000, 10):
                tasks.start_soon(send_ten, first)

        assert sorted(map(str, range(2000))) == sorted(message.message for message in sandbox.messages)
        assert sorted(ids) == sorted(message.message_id for message in sandbox.messages)


def test_a_file_keeps_texts_beyond_the_sandboxs_end(tmp_path: Path) -> None:
    """With `database=` the texts are there again after a restart, newer ids are greater, and one file is left."""
    database = tmp_path / "texts.sqlite"
    with Sandbox(database=database) as sandbox:
        first = sandbox.receive(from_="1234567890", message="first")
    assert ["texts.sqlite"] == [file.name for file in tmp_path.iterdir()]

    with Sandbox(database=str(database)) as sandbox:
        second = sandbox.receive(from_="1234567890", message="second")

        assert [first, second] == sandbox.messages
        assert int(first.message_id or 0) < int(second.message_id or 0)


def test_texts_in_memory_may_be_read_after_the_end() -> None:
    """`messages` is still there when the block has ended, for what a test asserts then."""
    with Sandbox() as sandbox:
        received = sandbox.receive(from_="1234567890", message="Hello")

    assert [received] == sandbox.messages


def test_two_sandboxes_share_no_id() -> None:
    """Ids begin anywhere, so that what drops repeats by id does not take one sandbox's text for another's."""
    with Sandbox() as one, Sandbox() as other:
        ids = {sandbox.receive(from_="1234567890", message="Hello").message_id for sandbox in (one, other)}

    assert 2 == len(ids)


@pytest.mark.parametrize("name", ["no/such/folder.sqlite", "no_database"])
def test_a_database_that_cannot_be_opened_is_told_at_the_start(tmp_path: Path, name: str) -> None:
    """The start raises what SQLite says, and leaves nothing running."""
    (tmp_path / "no_database").write_text("This is a letter to my aunt, and no database at all.\n" * 100)

    with pytest.raises(sqlite3.Error), Sandbox(database=tmp_path / name):
        pass

    assert [] == sandbox_threads()


# ---------------------------------------------------------------- the webhook


class Receiver:
    """A webhook of the user's: it keeps what it gets, and answers as told, in the end with 204."""

    def __init__(self, *answers: int | threading.Event) -> None:
        self.posts: queue.Queue[tuple[str, str | None, bytes]] = queue.Queue()
        self.authorizations: list[str | None] = []
        self.answers = list(answers)
        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), self.handler(), bind_and_activate=False)
        # a connection that a test left open is not waited for
        self.server.daemon_threads = True
        self.server.server_bind()
        self.url = f"http://127.0.0.1:{self.server.server_port}/hooks?source=sandbox"
        self.thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.01})

    def listen(self) -> None:
        self.server.server_activate()
        self.thread.start()

    def handler(self) -> type[http.server.BaseHTTPRequestHandler]:
        receiver = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                receiver.authorizations.append(self.headers["Authorization"])
                receiver.posts.put((self.path, self.headers["Content-Type"], body))
                answer = receiver.answers.pop(0) if receiver.answers else 204
                if isinstance(answer, threading.Event):
                    answer.wait(PATIENCE)
                    answer = 204
                with contextlib.suppress(ConnectionError):
                    self.send_response(answer)
                    self.send_header("Content-Length", "0")
                    self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        return Handler

    def next_text(self) -> str:
        return json.loads(self.posts.get(timeout=PATIENCE)[2])["message"]

    def __enter__(self) -> Self:
        self.listen()
        return self

    def __exit__(self, *_: object) -> None:
        if self.thread.is_alive():
            self.server.shutdown()
            self.thread.join()
        self.server.server_close()


def test_an_inbound_text_is_posted_as_documented() -> None:
    """The webhook gets one POST of JSON a received text, with just what the listing tells of it; none a sent one."""
    with Receiver() as receiver, Sandbox(webhook_url=receiver.url) as sandbox, open_session(sandbox) as session:
        session.post(f"{sandbox.base_url}/sms/send", json=BODY, timeout=PATIENCE)
        for number in range(3):
            sandbox.receive(from_="1234567890", message=f"Grüße {number}")

        posts = [receiver.posts.get(timeout=PATIENCE) for _ in range(3)]

        listed = session.get(f"{sandbox.base_url}/sms/messages", timeout=PATIENCE).json()["data"]
        assert listed[1:] == [json.loads(body) for _, _, body in posts]
        keys = ["type", "from", "to", "message", "message_id", "created_at", "sent_at"]
        assert keys == list(json.loads(posts[0][2]))
        assert {("/hooks?source=sandbox", "application/json")} == {(path, kind) for path, kind, _ in posts}


def test_a_password_in_the_url_goes_as_basic_auth() -> None:
    """A receiver that asks for a secret as a password gets it, and the path is the same."""
    with Receiver() as receiver:
        url = receiver.url.replace("://", "://cloudware:s%40cret@")
        with Sandbox(webhook_url=url) as sandbox:
            sandbox.receive(from_="1234567890", message="Hello")
            path, _, _ = receiver.posts.get(timeout=PATIENCE)
    assert "/hooks?source=sandbox" == path
    assert ["Basic Y2xvdWR3YXJlOnNAY3JldA=="] == receiver.authorizations


def test_a_text_may_be_let_in_over_http(caplog: pytest.LogCaptureFixture) -> None:
    """A post beside the API lets a text come in, with the token only, and no log tells where it was posted."""
    caplog.set_level(1)
    inbound = {"from": "1234567890", "message": "Hello"}
    with Receiver() as receiver, Sandbox(webhook_url=receiver.url) as sandbox, open_session(sandbox) as session:
        where = sandbox.base_url.replace("/v1", "/sandbox/messages")
        assert 401 == requests.post(where, json=inbound, timeout=PATIENCE).status_code
        assert 422 == session.post(where, json={"from": "1234567890"}, timeout=PATIENCE).status_code
        answer = session.post(where, json=inbound, timeout=PATIENCE)
        assert "Hello" == receiver.next_text()
        (message,) = sandbox.messages

    assert (200, message.message_id) == (answer.status_code, answer.json()["message_id"])
    assert ("message_received", "1234567890", "Hello") == (message.type, message.from_, message.message)
    assert "/hooks" not in caplog.text


def test_a_delivery_that_fails_is_made_again_before_the_next() -> None:
    """An answer other than 2xx, a redirect too, is tried again with the same body until it is taken, in order."""
    with Receiver(500, 404, 302) as receiver, Sandbox(webhook_url=receiver.url) as sandbox:
        sandbox.receive(from_="1234567890", message="first")
        sandbox.receive(from_="1234567890", message="second")

        assert ["first"] * 4 + ["second"] == [receiver.next_text() for _ in range(5)]


def test_a_receiver_that_is_not_there_yet_is_waited_for(caplog: pytest.LogCaptureFixture) -> None:
    """A text whose receiver refuses connections at first arrives once it listens."""
    receiver = Receiver()
    with contextlib.ExitStack() as stack:
        stack.push(receiver)
        sandbox = stack.enter_context(Sandbox(webhook_url=receiver.url, webhook_attempts=100))
        sandbox.receive(from_="1234567890", message="Hello")
        receiver.listen()

        assert "Hello" == receiver.next_text()
    assert [] == caplog.records


def test_a_receiver_that_does_not_answer_is_given_up_on_and_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """An attempt has an end, and the next one follows it."""
    monkeypatch.setattr(_webhook, "_TIMEOUT", 0.2)
    hanging = threading.Event()
    with Receiver(hanging) as receiver, Sandbox(webhook_url=receiver.url) as sandbox:
        sandbox.receive(from_="1234567890", message="Hello")

        assert ["Hello", "Hello"] == [receiver.next_text(), receiver.next_text()]
        hanging.set()


def test_a_text_that_nobody_takes_is_given_up(caplog: pytest.LogCaptureFixture) -> None:
    """After `webhook_attempts` the log tells the message's id and nothing private, and the next text has its turn."""
    with Receiver(500, 503) as receiver, Sandbox(webhook_url=receiver.url, webhook_attempts=2) as sandbox:
        lost = sandbox.receive(from_="1234567890", message="lost")
        sandbox.receive(from_="1234567890", message="taken")

        assert ["lost", "lost", "taken"] == [receiver.next_text() for _ in range(3)]
    expected = f"the webhook did not take message {lost.message_id}, tried 2 times: HTTP 503"
    warnings = [record.getMessage() for record in caplog.records if record.name == "cloudware_async.sandbox"]
    assert [expected] == warnings


def test_texts_may_be_delivered_twice() -> None:
    """With `webhook_repeat=True` every text arrives twice."""
    with Receiver() as receiver, Sandbox(webhook_url=receiver.url, webhook_repeat=True) as sandbox:
        sandbox.receive(from_="1234567890", message="first")
        sandbox.receive(from_="1234567890", message="second")

        assert ["first", "first", "second", "second"] == [receiver.next_text() for _ in range(4)]


def test_texts_may_be_delivered_out_of_order(monkeypatch: pytest.MonkeyPatch) -> None:
    """With `webhook_shuffle=True` texts that come in together arrive newest first, each once."""
    monkeypatch.setattr(_webhook, "_GATHERING", 1.0)
    with Receiver() as receiver, Sandbox(webhook_url=receiver.url, webhook_shuffle=True) as sandbox:
        for number in range(3):
            sandbox.receive(from_="1234567890", message=f"text {number}")

        assert ["text 2", "text 1", "text 0"] == [receiver.next_text() for _ in range(3)]


def test_the_end_does_not_wait_for_the_webhook() -> None:
    """A sandbox whose webhook hangs, and has more to come, still stops at once."""
    hanging = threading.Event()
    with Receiver(hanging) as receiver:
        with Sandbox(webhook_url=receiver.url) as sandbox:
            for _ in range(100):
                sandbox.receive(from_="1234567890", message="Hello")
            receiver.next_text()
            started = time.monotonic()
        elapsed = time.monotonic() - started
        hanging.set()

    assert elapsed < 2
    assert receiver.posts.empty()


def test_receive_after_the_end_posts_nothing() -> None:
    """What comes in when the sandbox has stopped is kept and not posted."""
    with Receiver() as receiver:
        with Sandbox(webhook_url=receiver.url) as sandbox:
            pass
        sandbox.receive(from_="1234567890", message="late")

        assert ["late"] == [message.message for message in sandbox.messages]
    assert receiver.posts.empty()


# ---------------------------------------------------------------- start and stop


@pytest.mark.anyio
async def test_it_runs_under_any_event_loop() -> None:
    """`async with` starts and stops it on asyncio and trio, and it may be asked from there directly."""
    async with Sandbox() as sandbox, httpx.AsyncClient(trust_env=False, timeout=PATIENCE) as client:
        sandbox.receive(from_="1234567890", message="Hello")
        headers = {"Authorization": f"Bearer {sandbox.access_token}"}
        answer = await client.get(f"{sandbox.base_url}/sms/messages", headers=headers)

    assert ["Hello"] == texts(iter([answer.json()]))
    assert [] == sandbox_threads()


@pytest.mark.anyio
async def test_a_cancelled_block_stops_it() -> None:
    """When the block around it is cancelled, no thread is left."""
    with anyio.CancelScope() as scope:
        async with Sandbox():
            scope.cancel()
            await anyio.sleep_forever()

    assert [] == sandbox_threads()


def test_a_start_that_is_cancelled_leaves_nothing() -> None:
    """A `task.cancel()` of asyncio's in the middle of the start leaves no thread either."""

    async def enter() -> None:
        async with Sandbox():
            await asyncio.sleep(PATIENCE)

    async def main() -> None:
        # whether it hits the start, the block or neither, depends on the turns given
        for turns in range(20):
            task = asyncio.create_task(enter())
            for _ in range(turns):
                await asyncio.sleep(0)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

    asyncio.run(main())
    assert [] == sandbox_threads()


def test_many_starts_leave_no_thread_and_no_socket() -> None:
    """20 sandboxes, each used, leave as many threads and file descriptors as there were after the first."""
    counts = []
    for _ in range(20):
        with Sandbox() as sandbox, open_session(sandbox) as session:
            session.post(f"{sandbox.base_url}/sms/send", json=BODY, timeout=PATIENCE)
        del sandbox, session
        descriptors = Path("/proc/self/fd")
        counts.append((threading.active_count(), len(list(descriptors.iterdir())) if descriptors.exists() else 0))

    assert [counts[0]] * 20 == counts


def test_the_end_waits_for_no_client() -> None:
    """Idle connections and a request that hangs within its body are cut: it stops at once."""
    with contextlib.ExitStack() as stack:
        with Sandbox() as sandbox:
            session = stack.enter_context(open_session(sandbox))
            session.get(f"{sandbox.base_url}/sms/messages", timeout=PATIENCE)
            connection = stack.enter_context(open_request(sandbox, body=b'{"to": '))
            started = time.monotonic()
        elapsed = time.monotonic() - started

        assert elapsed < 2
        with contextlib.suppress(ConnectionError):
            assert b"" == connection.recv(1000)
    assert [] == sandbox_threads()


def test_the_end_leaves_no_caller_waiting() -> None:
    """Callers that connect just as it stops are cut off, too: none is left to wait on a connection nobody reads."""

    def call_until_refused(base_url: str, token: str) -> None:
        headers = {"Authorization": f"Bearer {token}"}
        with contextlib.suppress(requests.ConnectionError):
            while True:
                # a connection of its own for every call; a ReadTimeout is the failure
                requests.post(f"{base_url}/sms/send", json=BODY, headers=headers, timeout=PATIENCE)

    for _ in range(5):
        with ThreadPoolExecutor(8) as threads:
            with Sandbox() as sandbox:
                callers = [threads.submit(call_until_refused, sandbox.base_url, sandbox.access_token) for _ in range(8)]
                while len(sandbox.messages) < 8:
                    assert not any(caller.done() for caller in callers)
            for caller in callers:
                caller.result()


def test_a_sandbox_may_be_started_again() -> None:
    """After its end it may be entered again, with the same token and texts."""
    sandbox = Sandbox()
    for _ in range(2):
        with sandbox, open_session(sandbox) as session:
            session.post(f"{sandbox.base_url}/sms/send", json=BODY, timeout=PATIENCE)

    assert 2 == len(sandbox.messages)


def test_a_running_sandbox_is_not_started_twice(sandbox: Sandbox) -> None:
    """Entering it within its own block is an error, and does not disturb it."""
    base_url = sandbox.base_url

    with pytest.raises(RuntimeError, match="running already"), sandbox:
        pass

    assert base_url == sandbox.base_url


def test_a_port_that_is_taken_is_told_at_the_start(sandbox: Sandbox) -> None:
    """The start raises the system's error."""
    port = int(sandbox.base_url.split(":")[2].removesuffix("/v1"))

    with pytest.raises(OSError, match="in use"), Sandbox(port=port):
        pass


def test_it_has_no_address_but_while_it_runs() -> None:
    """`base_url` is an address of this machine while it runs, and an error that says so before and after."""
    sandbox = Sandbox()
    with pytest.raises(RuntimeError, match="not running"):
        _ = sandbox.base_url

    with sandbox:
        assert sandbox.base_url.startswith("http://127.0.0.1:")
        assert sandbox.base_url.endswith("/v1")

    with pytest.raises(RuntimeError, match="not running"):
        _ = sandbox.base_url


def test_the_token_is_random_and_not_shown() -> None:
    """Every sandbox has a token of its own unless it is given one; `repr` shows the address and not the token."""
    with Sandbox() as one, Sandbox(access_token="given") as other:
        assert 20 < len(one.access_token)
        assert "given" == other.access_token
        assert f"Sandbox({one.base_url})" == repr(one)
        assert f"Sandbox({other.base_url})" == repr(other)
    assert "Sandbox(not running)" == repr(one)


@pytest.mark.parametrize(
    "options",
    [
        {"access_token": ""},
        {"access_token": "with space"},
        {"page_size": 0},
        {"page_size": 1.5},
        {"page_size": "3"},
        {"port": -1},
        {"port": 65536},
        {"port": None},
        {"webhook_url": "hooks.example/sms"},
        {"webhook_url": "ftp://hooks.example/sms"},
        {"webhook_url": "http://127.0.0.1:port/"},
        {"webhook_url": "http://127.0.0.1:99999/"},
        {"webhook_url": "http://xn--/"},
        {"webhook_url": "http://127.0.0.1/\udcff"},
        {"webhook_url": "http://127.0.0.1/", "webhook_attempts": 0},
    ],
)
def test_options_out_of_range_are_refused(options: dict[str, Any]) -> None:
    """A wrong option is a ValueError at once, not at the first request."""
    with pytest.raises(ValueError):
        Sandbox(**options)


# ---------------------------------------------------------------- other ways to run it


@pytest.mark.anyio
async def test_it_is_an_asgi_application() -> None:
    """What `create_app` gives answers without a thread and without a socket."""
    app = create_app(access_token="of-the-app", page_size=1)
    headers = {"Authorization": "Bearer of-the-app"}
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://sandbox/v1", headers=headers) as client:
        for _ in range(2):
            sent = await client.post("/sms/send", json=BODY)
            assert 200 == sent.status_code
        page = (await client.get("/sms/messages")).json()
        last_page = (await client.get(page["next_page"])).json()

    assert page["next_page"].startswith("http://sandbox/v1/sms/messages?token=")
    assert (1, None) == (len(last_page["data"]), last_page["next_page"])


def test_the_application_posts_to_the_webhook_while_its_lifespan_runs() -> None:
    """`Sandbox.app` under a server of one's own has the webhook, too."""

    async def serve_and_receive(sandbox: Sandbox) -> None:
        async with sandbox.app.router.lifespan_context(sandbox.app):
            sandbox.receive(from_="1234567890", message="Hello")
            assert "Hello" == await asyncio.to_thread(receiver.next_text)

    with Receiver() as receiver:
        asyncio.run(serve_and_receive(Sandbox(webhook_url=receiver.url)))


def test_the_applications_token_comes_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """A factory is called without arguments: `create_app()` takes CLOUDWARE_ACCESS_TOKEN, and is refused without it."""
    monkeypatch.setenv("CLOUDWARE_ACCESS_TOKEN", "of-the-environment")
    create_app()

    monkeypatch.delenv("CLOUDWARE_ACCESS_TOKEN")
    with pytest.raises(ConfigurationError, match="CLOUDWARE_ACCESS_TOKEN"):
        create_app()


@contextlib.contextmanager
def run_python(*arguments: str, **environment: str) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [sys.executable, *arguments],
        env=os.environ | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    with process:
        try:
            yield process
        finally:
            process.kill()


def test_uvicorn_runs_it_as_a_factory() -> None:
    """`uvicorn --factory cloudware_async.sandbox:create_app` serves it, with the environment's token."""
    arguments = ("-m", "uvicorn", "--factory", "cloudware_async.sandbox:create_app", "--port", "0")
    with run_python(*arguments, CLOUDWARE_ACCESS_TOKEN="of-the-factory") as process:
        assert process.stdout is not None
        line = next(line for line in process.stdout if "running on" in line)
        origin = next(word for word in line.split() if word.startswith("http://"))
        headers = {"Authorization": "Bearer of-the-factory"}

        answer = requests.post(f"{origin}/v1/sms/send", json=BODY, headers=headers, timeout=PATIENCE)

        assert "success" == answer.json()["status"]


FOREGROUND = """
import signal
from cloudware_async.sandbox import serve

def tell(sandbox):
    # another thread gets the signal: it wakes the main one as little as one that comes just before a wait
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    print(sandbox.base_url, flush=True)

serve(on_listening=tell, access_token="of-the-foreground", database=__import__("sys").argv[1])
print("stopped")
"""


def test_it_runs_in_the_foreground_until_interrupted(tmp_path: Path) -> None:
    """`serve` tells its address once it listens, and Ctrl-C ends it in good order."""
    with run_python("-c", FOREGROUND, str(tmp_path / "texts.sqlite")) as process:
        assert process.stdout is not None
        base_url = process.stdout.readline().strip()
        headers = {"Authorization": "Bearer of-the-foreground"}
        answer = requests.post(f"{base_url}/sms/send", json=BODY, headers=headers, timeout=PATIENCE)
        assert "success" == answer.json()["status"]

        process.send_signal(signal.SIGINT)

        assert "stopped\n" == process.stdout.read()
        assert 0 == process.wait(PATIENCE)
    assert ["texts.sqlite"] == [file.name for file in tmp_path.iterdir()]


@pytest.mark.parametrize("package", ["starlette", "uvicorn"])
def test_what_is_missing_is_told_with_what_to_do(package: str) -> None:
    """Without starlette or uvicorn the import says which extra to install."""
    code = f"import sys; sys.modules['{package}'] = None; import cloudware_async.sandbox"

    with run_python("-c", code) as process:
        output, _ = process.communicate(timeout=PATIENCE)

    assert output.endswith(f"ImportError: the sandbox needs {package}: pip install 'cloudware-async[sandbox]'\n")


def test_the_package_does_not_import_the_sandbox() -> None:
    """`import cloudware_async` needs neither starlette nor uvicorn."""
    code = "import cloudware_async, sys; print({'starlette', 'uvicorn', 'cloudware_async.sandbox'} & {*sys.modules})"

    with run_python("-c", code) as process:
        output, _ = process.communicate(timeout=PATIENCE)

    assert "set()\n" == output


# ---------------------------------------------------------------- with the clients


@pytest.mark.anyio
async def test_it_makes_an_async_client() -> None:
    """`client()` is an AsyncCloudware of this sandbox: it sends, queues, and walks over the pages."""
    async with Sandbox(page_size=2) as sandbox, sandbox.client() as cloudware:
        receipt = await cloudware.send("+234 801 234 5678", "one")
        await cloudware.queue("2348012345678", "two", from_="2254")
        sandbox.receive(from_="2348012345678", message="three")

        listed = [sms async for sms in cloudware.messages(phone="2348012345678")]

        assert ["one", "two", "three"] == [sms.message for sms in listed]
        assert sandbox.messages == listed
        assert receipt.id == listed[0].message_id


def test_it_makes_a_blocking_client() -> None:
    """`sync_client()` is a Cloudware of this sandbox, and takes the client's options."""
    with Sandbox(page_size=2) as sandbox, sandbox.sync_client(from_="2254") as cloudware:
        for text in ("one", "two", "three"):
            cloudware.send("2348012345678", text)

        listed = list(cloudware.messages())

        assert sandbox.messages == listed
        assert ["2254"] * 3 == [sms.from_ for sms in listed]
