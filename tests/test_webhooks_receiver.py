"""The receiver: what it refuses to start with, when the handler is called, and how often."""

from __future__ import annotations

import asyncio
import functools
import json
import threading
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import anyio
import anyio.lowlevel
import pytest
from webhook_cases import NEW, OLD, message

from cloudware_async import ConfigurationError, InvalidArgumentError, Message
from cloudware_async.webhooks import (
    MemoryStore,
    Receiver,
    Recorded,
    SQLiteStore,
    Standing,
    WebhookPayloadError,
    _turn,
    _worker,
    new_secret,
    parse,
    response_headers,
    webhook_url,
)

PATIENCE = 20.0
JSON = {"content-type": "application/json"}


def request(name: str = "one", **changes: Any) -> tuple[str, str, dict[str, str], bytes]:
    return "POST", f"/{NEW}", JSON, json.dumps(message(name, **changes)).encode()


@pytest.fixture
def no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    """What failed is due again at once."""
    monkeypatch.setattr(_worker, "choose_pause", lambda attempts: 0.0)


class Ledger:
    """A handler that counts, and fails the first so many times."""

    def __init__(self, failures: int = 0) -> None:
        self.calls: Counter[str | None] = Counter()
        self.failures = failures
        self._changed = threading.Condition()

    def __call__(self, sms: Message) -> None:
        with self._changed:
            self.calls[sms.message_id] += 1
            self._changed.notify_all()
            if self.calls[sms.message_id] <= self.failures:
                raise ValueError(f"could not keep {sms.message!r}")

    def wait_for(self, calls: int) -> None:
        with self._changed:
            assert self._changed.wait_for(lambda: self.calls.total() >= calls, PATIENCE), self.calls


# ------------------------------------------------------------ parse


def test_parse() -> None:
    """A webhook's body becomes the message that a listing would show."""
    sms = parse(json.dumps(message("one", carrier="MTN")).encode())
    assert ("message_received", "1234567890", "0987654321") == (sms.type, sms.from_, sms.to)
    assert ("Hello, World!", "id of one", True) == (sms.message, sms.message_id, sms.received)
    assert {"carrier": "MTN"} == sms.extra
    assert sms.created_at is not None
    assert "2020-01-01T00:00:00+00:00" == sms.created_at.isoformat()


@pytest.mark.parametrize(
    ("changes", "place"),
    [
        ({"from": 5}, "from is not a string"),
        ({"to": None}, "to is not a string"),
        ({"message": []}, "message is not a string"),
        ({"type": {}}, "type is not a string"),
        ({"message_id": 1.5}, "message_id is not a string or a whole number"),
        ({"sent_at": "yesterday"}, "sent_at is not an RFC 3339 timestamp"),
        ({"created_at": "2020-13-01T00:00:00Z"}, "created_at is not a moment in time"),
    ],
)
def test_parse_names_the_place(changes: dict[str, Any], place: str) -> None:
    """What is wrong is named by its place, and neither the error nor its chain shows any of the text."""
    with pytest.raises(WebhookPayloadError) as caught:
        parse(json.dumps(message("one", **{"message": "very private", **changes})).encode())
    assert f"The webhook's body is not one readable message: {place}." == str(caught.value)
    assert caught.value.__context__ is None


@pytest.mark.parametrize(
    ("body", "problem"),
    [
        (b"very private", "it is not JSON"),
        (b'"very private \xff"', "it is not UTF-8"),
        (b"[" * 100_000, "it is nested too deeply"),
        (b"[]", "it is not an object"),
        (b"{}", "type is missing"),
    ],
)
def test_parse_of_no_message(body: bytes, problem: str) -> None:
    """What is no message at all is an error that says so, without a chain."""
    with pytest.raises(WebhookPayloadError) as caught:
        parse(body)
    assert f"The webhook's body is not one readable message: {problem}." == str(caught.value)
    assert caught.value.__context__ is None


@pytest.mark.parametrize("body", ["{}", None, 5, {}])
def test_parse_takes_bytes(body: Any) -> None:
    """Anything but bytes is a wrong argument."""
    with pytest.raises(InvalidArgumentError):
        parse(body)


# ------------------------------------------------------------ configuration


@pytest.mark.parametrize(
    "secret",
    [
        None, "", "short", "x" * 21, "0" * 31, "x" * 64, "changeme" * 3, "0" * 39, "0123456789" * 3, "correct horse battery staple", "pässwörter" * 10,
        f"{NEW}/", f"{NEW}%", f"{NEW}\n", f" {NEW}", (), (NEW, OLD, f"{NEW}x"), (NEW, ""), (NEW, None), [None], 5,
        NEW.encode(), [NEW.encode()], {NEW, OLD},
    ],
)  # fmt: skip
def test_no_start_without_a_secret(secret: Any) -> None:
    """Without a secret of 128 bits that a URL can carry nothing starts, and the error does not show what was given."""
    with pytest.raises(ConfigurationError) as caught:
        Receiver(print, secret=secret)
    assert NEW not in str(caught.value)


@pytest.mark.parametrize("secret", [NEW, "0123456789abcdef" * 2, "0123456789ABCDEF" * 2, "0123456789" * 4, [NEW]])
def test_secrets_of_128_bits(secret: Any) -> None:
    """A secret is strong enough if letters drawn at random from its alphabet would give it 128 bits."""
    Receiver(print, secret=secret)


def test_generated_secrets_are_strong() -> None:
    """What `new_secret` gives is taken, is 256 bits long and never the same; so is what the standard library makes."""
    secrets = {new_secret() for _ in range(100)}
    assert 100 == len(secrets)
    for secret in secrets:
        assert 43 == len(secret)
        Receiver(print, secret=secret)


@pytest.mark.parametrize("flag", [1, "yes", None, "True"])
def test_the_flag_is_spelled_out(flag: Any) -> None:
    """`allow_unauthenticated` is `True` or it is an error: nothing that merely looks true opens the door."""
    with pytest.raises(ConfigurationError, match="allow_unauthenticated"):
        Receiver(print, allow_unauthenticated=flag)


def test_unauthenticated() -> None:
    """With the flag and without a secret anybody may post; with both the secret is asked for."""
    wide_open = Receiver(lambda _: None, allow_unauthenticated=True)
    assert 200 == wide_open.receive_blocking("POST", "/", JSON, request()[-1])
    both = Receiver(lambda _: None, secret=NEW, allow_unauthenticated=True)
    assert 401 == both.receive_blocking("POST", "/", JSON, request()[-1])
    with pytest.raises(ConfigurationError):
        Receiver(print, secret="", allow_unauthenticated=True)


@pytest.mark.parametrize("max_body", [0, -1, 1.5, True, None, "64"])
def test_max_body_is_bytes(max_body: Any) -> None:
    """A cap that is no whole number from 1 is a configuration error."""
    with pytest.raises(ConfigurationError, match="max_body"):
        Receiver(print, secret=NEW, max_body=max_body)


@pytest.mark.parametrize("store", ["texts.db", SQLiteStore, MemoryStore, object(), Path("texts.db")])
def test_store_is_a_store(store: Any) -> None:
    """A store that is none, such as a bare path, is a configuration error."""
    with pytest.raises(ConfigurationError, match="store"):
        Receiver(print, secret=NEW, store=store)


def generate(_: Message) -> Iterator[None]:
    yield


async def generate_asynchronously(_: Message) -> AsyncIterator[None]:
    yield


@pytest.mark.parametrize("handler", [None, 5, generate, generate_asynchronously])
def test_handler_can_be_called(handler: Any) -> None:
    """A handler that cannot be called, or of which a call runs nothing, is a configuration error."""
    with pytest.raises(ConfigurationError, match="handler takes"):
        Receiver(handler, secret=NEW)


@pytest.mark.parametrize(
    ("base", "url"),
    [
        ("https://example.com", f"https://example.com/{NEW}"),
        ("https://example.com/", f"https://example.com/{NEW}"),
        ("https://example.com:8443/a/b/", f"https://example.com:8443/a/b/{NEW}"),
        ("http://127.0.0.1:8000/webhooks", f"http://127.0.0.1:8000/webhooks/{NEW}"),
        ("https://[::1]/", f"https://[::1]/{NEW}"),
    ],
)
def test_webhook_url(base: str, url: str) -> None:
    """The URL to enter at the service is the base with the secret as its last segment."""
    assert url == webhook_url(base, NEW)


@pytest.mark.parametrize(
    "base",
    ["", "example.com", "ftp://example.com", "https://", "https://a:b@example.com", "https://example.com/?a", None],
)
def test_webhook_url_of_no_url(base: Any) -> None:
    """A base that is no plain http or https URL is an error that shows no secret; so is a weak secret."""
    with pytest.raises(ConfigurationError, match="base must be") as caught:
        webhook_url(base, NEW)
    assert NEW not in str(caught.value)
    with pytest.raises(ConfigurationError, match="128 bits"):
        webhook_url("https://example.com", "weak")


def test_every_secret_is_compared_with_every_candidate(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever matches first, both secrets are compared with path and password, in constant time, as equally long bytes."""
    compared: list[tuple[bytes, bytes]] = []

    def compare(one: bytes, other: bytes) -> bool:
        compared.append((one, other))
        return one == other

    monkeypatch.setattr("hmac.compare_digest", compare)
    receiver = Receiver(lambda _: None, secret=(NEW, OLD))
    for path in (f"/{NEW}", f"/{OLD}", "/", "/\ud800\xff€"):
        compared.clear()
        receiver.receive_blocking("POST", path, JSON, b"")
        assert 4 == len(compared)
        assert {32} == {len(each) for pair in compared for each in pair}


def test_response_headers() -> None:
    """A status that needs a header has it."""
    assert {"WWW-Authenticate": 'Basic realm="webhooks"'} == response_headers(401)
    assert {"Allow": "POST"} == response_headers(405)
    assert {"Retry-After": "5"} == response_headers(503)
    assert {} == response_headers(200)


@pytest.mark.parametrize("length", ["9" * 5000, "0" * 5000 + "70000", "70000", "9" * 19])
def test_content_length_over_the_cap(length: str) -> None:
    """A content length over the cap, however it is written, is refused before the body is asked for."""

    def body() -> Iterator[bytes]:
        pytest.fail("the body was asked for")
        yield b""

    receiver = Receiver(lambda _: None, secret=NEW)
    assert 413 == receiver.receive_blocking("POST", f"/{NEW}", {**JSON, "Content-Length": length}, body())


@pytest.mark.parametrize("length", ["-1", "+5", "1_0", "0x5", "", "many", "٣", "0" * 5000 + "5"])
def test_content_length_that_says_nothing(length: str) -> None:
    """A content length that is no number, or small, is the server's business: what counts is the body."""
    receiver = Receiver(lambda _: None, secret=NEW)
    assert 200 == receiver.receive_blocking("POST", f"/{NEW}", {**JSON, "Content-Length": length}, request()[-1])


def test_headers_that_stand_there_twice() -> None:
    """Of a header that stands there twice nobody knows which one counts, so neither does."""
    receiver = Receiver(lambda _: None, secret=NEW)
    twice = [("Content-Type", "application/json"), ("content-type", "application/json")]
    assert 415 == receiver.receive_blocking("POST", f"/{NEW}", twice, request()[-1])
    authorization = [(b"authorization", b"Basic OmFiYw=="), (b"Authorization", f"Basic Om{NEW}".encode())]
    assert 401 == receiver.receive_blocking("POST", "/", authorization, request()[-1])


def test_body_that_breaks_off() -> None:
    """A body whose reading fails is refused with 400."""

    def body() -> Iterator[bytes]:
        yield b"{"
        raise ConnectionResetError("the other side went away")

    assert 400 == Receiver(print, secret=NEW).receive_blocking("POST", f"/{NEW}", JSON, body())


# ------------------------------------------------------------ handled on the spot


class Asynchronous:
    """A handler whose `__call__` is a coroutine function."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger

    async def __call__(self, sms: Message) -> None:
        await anyio.lowlevel.checkpoint()
        self._ledger(sms)


def kinds_of_handlers(ledger: Ledger) -> dict[str, Callable[[Message], object]]:
    async def handle(sms: Message) -> None:
        await anyio.lowlevel.checkpoint()
        ledger(sms)

    async def handle_with(_: object, sms: Message) -> None:
        await handle(sms)

    return {
        "a function": ledger,
        "a coroutine function": handle,
        "an object with an async call": Asynchronous(ledger),
        "a partial": functools.partial(handle_with, None),
        "a function that gives a coroutine": lambda sms: handle(sms),
    }


KINDS = list(kinds_of_handlers(Ledger()))


@pytest.mark.anyio
@pytest.mark.parametrize("kind", KINDS)
async def test_handled_once(kind: str) -> None:
    """A message is handled and answered with 200; a repeat gets 200 and is not handled again, under any kind of handler."""
    ledger = Ledger()
    receiver = Receiver(kinds_of_handlers(ledger)[kind], secret=NEW)
    assert [200, 200, 200] == [await receiver.receive(*request()) for _ in range(3)]
    assert {"id of one": 1} == ledger.calls


@pytest.mark.parametrize("kind", KINDS)
def test_handled_once_blocking(kind: str) -> None:
    """The same without an event loop."""
    ledger = Ledger()
    receiver = Receiver(kinds_of_handlers(ledger)[kind], secret=NEW)
    assert [200, 200, 200] == [receiver.receive_blocking(*request()) for _ in range(3)]
    assert {"id of one": 1} == ledger.calls


@pytest.mark.anyio
@pytest.mark.parametrize("kind", KINDS)
async def test_failure_leaves_it_unseen(kind: str) -> None:
    """A failure is answered with 500; when the service posts again, the message is handled."""
    ledger = Ledger(failures=2)
    receiver = Receiver(kinds_of_handlers(ledger)[kind], secret=NEW)
    assert [500, 500, 200, 200] == [await receiver.receive(*request()) for _ in range(4)]
    assert {"id of one": 3} == ledger.calls


def test_failure_leaves_it_unseen_blocking() -> None:
    """The same without an event loop."""
    ledger = Ledger(failures=2)
    receiver = Receiver(ledger, secret=NEW)
    assert [500, 500, 200, 200] == [receiver.receive_blocking(*request()) for _ in range(4)]
    assert {"id of one": 3} == ledger.calls


@pytest.mark.parametrize(
    ("one", "other", "is_same"),
    [
        ({}, {}, True),
        ({}, {"message": "Changed"}, True),
        ({}, {"message_id": "other"}, False),
        ({}, {"type": "message_sent"}, False),
        ({"message_id": 5}, {"message_id": "5"}, True),
        ({"message_id": 0}, {"message_id": None}, False),
        ({"message_id": None}, {"message_id": None}, True),
        ({"message_id": None}, {"message_id": None, "message": "Changed"}, False),
        ({"message_id": ""}, {"message_id": ""}, True),
        ({"message_id": ""}, {"message_id": "", "message": "Changed"}, False),
        ({"message_id": " "}, {"message_id": " ", "message": "Changed"}, False),
        ({"type": "a", "message_id": "b c"}, {"type": "a b", "message_id": "c"}, False),
        ({"type": 'a", "b', "message_id": "c"}, {"type": "a", "message_id": 'b", "c'}, False),
        ({"message_id": "\ud83d"}, {"message_id": "\ud83d"}, True),
        ({"message_id": "\ud83d"}, {"message_id": "\ud83e"}, False),
    ],
)
def test_the_same_message(one: dict[str, Any], other: dict[str, Any], *, is_same: bool) -> None:
    """The same type and id make the same message, or without an id the same bytes; the same text alone does not."""
    ledger = Ledger()
    receiver = Receiver(ledger, secret=NEW)
    for changes in (one, other):
        assert 200 == receiver.receive_blocking(*request(**changes))
    assert (1 if is_same else 2) == ledger.calls.total()


@pytest.mark.anyio
async def test_twice_at_once() -> None:
    """Of twenty requests with the same message at the same moment one handles it; all are answered with 200 when it has."""
    started, go_on = anyio.Event(), anyio.Event()
    calls = []

    async def handle(sms: Message) -> None:
        calls.append(sms)
        started.set()
        await go_on.wait()

    receiver = Receiver(handle, secret=NEW)
    statuses: list[int] = []

    async def post() -> None:
        statuses.append(await receiver.receive(*request()))

    async with anyio.create_task_group() as group:
        for _ in range(20):
            group.start_soon(post)
        await started.wait()
        await anyio.lowlevel.checkpoint()
        assert [] == statuses
        go_on.set()
    assert [200] * 20 == statuses
    assert 1 == len(calls)


def test_twice_at_once_blocking() -> None:
    """The same in threads."""
    barrier = threading.Barrier(8)
    ledger = Ledger()
    receiver = Receiver(ledger, secret=NEW)
    statuses: list[int] = []

    def post() -> None:
        barrier.wait()
        statuses.append(receiver.receive_blocking(*request()))

    threads = [threading.Thread(target=post) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [200] * 8 == statuses
    assert 1 == ledger.calls.total()


@pytest.mark.anyio
async def test_who_waits_takes_over() -> None:
    """If the one that everybody waits for fails, the next takes its turn."""
    go_on = anyio.Event()
    calls = 0

    async def handle(_: Message) -> None:
        nonlocal calls
        calls += 1
        await go_on.wait()
        if calls == 1:
            raise ValueError

    receiver = Receiver(handle, secret=NEW)
    statuses: list[int] = []

    async def post() -> None:
        statuses.append(await receiver.receive(*request()))

    async with anyio.create_task_group() as group:
        for _ in range(5):
            group.start_soon(post)
        await anyio.lowlevel.checkpoint()
        go_on.set()
    assert [200, 200, 200, 200, 500] == sorted(statuses)
    assert 2 == calls


def test_waiting_has_an_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who waits for somebody else's handler for half a minute is answered with 503 and may come again."""
    assert 30.0 == _turn._PATIENCE
    slept: list[float] = []
    monkeypatch.setattr("time.sleep", slept.append)
    ledger = Ledger()
    store = MemoryStore()
    receiver = Receiver(ledger, secret=NEW, store=store)

    statuses: list[int] = []

    def claimed_by_another(sms: Message) -> None:
        statuses.append(receiver.receive_blocking(*request()))
        ledger(sms)

    outer = Receiver(claimed_by_another, secret=NEW, store=store)
    assert 200 == outer.receive_blocking(*request())
    assert [503] == statuses
    assert 30 == pytest.approx(sum(slept), abs=0.5)
    assert 1 == ledger.calls.total()


@pytest.mark.anyio
async def test_cancelled_while_handling() -> None:
    """A request that is cancelled while its message is handled leaves it unseen, and the cancellation goes on."""
    started = anyio.Event()
    calls = 0

    async def handle(_: Message) -> None:
        nonlocal calls
        calls += 1
        if calls == 1:
            started.set()
            await anyio.sleep_forever()

    receiver = Receiver(handle, secret=NEW)
    async with anyio.create_task_group() as group:
        group.start_soon(receiver.receive, *request())
        await started.wait()
        group.cancel_scope.cancel()
    assert 200 == await receiver.receive(*request())
    assert 2 == calls


class BrokenStore:
    """A store that fails."""

    def claim(self, key: bytes) -> Standing:
        raise OSError("the disk is full")

    def finish(self, key: bytes) -> None: ...

    def release(self, key: bytes, delay: float) -> None: ...

    def close(self) -> None: ...


@pytest.mark.anyio
async def test_store_that_fails(caplog: pytest.LogCaptureFixture) -> None:
    """When the store fails the answer is 500, the handler is not called, and the log says so without its words."""
    ledger = Ledger()
    receiver = Receiver(ledger, secret=NEW, store=BrokenStore())
    assert 500 == await receiver.receive(*request())
    assert 500 == receiver.receive_blocking(*request())
    assert 0 == ledger.calls.total()
    assert "the store of webhooks failed: OSError at " in caplog.text
    assert "disk is full" not in caplog.text


# ------------------------------------------------------------ handled in the background


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "texts.db"


def left_in(path: Path) -> Sequence[Recorded]:
    """What is due and not handled."""
    store = SQLiteStore(path)
    try:
        return store.take(5)
    finally:
        store.close()


@pytest.mark.anyio
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.usefixtures("no_pause")
async def test_durable(kind: str, path: Path) -> None:
    """With a durable store the answer comes first; the handler is called in the background until it succeeds, and not again."""
    ledger = Ledger(failures=2)
    async with Receiver(kinds_of_handlers(ledger)[kind], secret=NEW, store=SQLiteStore(path)) as receiver:
        assert 200 == await receiver.receive(*request())
        await anyio.to_thread.run_sync(ledger.wait_for, 3)
        assert 200 == await receiver.receive(*request())
        assert 200 == await receiver.receive(*request("two"))
        await anyio.to_thread.run_sync(ledger.wait_for, 6)
    assert {"id of one": 3, "id of two": 3} == ledger.calls
    assert [] == left_in(path)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.usefixtures("no_pause")
def test_durable_blocking(kind: str, path: Path) -> None:
    """The same without an event loop: a thread does it, from `start` until `stop`."""
    ledger = Ledger(failures=2)
    receiver = Receiver(kinds_of_handlers(ledger)[kind], secret=NEW, store=SQLiteStore(path))
    receiver.start()
    assert 200 == receiver.receive_blocking(*request())
    ledger.wait_for(3)
    receiver.stop()
    assert {"id of one": 3} == ledger.calls
    assert [] == [thread for thread in threading.enumerate() if thread.name == "cloudware-webhooks"]


@pytest.mark.anyio
async def test_answered_before_handled(path: Path) -> None:
    """With a durable store 200 is answered while the handler is still at it, and repeats are answered too."""
    started, go_on = anyio.Event(), anyio.Event()
    calls = 0

    async def handle(_: Message) -> None:
        nonlocal calls
        calls += 1
        started.set()
        await go_on.wait()

    async with Receiver(handle, secret=NEW, store=SQLiteStore(path)) as receiver:
        assert 200 == await receiver.receive(*request())
        with anyio.fail_after(PATIENCE):
            await started.wait()
        assert 200 == await receiver.receive(*request())
        go_on.set()
    assert 1 == calls


@pytest.mark.anyio
async def test_left_by_the_last_run(path: Path) -> None:
    """What an earlier run has recorded and not handled is handled when the next one starts, without any request."""
    store = SQLiteStore(path)
    store.record(b"key", request()[-1])
    store.close()
    ledger = Ledger()
    async with Receiver(ledger, secret=NEW, store=SQLiteStore(path)):
        await anyio.to_thread.run_sync(ledger.wait_for, 1)
    receiver = Receiver(ledger, secret=NEW, store=SQLiteStore(path))
    receiver.start()
    receiver.stop()
    assert {"id of one": 1} == ledger.calls


def test_left_by_the_last_run_blocking(path: Path) -> None:
    """The same from `start` on."""
    store = SQLiteStore(path)
    store.record(b"key", request()[-1])
    store.close()
    ledger = Ledger()
    receiver = Receiver(ledger, secret=NEW, store=SQLiteStore(path))
    receiver.start()
    receiver.start()
    ledger.wait_for(1)
    receiver.stop()
    assert {"id of one": 1} == ledger.calls


@pytest.mark.anyio
async def test_started_by_the_first_request(path: Path) -> None:
    """Where nobody has started the background, as when no lifespan is run, the first request does; a second start is none."""
    ledger = Ledger()
    receiver = Receiver(ledger, secret=NEW, store=SQLiteStore(path))
    assert 200 == await receiver.receive(*request())
    await anyio.to_thread.run_sync(ledger.wait_for, 1)
    async with receiver:
        assert 200 == await receiver.receive(*request("two"))
        await anyio.to_thread.run_sync(ledger.wait_for, 2)
    assert {"id of one": 1, "id of two": 1} == ledger.calls


def test_started_by_the_first_request_blocking(path: Path) -> None:
    """The same in a thread, and again after `stop`."""
    ledger = Ledger()
    receiver = Receiver(ledger, secret=NEW, store=SQLiteStore(path))
    for calls, name in enumerate(("one", "two"), start=1):
        assert 200 == receiver.receive_blocking(*request(name))
        ledger.wait_for(calls)
        receiver.stop()
    assert {"id of one": 1, "id of two": 1} == ledger.calls


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_event_loop_that_ends(path: Path) -> None:
    """When an event loop ends under the background, what was under way is left for the next one."""
    calls = 0

    async def first(receiver: Receiver, started: anyio.Event) -> None:
        assert 200 == await receiver.receive(*request())
        await started.wait()

    async def handle(_: Message) -> None:
        nonlocal calls
        calls += 1
        started.set()
        if calls == 1:
            await anyio.sleep_forever()

    started = anyio.Event()
    receiver = Receiver(handle, secret=NEW, store=SQLiteStore(path))
    asyncio.run(first(receiver, started))
    assert 1 == calls
    started = anyio.Event()
    asyncio.run(first(receiver, started))
    assert 2 <= calls
    receiver.stop()


@pytest.mark.anyio
async def test_stop_waits_for_what_is_under_way(path: Path) -> None:
    """Leaving the block waits for the handler that is at work, and takes up nothing new."""
    started, go_on, ended = anyio.Event(), anyio.Event(), anyio.Event()
    calls = 0

    async def handle(_: Message) -> None:
        nonlocal calls
        calls += 1
        started.set()
        await go_on.wait()

    async def run() -> None:
        async with receiver:
            await receiver.receive(*request())
            await started.wait()
        ended.set()

    receiver = Receiver(handle, secret=NEW, store=SQLiteStore(path))
    async with anyio.create_task_group() as group:
        group.start_soon(run)
        await started.wait()
        await anyio.lowlevel.checkpoint()
        assert not ended.is_set()
        go_on.set()
        with anyio.fail_after(PATIENCE):
            await ended.wait()
    assert 1 == calls
    assert [] == left_in(path)


@pytest.mark.anyio
async def test_stop_does_not_wait_for_ever(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A handler that does not end in ten seconds is cancelled, and its message left for the next run."""
    assert 10.0 == _worker._GRACE
    monkeypatch.setattr(_worker, "_GRACE", 0.0)
    monkeypatch.setattr(_worker, "choose_pause", lambda attempts: 0.0)
    started = anyio.Event()

    async def handle(_: Message) -> None:
        started.set()
        await anyio.sleep_forever()

    async with Receiver(handle, secret=NEW, store=SQLiteStore(path)) as receiver:
        await receiver.receive(*request())
        await started.wait()
    assert [2] == [each.attempts for each in left_in(path)]


@pytest.mark.anyio
async def test_sixteen_at_once(path: Path) -> None:
    """Sixteen messages are handled at the same time, and no more."""
    full, go_on, over = anyio.Event(), anyio.Event(), anyio.Event()
    at_once = most = 0
    ended: list[int] = []

    async def handle(_: Message) -> None:
        nonlocal at_once, most
        at_once += 1
        most = max(most, at_once)
        if at_once == 16:
            full.set()
        await go_on.wait()
        at_once -= 1
        ended.append(at_once)
        if len(ended) == 40:
            over.set()

    async with Receiver(handle, secret=NEW, store=SQLiteStore(path)) as receiver:
        for number in range(40):
            await receiver.receive(*request(str(number)))
        with anyio.fail_after(PATIENCE):
            await full.wait()
        go_on.set()
        with anyio.fail_after(PATIENCE):
            await over.wait()
    assert 16 == most


def test_pauses_double() -> None:
    """The pause before the next attempt doubles from a second to ten minutes, with jitter down to a half, without end."""
    for attempts, longest in ((1, 1), (2, 2), (3, 4), (10, 512), (11, 600), (10_000, 600)):
        pauses = [_worker.choose_pause(attempts) for _ in range(200)]
        assert longest / 2 <= min(pauses) < max(pauses) <= longest


@pytest.mark.anyio
async def test_failed_is_not_retried_at_once(path: Path) -> None:
    """A message that failed is due after its pause, and its attempts are counted beyond a restart."""
    ledger = Ledger(failures=1)
    async with Receiver(ledger, secret=NEW, store=SQLiteStore(path)) as receiver:
        await receiver.receive(*request())
        await anyio.to_thread.run_sync(ledger.wait_for, 1)
    assert {"id of one": 1} == ledger.calls
    store = SQLiteStore(path)
    assert [] == store.take(5)
    store.record(parse_key(), b"again")
    assert [2] == [each.attempts for each in store.take(5)]
    store.close()


def parse_key() -> bytes:
    from cloudware_async.webhooks._payload import identify

    body = request()[-1]
    return identify(parse(body), body)


class FlakyStore:
    """A durable store whose calls fail every other time."""

    def __init__(self, path: Path) -> None:
        self._store = SQLiteStore(path)
        self._counts: Counter[str] = Counter()

    def _stumble(self, name: str) -> None:
        self._counts[name] += 1
        if self._counts[name] % 2:
            raise OSError("the disk is full")

    def claim(self, key: bytes) -> Standing:
        raise NotImplementedError

    def finish(self, key: bytes) -> None:
        self._stumble("finish")
        self._store.finish(key)

    def release(self, key: bytes, delay: float) -> None:
        self._stumble("release")
        self._store.release(key, delay)

    def record(self, key: bytes, body: bytes) -> None:
        self._stumble("record")
        self._store.record(key, body)

    def take(self, most: int) -> Sequence[Recorded]:
        self._stumble("take")
        return self._store.take(most)

    def close(self) -> None:
        self._store.close()


@pytest.mark.anyio
@pytest.mark.usefixtures("no_pause")
async def test_background_outlives_failures_of_the_store(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Failures of the store end nothing: what was not recorded is 500, and what was handled is marked in the end, once."""
    monkeypatch.setattr(_worker, "_LOOK_PERIOD", 0.01)
    ledger = Ledger(failures=1)
    async with Receiver(ledger, secret=NEW, store=FlakyStore(path)) as receiver:
        assert [500, 200] == [await receiver.receive(*request()) for _ in range(2)]
        await anyio.to_thread.run_sync(ledger.wait_for, 2)
    assert {"id of one": 2} == ledger.calls
    assert [] == left_in(path)


@pytest.mark.anyio
@pytest.mark.usefixtures("no_pause")
async def test_recorded_that_cannot_be_read(path: Path) -> None:
    """A recorded body that is no message, by another version's rules, fails as a handler would, and blocks nothing."""
    store = SQLiteStore(path)
    store.record(b"key", b"not JSON")
    store.close()
    ledger = Ledger()
    async with Receiver(ledger, secret=NEW, store=SQLiteStore(path)) as receiver:
        await receiver.receive(*request())
        await anyio.to_thread.run_sync(ledger.wait_for, 1)
    assert {"id of one": 1} == ledger.calls
    assert [b"key"] == [each.key for each in left_in(path)]


ENDINGS: list[type[BaseException]] = [asyncio.CancelledError, SystemExit, GeneratorExit, StopIteration, BaseException]


@pytest.mark.anyio
@pytest.mark.usefixtures("no_pause")
@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize("kind", ["function", "coroutine function"])
async def test_background_outlives_whatever_a_handler_raises(
    kind: str, ending: type[BaseException], path: Path
) -> None:
    """A handler that raises what usually ends a task or a program has failed, and ends nothing: all are handled."""
    ledger = Ledger()

    def fail_once(sms: Message) -> None:
        ledger(sms)
        if ledger.calls[sms.message_id] == 1 and sms.message_id == "id of one":
            raise ending

    async def fail_once_asynchronously(sms: Message) -> None:
        fail_once(sms)

    handler = fail_once if kind == "function" else fail_once_asynchronously
    async with Receiver(handler, secret=NEW, store=SQLiteStore(path)) as receiver:
        for name in ("one", "two", "three"):
            assert 200 == await receiver.receive(*request(name))
        await anyio.to_thread.run_sync(ledger.wait_for, 4)
    assert {"id of one": 2, "id of two": 1, "id of three": 1} == ledger.calls
    assert [] == left_in(path)


@pytest.mark.anyio
@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize("kind", ["function", "coroutine function"])
async def test_whatever_a_handler_raises_is_its_failure(kind: str, ending: type[BaseException]) -> None:
    """Handled on the spot, what usually ends a task or a program is answered with 500, and the next post is handled."""
    ledger = Ledger()

    def fail_once(sms: Message) -> None:
        ledger(sms)
        if ledger.calls[sms.message_id] == 1:
            raise ending

    async def fail_once_asynchronously(sms: Message) -> None:
        fail_once(sms)

    receiver = Receiver(fail_once if kind == "function" else fail_once_asynchronously, secret=NEW)
    assert [500, 200, 200] == [await receiver.receive(*request("one")) for _ in range(3)]
    blocking = Receiver(fail_once if kind == "function" else fail_once_asynchronously, secret=NEW)
    assert [500, 200] == await anyio.to_thread.run_sync(
        lambda: [blocking.receive_blocking(*request("two")) for _ in range(2)]
    )
    assert {"id of one": 2, "id of two": 2} == ledger.calls


@pytest.mark.anyio
@pytest.mark.worlds("asyncio", reason="only asyncio's tasks can be cancelled past a shield")
@pytest.mark.parametrize("fails", [False, True])
@pytest.mark.parametrize("kind", ["memory", "SQLite"])
async def test_cancelled_by_the_loop_while_a_thread_handles(kind: str, path: Path, *, fails: bool) -> None:
    """A function goes on though the request is cancelled by the loop's own means, and what it did counts."""
    entered, go_on = threading.Event(), threading.Event()
    calls = 0

    def handle(_: Message) -> None:
        nonlocal calls
        calls += 1
        entered.set()
        assert go_on.wait(PATIENCE)
        if fails and calls == 1:
            raise ValueError

    # a claimed message is handled on the spot over whatever store
    store = MemoryStore() if kind == "memory" else OnTheSpot(SQLiteStore(path))
    receiver = Receiver(handle, secret=NEW, store=store)
    task = asyncio.create_task(receiver.receive(*request()))
    await asyncio.to_thread(entered.wait, PATIENCE)
    for _ in range(3):
        task.cancel()
        await asyncio.sleep(0)
    again = asyncio.create_task(receiver.receive(*request()))
    await asyncio.sleep(0)
    assert 1 == calls
    go_on.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert 200 == await again
    assert (2 if fails else 1) == calls
    receiver.stop()


class OnTheSpot:
    """A store that keeps no messages, over one that does."""

    def __init__(self, store: Any) -> None:
        self.claim, self.finish, self.release, self.close = store.claim, store.finish, store.release, store.close


class ForgetfulStore:
    """A store that fails, so many times, to note how a turn ended."""

    def __init__(self, failures: int) -> None:
        self._store = MemoryStore()
        self._failures = failures
        self.claim, self.close = self._store.claim, self._store.close

    def _stumble(self) -> None:
        self._failures -= 1
        if self._failures >= 0:
            raise OSError("the disk is full")

    def finish(self, key: bytes) -> None:
        self._stumble()
        self._store.finish(key)

    def release(self, key: bytes, delay: float) -> None:
        self._stumble()
        self._store.release(key, delay)


@pytest.mark.anyio
@pytest.mark.parametrize("kind", ["async", "blocking"])
async def test_store_that_forgets_what_was_handled(kind: str) -> None:
    """What was handled and could not be marked is answered with 500, and not handled again when it comes again."""
    ledger = Ledger()
    receiver = Receiver(ledger, secret=NEW, store=ForgetfulStore(2))

    async def post(name: str) -> int:
        return await receiver.receive(*request(name)) if kind == "async" else receiver.receive_blocking(*request(name))

    # the second one is not handled before the store knows of the first
    assert [500, 500, 200, 200] == [await post(name) for name in ("one", "two", "two", "one")]
    assert {"id of one": 1, "id of two": 1} == ledger.calls


@pytest.mark.anyio
async def test_store_that_forgets_what_failed() -> None:
    """What failed and could not be given back is answered with 500, and handled again when it comes again."""
    ledger = Ledger(failures=1)
    receiver = Receiver(ledger, secret=NEW, store=ForgetfulStore(1))
    assert [500, 200, 200] == [await receiver.receive(*request()) for _ in range(3)]
    assert {"id of one": 2} == ledger.calls


def no_thread() -> None:
    raise RuntimeError("can't start new thread")


def test_no_thread_to_be_had(path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """Where the system gives no thread a request is answered with 500 and what it brought is kept; the next one starts it."""
    ledger = Ledger()
    receiver = Receiver(ledger, secret=NEW, store=SQLiteStore(path))
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", lambda _: no_thread())
        assert 500 == receiver.receive_blocking(*request())
    assert 200 == receiver.receive_blocking(*request("two"))
    ledger.wait_for(2)
    receiver.stop()
    assert {"id of one": 1, "id of two": 1} == ledger.calls
    assert "RuntimeError at " in caplog.text


def test_no_thread_for_a_handler(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a handler gets no thread the message is as unseen."""
    ledger = Ledger()
    receiver = Receiver(ledger, secret=NEW)

    async def post() -> list[int]:
        with monkeypatch.context() as patch:
            patch.setattr(threading.Thread, "start", lambda _: no_thread())
            status = await receiver.receive(*request())
        return [status, await receiver.receive(*request())]

    assert [500, 200] == anyio.run(post)
    assert {"id of one": 1} == ledger.calls


def test_event_loop_that_was_closed(path: Path) -> None:
    """A loop that is closed with the background in it, or before that took its first step, does not block the next."""
    ledger = Ledger()
    receiver = Receiver(ledger, secret=NEW, store=SQLiteStore(path))

    async def enter() -> None:
        await receiver.__aenter__()

    for _ in range(2):
        loop = asyncio.new_event_loop()
        loop.run_until_complete(enter())
        loop.close()
    asyncio.run(enter())
    assert 200 == receiver.receive_blocking(*request())
    ledger.wait_for(1)
    receiver.stop()


@pytest.mark.anyio
async def test_stop_on_its_own_loop(path: Path) -> None:
    """`stop` where it would wait for itself says so."""
    async with Receiver(print, secret=NEW, store=SQLiteStore(path)) as receiver:
        with pytest.raises(ConfigurationError, match="would wait for ever"):
            receiver.stop()


@pytest.mark.anyio
async def test_entered_twice(path: Path) -> None:
    """Two applications may enter the same receiver; the last one that leaves ends it."""
    ledger = Ledger()
    receiver = Receiver(ledger, secret=NEW, store=SQLiteStore(path))
    async with receiver:
        async with receiver:
            pass
        assert receiver._worker is not None
        assert not receiver._worker.is_over
        assert 200 == await receiver.receive(*request())
        await anyio.to_thread.run_sync(ledger.wait_for, 1)
    assert receiver._worker.is_over


@pytest.mark.parametrize("kind", ["function", "coroutine function"])
def test_stop_in_a_handler(path: Path, kind: str) -> None:
    """`stop` in the handler that it would wait for says so."""
    raised: list[BaseException] = []
    done = threading.Event()

    def stop(_: Message) -> None:
        try:
            receiver.stop()
        except ConfigurationError as error:
            raised.append(error)
        done.set()

    async def stop_asynchronously(sms: Message) -> None:
        stop(sms)

    handler = stop if kind == "function" else stop_asynchronously
    receiver = Receiver(handler, secret=NEW, store=SQLiteStore(path))
    assert 200 == receiver.receive_blocking(*request())
    assert done.wait(PATIENCE)
    receiver.stop()
    assert ["stop() would wait for ever, for it is called by the handler that it waits for"] == list(map(str, raised))


def test_request_while_it_stops(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What comes in while the store is being closed is recorded, and handled once, after the next start."""
    ledger = Ledger()
    store = SQLiteStore(path)
    receiver = Receiver(ledger, secret=NEW, store=store)
    close = store.close

    def receive_and_close() -> None:
        assert 200 == receiver.receive_blocking(*request())
        close()

    receiver.start()
    with monkeypatch.context() as patch:
        patch.setattr(store, "close", receive_and_close)
        receiver.stop()
    assert 0 == ledger.calls.total()
    receiver.start()
    ledger.wait_for(1)
    receiver.stop()
    assert {"id of one": 1} == ledger.calls


@pytest.mark.anyio
@pytest.mark.usefixtures("no_pause")
@pytest.mark.worlds("asyncio", reason="a task's own cancel() is asyncio's")
async def test_handler_that_cancels_its_own_task(path: Path) -> None:
    """It ends nobody but itself, and has failed."""
    ledger = Ledger()

    async def handle(sms: Message) -> None:
        ledger(sms)
        if ledger.calls[sms.message_id] == 1:
            task = asyncio.current_task()
            assert task is not None
            task.cancel()
            await asyncio.sleep(0)

    async with Receiver(handle, secret=NEW, store=SQLiteStore(path)) as receiver:
        for name in ("one", "two"):
            assert 200 == await receiver.receive(*request(name))
        await anyio.to_thread.run_sync(ledger.wait_for, 4)
    assert {"id of one": 2, "id of two": 2} == ledger.calls


def test_stop_under_load(path: Path) -> None:
    """Stopped and started again and again while requests come, from several threads, nothing is lost and nothing doubled."""
    ledger = Ledger()
    receiver = Receiver(ledger, secret=NEW, store=SQLiteStore(path))
    names = [f"{thread} {number}" for thread in range(4) for number in range(25)]
    statuses: list[int] = []

    def post(mine: list[str]) -> None:
        statuses.extend(receiver.receive_blocking(*request(name)) for name in mine)

    threads = [threading.Thread(target=post, args=[names[start::4]]) for start in range(4)]
    stopping = [threading.Thread(target=receiver.stop) for _ in range(10)]
    for thread in [*threads, *stopping]:
        thread.start()
    for thread in [*threads, *stopping]:
        thread.join()
    receiver.start()
    ledger.wait_for(100)
    receiver.stop()
    assert [200] * 100 == statuses
    assert {f"id of {name}": 1 for name in names} == ledger.calls


@pytest.mark.anyio
@pytest.mark.worlds("asyncio", reason="only asyncio's tasks can be cancelled past a shield")
async def test_cancelled_while_claiming() -> None:
    """A claim whose caller was cancelled by the loop's own means, before or after it was done, is given back."""
    from cloudware_async.webhooks._effects import AsyncEffects

    for is_done in (False, True):
        claiming, go_on = threading.Event(), threading.Event()

        def claim() -> str:
            claiming.set()  # noqa: B023
            assert go_on.wait(PATIENCE)  # noqa: B023
            return "claimed"

        given_back: list[str] = []
        effects = AsyncEffects(BrokenStore())
        task = asyncio.create_task(effects.store(claim, undo=given_back.append))
        await asyncio.to_thread(claiming.wait)
        if is_done:
            # the thread ends, and the task is cancelled before it has seen that
            go_on.set()
            task.get_loop().call_soon(task.cancel)
        else:
            task.cancel()
            await asyncio.sleep(0)
            go_on.set()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert ["claimed"] == given_back
