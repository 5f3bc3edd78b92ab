"""Whatever is posted, the answer is one of the documented statuses, nothing is raised, and the rules decide."""

from __future__ import annotations

import base64
import json
import logging
import random
from collections import Counter
from collections.abc import Iterator
from typing import Any

import anyio
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from webhook_cases import CASES, GONE, LONG_BODIES, NEW, OLD, basic, encode, message

from cloudware_async import Message
from cloudware_async.webhooks import Receiver, WebhookPayloadError, parse
from cloudware_async.webhooks.asgi import WebhookApp

REQUESTS = 100_000
MAX_BODY = 2048
STATUSES = {200, 400, 401, 405, 413, 415, 500}

CHANCE = random.Random(20_200_101)


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """A hundred thousand refusals need not be logged."""
    logger = logging.getLogger("cloudware_async.webhooks")
    logger.disabled = True
    yield
    logger.disabled = False


def some_bytes(most: int) -> bytes:
    return CHANCE.randbytes(CHANCE.randrange(most))


def some_text() -> str:
    """Letters of all kinds, halves of surrogate pairs included."""
    return "".join(
        chr(CHANCE.choice((CHANCE.randrange(128), CHANCE.randrange(0x110000)))) for _ in range(CHANCE.randrange(12))
    )


def some_value(depth: int = 0) -> Any:
    kind = CHANCE.randrange(9 if depth < 3 else 7)
    if kind == 7:
        return [some_value(depth + 1) for _ in range(CHANCE.randrange(4))]
    if kind == 8:
        return {some_text(): some_value(depth + 1) for _ in range(CHANCE.randrange(4))}
    return (
        None,
        True,
        CHANCE.randrange(10**12),
        CHANCE.random(),
        some_text(),
        "2020-01-01T00:00:00Z",
        10 ** CHANCE.randrange(30),
    )[kind]


def some_body() -> bytes:
    kind = CHANCE.randrange(8)
    if kind == 0:
        return some_bytes(200)
    if kind == 1:
        return encode(some_value())
    if kind == 2:
        return b" " * CHANCE.randrange(2 * MAX_BODY)
    if kind == 3:
        return CHANCE.choice(BODIES)
    fields = message(str(CHANCE.randrange(10**9)))
    if kind in (4, 5):
        fields[CHANCE.choice([*fields, "extra"])] = some_value()
        return encode(fields)
    body = bytearray(encode(fields))
    if kind == 6:
        for _ in range(CHANCE.randrange(1, 4)):
            body[CHANCE.randrange(len(body))] = CHANCE.randrange(256)
    return bytes(body)


BODIES = [case.body for case in (*CASES, *LONG_BODIES) if len(case.body) < 200_000]

NAMES = [
    "authorization",
    "Authorization",
    "CONTENT-TYPE",
    "content-type",
    "content-length",
    "content-encoding",
    "x",
    "",
]
VALUES: list[str | bytes] = [
    "application/json", "application/json; charset=utf-8", "text/plain", "", "0", "5", "99999999", "9" * 5000, "-1", "٣",
    "gzip", "identity", basic(f"a:{NEW}"), basic(f":{OLD}"), basic(f"a:{GONE}"), basic(NEW), "Basic", "Basic =", "Bearer x",
    b"application/json", b"\xff\xfe", f"Basic {base64.b64encode(bytes(range(256))).decode()}", "Basic \ud800",
]  # fmt: skip


def some_headers() -> Any:
    headers: list[tuple[Any, Any]] = [("Content-Type", "application/json")] if CHANCE.random() < 0.7 else []
    for _ in range(CHANCE.randrange(4)):
        name: Any = CHANCE.choice(NAMES) if CHANCE.random() < 0.7 else some_text()
        value: Any = CHANCE.choice(VALUES) if CHANCE.random() < 0.7 else some_text()
        headers.append((some_bytes(9), some_bytes(40)) if CHANCE.random() < 0.2 else (name, value))
    is_plain = all(isinstance(each, str) for pair in headers for each in pair)
    return dict(headers) if is_plain and CHANCE.random() < 0.3 else headers


def some_path() -> str:
    path = CHANCE.choice(
        [f"/{NEW}", f"/a/b/{OLD}", f"/{NEW}?x", NEW, f"/{GONE}", "/", "", f"/{NEW}/", "//", f"/{NEW[:-1]}"]
    )
    return path if CHANCE.random() < 0.9 else f"/{some_text()}"


def some_method() -> str:
    return "POST" if CHANCE.random() < 0.9 else CHANCE.choice(["GET", "HEAD", "post", "", "PUT", some_text()])


def in_chunks(body: bytes) -> list[bytes]:
    size = CHANCE.randrange(1, 400)
    return [body[start : start + size] for start in range(0, len(body), size)]


@pytest.mark.exhaustive
def test_a_hundred_thousand_requests() -> None:
    """Of 100,000 arbitrary requests none raises, each gets a documented status, and 200 only what can be parsed."""
    handled: list[Message] = []

    def handle(sms: Message) -> None:
        handled.append(sms)
        if CHANCE.random() < 0.05:
            raise ValueError(sms)

    receiver = Receiver(handle, secret=(NEW, OLD), max_body=MAX_BODY)
    counts: Counter[int] = Counter()
    for _ in range(REQUESTS):
        method, path, headers, body = some_method(), some_path(), some_headers(), some_body()
        given_body = body if CHANCE.random() < 0.5 else in_chunks(body)
        before = len(handled)
        status = receiver.receive_blocking(method, path, headers, given_body)
        counts[status] += 1
        if status in (200, 500):
            assert method == "POST"
            assert parse(body).type is not None
            assert len(body) <= MAX_BODY
        else:
            assert before == len(handled)
    assert REQUESTS == counts.total()
    assert STATUSES == set(counts), counts
    # the generator has not gone astray: each answer is exercised
    assert min(counts.values()) > 50, counts


@pytest.mark.anyio
async def test_a_thousand_asgi_requests() -> None:
    """Arbitrary requests as events of ASGI, cut off or not, raise nothing and are answered once or not at all."""
    app = WebhookApp(Receiver(lambda _: None, secret=(NEW, OLD), max_body=MAX_BODY))
    for _ in range(1000):
        headers = [(some_bytes(9), some_bytes(20)), (b"content-type", b"application/json")]
        scope = {"type": "http", "method": some_method(), "path": some_path(), "headers": headers}
        chunks = in_chunks(some_body())
        events = [{"type": "http.request", "body": chunk, "more_body": True} for chunk in chunks]
        events.append(CHANCE.choice([{"type": "http.request"}, {"type": "http.disconnect"}]))
        sent: list[Any] = []

        async def receive(events: Any = events) -> Any:
            await anyio.lowlevel.checkpoint()
            return events.pop(0)

        async def send(event: Any, sent: Any = sent) -> None:
            sent.append(event)

        await app(scope, receive, send)
        if sent:
            start, end = sent
            assert start["status"] in STATUSES
            assert not end.get("more_body")


def judge(body: bytes) -> None:
    try:
        sms = parse(body)
    except WebhookPayloadError as error:
        assert error.__context__ is None
    else:
        assert all(isinstance(each, str) for each in (sms.type, sms.from_, sms.to, sms.message))
        assert sms.message_id is None or isinstance(sms.message_id, str)


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=300))
def test_parse_of_any_bytes(body: bytes) -> None:
    """Any bytes are a message or a `WebhookPayloadError`, whose chain holds nothing of them."""
    judge(body)


VALUE = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text()
    | st.datetimes().map(lambda each: each.isoformat()),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


@settings(max_examples=300, deadline=None)
@given(st.dictionaries(st.sampled_from([*message(""), "extra"]), VALUE))
def test_parse_of_any_object(changes: dict[str, Any]) -> None:
    """Any values in a message's fields make a message or a `WebhookPayloadError`."""
    judge(json.dumps({**message("x"), **changes}).encode())
