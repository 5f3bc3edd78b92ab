"""The table (`webhook_cases.py`) gets the same answers from every module, on real servers over real sockets."""

from __future__ import annotations

import contextlib
import json
import threading
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import webhook_apps
from attrs import frozen
from webhook_cases import CASES, LONG_BODIES, PREFIX, Case
from webhook_servers import (
    aiohttp_serving,
    gunicorn_serving,
    post,
    uvicorn_serving,
    waitress_serving,
)

from cloudware_async import Message
from cloudware_async.webhooks import Receiver, response_headers

HANDLED_ONCE = Counter(case.name for case in CASES if case.status == 200)


class Handled:
    """A handler that writes down by which case each message came."""

    def __init__(self) -> None:
        self.keys: Counter[tuple[str, str | None, str]] = Counter()
        self._lock = threading.Lock()

    def __call__(self, sms: Message) -> None:
        with self._lock:
            self.keys[sms.type, sms.message_id, sms.message] += 1


def expected() -> Counter[tuple[str, str | None, str]]:
    """What the handler is to see of the table: each accepted message once."""
    accepted = [json.loads(case.body.decode("utf-8-sig")) for case in CASES if case.status == 200]
    ids = [None if each.get("message_id") is None else str(each["message_id"]) for each in accepted]
    return Counter((each["type"], id_, each["message"]) for each, id_ in zip(accepted, ids, strict=True))


@frozen
class Way:
    """A way of receiving: the application, its server, and whether the server hands on a body before its end."""

    name: str
    app: Callable[..., Any]
    serving: Callable[..., contextlib.AbstractContextManager[int]]
    streams: bool = True


WAYS = [
    Way("asgi alone under uvicorn", webhook_apps.asgi_alone, uvicorn_serving),
    Way("mounted in Starlette", webhook_apps.in_starlette, uvicorn_serving),
    Way("mounted in FastAPI", webhook_apps.mounted_in_fastapi, uvicorn_serving),
    Way("FastAPI endpoint", webhook_apps.fastapi_endpoint, uvicorn_serving),
    Way("wsgi alone under waitress", webhook_apps.wsgi_alone, waitress_serving, streams=False),
    Way("beneath Flask", webhook_apps.beneath_flask, waitress_serving, streams=False),
    Way("Django view under waitress", webhook_apps.django_wsgi, waitress_serving, streams=False),
    Way(
        "async Django view under uvicorn",
        webhook_apps.django_asgi,
        lambda app: uvicorn_serving(app, lifespan="off"),
        streams=False,
    ),
    Way("in aiohttp", webhook_apps.in_aiohttp, aiohttp_serving),
]


def check(port: int, *, streams: bool) -> None:
    """Send the whole table."""
    wrong = []
    refusals = set()
    for case in CASES:
        if case.is_unfinished and not streams:
            continue
        reply = post(port, case)
        wanted = {name.lower(): value for name, value in response_headers(case.status).items()}
        if reply.status != case.status or not wanted.items() <= reply.headers.items():
            wrong.append(f"{case.name}: {reply} and not {case.status}")
        if reply.status == 401 and case.method != "HEAD":
            refusals.add((frozenset(reply.headers.items() - {("date", reply.headers.get("date"))}), reply.body))
    assert [] == wrong
    # nothing in the answer tells one refusal from another
    assert 1 == len(refusals)


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.name)
def test_table(way: Way) -> None:
    """Every case gets its status, and every accepted message is handled once."""
    handled = Handled()
    with way.serving(way.app(handled)) as port:
        check(port, streams=way.streams)
    assert expected() == handled.keys


def gunicorn_app(ledger: str, kind: str) -> Any:
    """What gunicorn's process serves; its handler writes to a file."""

    def handle(sms: Message) -> None:
        with Path(ledger).open("a") as file:
            file.write(json.dumps([sms.type, sms.message_id, sms.message]) + "\n")

    return getattr(webhook_apps, kind)(handle)


@pytest.mark.parametrize("kind", ["wsgi_alone", "django_wsgi"])
def test_table_under_gunicorn(kind: str, tmp_path: Path) -> None:
    """Under a WSGI server that hands on a body as it comes the table is the same, chunks without end included."""
    ledger = tmp_path / "ledger"
    with gunicorn_serving(f"test_webhooks_table:gunicorn_app({str(ledger)!r}, {kind!r})") as port:
        check(port, streams=True)
    assert expected() == Counter(tuple(json.loads(line)) for line in ledger.read_text().splitlines())


def pieces(case: Case) -> list[bytes]:
    size = 1 if "trickled" in case.framing else 1000
    return [case.body[start : start + size] for start in range(0, len(case.body), size)]


class Chunks:
    """A body that comes in chunks; an unfinished one fails the test if more is asked for than the cap needs."""

    def __init__(self, case: Case) -> None:
        self._iterator = iter(pieces(case))
        self._case = case

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        try:
            return next(self)
        except StopIteration:
            raise StopAsyncIteration from None

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        assert self._case.framing != "unfinished", "the body was asked for"
        for piece in self._iterator:
            return piece
        assert not self._case.is_unfinished, "more was asked for than there is"
        raise StopIteration


def request(case: Case) -> tuple[str, str, list[tuple[str, str]], Any]:
    headers = case.headers
    if "chunk" not in case.framing:
        headers = [*headers, ("Content-Length", str(len(case.body)))]
    return case.method, case.path, headers, case.body if case.framing == "length" else Chunks(case)


@pytest.mark.anyio
async def test_table_framework_free() -> None:
    """On asyncio and on trio, without any framework, every case gets its status; a handler runs in a thread."""
    handled = Handled()
    receiver = webhook_apps.receiver_of(handled)
    assert [] == [case.name for case in CASES if await receiver.receive(*request(case)) != case.status]
    assert expected() == handled.keys


def test_table_blocking() -> None:
    """Without an event loop every case gets its status."""
    handled = Handled()
    receiver = webhook_apps.receiver_of(handled)
    assert [] == [case.name for case in CASES if receiver.receive_blocking(*request(case)) != case.status]
    assert expected() == handled.keys


@pytest.mark.parametrize("case", LONG_BODIES, ids=lambda case: case.name)
def test_long_bodies(case: Case) -> None:
    """What is deep or has thousands of digits is refused with 400, and a long text is taken."""
    receiver = Receiver(lambda _: None, secret=webhook_apps.OPTIONS["secret"], max_body=1_000_000)
    assert case.status == receiver.receive_blocking(*request(case))


def test_the_cap_is_64_kibibytes_by_default() -> None:
    """Without `max_body` a body of 65,536 bytes is taken and one of 65,537 refused."""
    receiver = Receiver(lambda _: None, secret=webhook_apps.OPTIONS["secret"])
    whole = next(case for case in CASES if case.name == "as long as may be").body
    for size, status in ((65_536, 200), (65_537, 413)):
        headers = {"content-type": "application/json"}
        path = f"{PREFIX}/{webhook_apps.NEW}"
        assert status == receiver.receive_blocking("POST", path, headers, whole.ljust(size))
