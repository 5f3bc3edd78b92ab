"""What each module does beyond the table: lifespans, endpoints that fail, bodies that others have read, frameworks' own ways."""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
import socket
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import anyio
import fastapi
import pytest
import starlette.applications
import starlette.routing
import webhook_apps
from attrs import evolve
from webhook_cases import MAX_BODY, NEW, PREFIX, Case, encode, message
from webhook_postgresql import Cluster, cluster
from webhook_servers import (
    LOOPBACK,
    PATIENCE,
    aiohttp_serving,
    head_of,
    post,
    read_reply,
    uvicorn_serving,
    waitress_serving,
)

from cloudware_async import ConfigurationError, Message
from cloudware_async.webhooks import MemoryStore, PostgreSQLStore, Receiver, SQLiteStore, Standing, Store, _worker
from cloudware_async.webhooks.asgi import WebhookApp
from cloudware_async.webhooks.django import AsyncWebhookView, WebhookView
from cloudware_async.webhooks.fastapi import Webhook
from cloudware_async.webhooks.wsgi import read_chunks


def case_of(name: str) -> Case:
    return Case(name, 200, encode(message(name)))


class Ledger:
    """A handler that counts, and fails the first so many times."""

    def __init__(self, failures: int = 0) -> None:
        self.calls: Counter[str | None] = Counter()
        self._failures = failures
        self._changed = threading.Condition()

    def __call__(self, sms: Message) -> None:
        with self._changed:
            self.calls[sms.message_id] += 1
            self._changed.notify_all()
            if self.calls[sms.message_id] <= self._failures:
                raise ValueError("not now")

    def wait_for(self, calls: int) -> None:
        with self._changed:
            assert self._changed.wait_for(lambda: self.calls.total() >= calls, PATIENCE), self.calls


@pytest.fixture
def no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_worker, "choose_pause", lambda attempts: 0.0)


@pytest.fixture(scope="session")
def postgresql() -> Iterator[Cluster]:
    with cluster() as running:
        yield running


# ------------------------------------------------------------ every module, with a durable store

DURABLE = {
    "asgi alone": (webhook_apps.asgi_alone, uvicorn_serving),
    "mounted in Starlette, whose lifespan is not ours": (webhook_apps.in_starlette, uvicorn_serving),
    "mounted in FastAPI": (webhook_apps.mounted_in_fastapi, uvicorn_serving),
    "wsgi alone": (webhook_apps.wsgi_alone, waitress_serving),
    "beneath Flask": (webhook_apps.beneath_flask, waitress_serving),
    "a Django view": (webhook_apps.django_wsgi, waitress_serving),
    "an async Django view": (webhook_apps.django_asgi, lambda app: uvicorn_serving(app, lifespan="off")),
    "an async Django view under WSGI": (
        lambda handler, **options: webhook_apps.django_wsgi(handler, view=AsyncWebhookView, **options),
        waitress_serving,
    ),
    "aiohttp": (webhook_apps.in_aiohttp, aiohttp_serving),
}


@pytest.mark.parametrize("way", DURABLE)
@pytest.mark.parametrize("is_async", [False, True], ids=["function", "coroutine function"])
@pytest.mark.usefixtures("no_pause")
def test_durable(way: str, *, is_async: bool, tmp_path: Path) -> None:
    """Under every module a message is answered with 200 first and handled until that succeeds, repeats or not."""
    make, serving = DURABLE[way]
    ledger = Ledger(failures=2)

    async def handle(sms: Message) -> None:
        await asyncio.sleep(0)
        ledger(sms)

    receivers: list[Receiver] = []
    app = make(handle if is_async else ledger, store=SQLiteStore(tmp_path / "texts.db"), receivers=receivers)
    with serving(app) as port:
        for _ in range(2):
            assert 200 == post(port, case_of("one")).status
        ledger.wait_for(3)
        assert 200 == post(port, case_of("one")).status
        assert 200 == post(port, case_of("two")).status
        ledger.wait_for(6)
    for receiver in receivers:
        receiver.stop()
    assert {"id of one": 3, "id of two": 3} == ledger.calls


@pytest.mark.parametrize("way", DURABLE)
def test_handled_on_the_spot(way: str) -> None:
    """Under every module, with the memory store, a failure is 500 and a repeat of it is handled, a repeat of a success is not."""
    make, serving = DURABLE[way]
    ledger = Ledger(failures=1)
    with serving(make(ledger)) as port:
        assert [500, 200, 200] == [post(port, case_of("one")).status for _ in range(3)]
    assert {"id of one": 2} == ledger.calls


# ------------------------------------------------------------ ASGI


def test_lifespan_takes_up_what_was_left(tmp_path: Path) -> None:
    """Under a server's lifespan what an earlier run has left is handled at once, without a request."""
    store = SQLiteStore(tmp_path / "texts.db")
    store.record(b"key", encode(message("one")))
    store.close()
    ledger = Ledger()
    with uvicorn_serving(webhook_apps.asgi_alone(ledger, store=SQLiteStore(tmp_path / "texts.db"))):
        ledger.wait_for(1)
    assert {"id of one": 1} == ledger.calls


def test_lifespan_of_a_framework(tmp_path: Path) -> None:
    """Entered in the framework's lifespan, the receiver takes up what was left, and lets go of the store at the end."""
    store = SQLiteStore(tmp_path / "texts.db")
    store.record(b"key", encode(message("one")))
    store.close()
    ledger = Ledger()
    receiver = Receiver(ledger, secret=NEW, store=SQLiteStore(tmp_path / "texts.db"))

    @contextlib.asynccontextmanager
    async def lifespan(_: Any) -> Any:
        async with receiver:
            yield

    app = starlette.applications.Starlette(
        routes=[starlette.routing.Mount(PREFIX, WebhookApp(receiver))], lifespan=lifespan
    )
    with uvicorn_serving(app):
        ledger.wait_for(1)
    assert ["texts.db", "texts.db-seat-1"] == sorted(file.name for file in tmp_path.iterdir())


async def call(app: WebhookApp, scope: dict[str, Any], *events: dict[str, Any]) -> list[Any]:
    """One ASGI call with these events; whoever asks for more waits for ever."""
    waiting = list(events)
    sent: list[Any] = []

    async def receive() -> Any:
        if not waiting:
            await anyio.sleep_forever()
        return waiting.pop(0)

    async def send(event: Any) -> None:
        sent.append(event)

    with anyio.fail_after(PATIENCE):
        await app(scope, receive, send)
    return sent


HTTP = {
    "type": "http",
    "method": "POST",
    "path": f"{PREFIX}/{NEW}",
    "headers": [(b"content-type", b"application/json")],
}


@pytest.mark.anyio
async def test_asgi_on_both_loops(tmp_path: Path) -> None:
    """On asyncio and on trio a lifespan and a request in chunks go through, and the handler is called."""
    ledger = Ledger()
    app = WebhookApp(Receiver(ledger, secret=NEW, store=SQLiteStore(tmp_path / "texts.db")))
    body = encode(message("one"))
    events = [
        {"type": "http.request", "body": body[:10], "more_body": True},
        {"type": "http.request", "more_body": True},
        {"type": "http.request", "body": body[10:]},
    ]
    start, end = await call(app, HTTP, *events)
    assert (200, [(b"content-length", b"0")], b"") == (start["status"], start["headers"], end["body"])
    await anyio.to_thread.run_sync(ledger.wait_for, 1)
    lifespan = await call(app, {"type": "lifespan"}, {"type": "lifespan.startup"}, {"type": "lifespan.shutdown"})
    assert ["lifespan.startup.complete", "lifespan.shutdown.complete"] == [event["type"] for event in lifespan]


@pytest.mark.anyio
async def test_asgi_client_that_goes_away() -> None:
    """Who goes away before the body is whole gets no answer, and nothing is handled or raised."""
    ledger = Ledger()
    app = WebhookApp(Receiver(ledger, secret=NEW))
    some = {"type": "http.request", "body": encode(message("one")), "more_body": True}
    assert [] == await call(app, HTTP, some, {"type": "http.disconnect"})
    assert 0 == ledger.calls.total()


@pytest.mark.anyio
async def test_asgi_other_scopes() -> None:
    """A WebSocket is closed; what else there may be is refused with an exception, as ASGI wants it."""
    app = WebhookApp(Receiver(print, secret=NEW))
    assert [{"type": "websocket.close"}] == await call(app, {"type": "websocket"}, {"type": "websocket.connect"})
    with pytest.raises(NotImplementedError):
        await call(app, {"type": "webtransport"})


def test_connection_goes_on_after_a_refusal() -> None:
    """On one kept connection refusals and successes follow each other."""
    ledger = Ledger()
    with (
        uvicorn_serving(webhook_apps.asgi_alone(ledger)) as port,
        socket.create_connection((LOOPBACK, port), timeout=PATIENCE) as client,
    ):
        for number in range(3):
            for path, status in ((f"{PREFIX}/wrong", 401), (f"{PREFIX}/{NEW}", 200)):
                case = evolve(case_of(f"{number}"), path=path)
                client.sendall(head_of(case).replace(b"Connection: close\r\n", b"") + case.body)
                assert status == read_reply(client).status
    assert 3 == ledger.calls.total()


# ------------------------------------------------------------ FastAPI endpoints


def serve_endpoint(define: Callable[[fastapi.FastAPI, Any], object], webhook: Webhook, scope: Any = "function") -> Any:
    app = fastapi.FastAPI()
    define(app, fastapi.Depends(webhook, scope=scope))
    return uvicorn_serving(app, log_level="critical")


PATH = PREFIX + "/{secret}"

Endpoint = Callable[[fastapi.FastAPI, Any, Ledger], None]


def returns(app: fastapi.FastAPI, given: Any, ledger: Ledger) -> None:
    @app.post(PATH)
    async def receive(sms: Message = given) -> dict[str, str]:
        ledger(sms)
        return {"hello": "world"}


def returns_from_a_thread(app: fastapi.FastAPI, given: Any, ledger: Ledger) -> None:
    @app.post(PATH)
    def receive(sms: Message = given) -> None:
        ledger(sms)


def raises_http_exception(app: fastapi.FastAPI, given: Any, ledger: Ledger) -> None:
    @app.post(PATH)
    async def receive(sms: Message = given) -> None:
        try:
            ledger(sms)
        except ValueError:
            raise fastapi.HTTPException(500) from None


def sets_a_status(app: fastapi.FastAPI, given: Any, ledger: Ledger) -> None:
    @app.post(PATH)
    async def receive(response: fastapi.Response, sms: Message = given) -> None:
        try:
            ledger(sms)
        except ValueError:
            response.status_code = 500


def gives_what_it_did_not_promise(app: fastapi.FastAPI, given: Any, ledger: Ledger) -> None:
    @app.post(PATH, response_model=int)
    async def receive(sms: Message = given) -> Any:
        try:
            ledger(sms)
        except ValueError:
            return "no number"
        return 5


ENDPOINTS = [
    returns,
    returns_from_a_thread,
    raises_http_exception,
    sets_a_status,
    gives_what_it_did_not_promise,
]


@pytest.mark.parametrize("scope", ["function", None])
@pytest.mark.parametrize("define", ENDPOINTS)
def test_fastapi_endpoint(define: Endpoint, scope: str | None) -> None:
    """An endpoint that fails, in whichever way, leaves the message unseen; one that succeeds marks it."""
    ledger = Ledger(failures=2)
    with serve_endpoint(lambda app, given: define(app, given, ledger), Webhook(secret=NEW), scope) as port:
        assert [500, 500, 200, 200, 200] == [post(port, case_of("one")).status for _ in range(5)]
    assert {"id of one": 3} == ledger.calls


class FailsOnce:
    """A store that fails at the first call of each method."""

    def __init__(self) -> None:
        self._store = MemoryStore()
        self._failed: set[str] = set()
        self.close = self._store.close

    def _stumble(self, name: str) -> None:
        if name not in self._failed:
            self._failed.add(name)
            raise OSError("the disk is full")

    def claim(self, key: bytes) -> Standing:
        self._stumble("claim")
        return self._store.claim(key)

    def finish(self, key: bytes) -> None:
        self._stumble("finish")
        self._store.finish(key)

    def release(self, key: bytes, delay: float) -> None:
        self._stumble("release")
        self._store.release(key, delay)


def test_fastapi_store_that_fails(caplog: pytest.LogCaptureFixture) -> None:
    """A store that fails is answered with 500 and logged; an endpoint that succeeded is not called again for that."""
    ledger = Ledger(failures=1)
    webhook = Webhook(secret=NEW, store=FailsOnce())
    with serve_endpoint(lambda app, given: returns(app, given, ledger), webhook) as port:
        # the claim, the release, the handling that cannot be marked, and the mark
        assert [500, 500, 500, 200] == [post(port, case_of("one")).status for _ in range(4)]
    assert {"id of one": 2} == ledger.calls
    assert 3 == caplog.text.count("the store of webhooks failed: OSError at ")


def test_fastapi_other_parameters() -> None:
    """A request that the endpoint's other parameters refuse leaves the message unseen."""
    ledger = Ledger()

    def define(app: fastapi.FastAPI, given: Any) -> None:
        @app.post(PATH)
        async def receive(number: int, sms: Message = given) -> None:
            ledger(sms)

    with serve_endpoint(define, Webhook(secret=NEW)) as port:
        case = case_of("one")
        assert 422 == post(port, case).status
        assert 200 == post(port, evolve(case, path=f"{case.path}?number=5")).status
    assert {"id of one": 1} == ledger.calls


def test_fastapi_marked_before_answered() -> None:
    """With `scope="function"` the message is marked before the answer is sent."""
    order: list[str] = []

    class Watched:
        def __init__(self) -> None:
            self._store = MemoryStore()
            self.claim, self.release, self.close = self._store.claim, self._store.release, self._store.close

        def finish(self, key: bytes) -> None:
            order.append("marked")
            self._store.finish(key)

    def define(app: fastapi.FastAPI, given: Any) -> None:
        class Answer(fastapi.Response):
            async def __call__(self, *arguments: Any) -> None:
                order.append("answered")
                await super().__call__(*arguments)

        @app.post(PATH)
        async def receive(sms: Message = given) -> Any:
            return Answer()

    for scope, wanted in (("function", ["marked", "answered"]), (None, ["answered", "marked"])):
        order.clear()
        with serve_endpoint(define, Webhook(secret=NEW, store=Watched()), scope) as port:
            assert 200 == post(port, case_of("one")).status
        assert wanted == order


def test_fastapi_twice_at_once(tmp_path: Path, postgresql: Cluster) -> None:
    """Of several requests with the same message at once one reaches the endpoint, by whichever store, over two servers."""
    with postgresql.database() as database:
        makes: list[Callable[[], Store]] = [
            lambda: SQLiteStore(tmp_path / "texts.db"),
            lambda: PostgreSQLStore(database),
        ]
        for make in makes:
            calls: list[str | None] = []
            stores = [make(), make()]

            def define(app: fastapi.FastAPI, given: Any) -> None:
                @app.post(PATH)
                async def receive(sms: Message = given) -> None:
                    calls.append(sms.message_id)  # noqa: B023
                    await asyncio.sleep(0.05)

            with (
                serve_endpoint(define, Webhook(secret=NEW, store=stores[0])) as one,
                serve_endpoint(define, Webhook(secret=NEW, store=stores[1])) as other,
            ):
                statuses = at_once([lambda port=port: post(port, case_of("one")).status for port in [one, other] * 5])
                assert [200] * 10 == statuses
            assert ["id of one"] == calls
            for store in stores:
                store.close()


def at_once(works: list[Callable[[], Any]]) -> list[Any]:
    barrier = threading.Barrier(len(works))
    results: list[Any] = [None] * len(works)

    def run(index: int) -> None:
        barrier.wait()
        results[index] = works[index]()

    threads = [threading.Thread(target=run, args=[index]) for index in range(len(works))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return results


def test_fastapi_needs_a_secret() -> None:
    """The dependency fails closed as the receiver does, and takes the same options."""
    for options in ({}, {"secret": "weak"}, {"secret": NEW, "max_body": 0}, {"secret": NEW, "store": "texts.db"}):
        with pytest.raises(ConfigurationError):
            Webhook(**options)
    Webhook(allow_unauthenticated=True)


# ------------------------------------------------------------ two clones behind a load balancer


def test_two_clones_share_the_work(postgresql: Cluster) -> None:
    """Of the same messages posted to two receivers at the same time over one PostgreSQL, each is handled by one of them."""
    ledger = Ledger()
    with postgresql.database() as database:
        apps = [webhook_apps.asgi_alone(ledger, store=PostgreSQLStore(database)) for _ in range(2)]
        with uvicorn_serving(apps[0]) as one, uvicorn_serving(apps[1]) as other:
            works = [
                lambda port=port, n=n: post(port, case_of(f"{n}")).status for n in range(20) for port in (one, other)
            ]
            assert [200] * 40 == at_once(works)
            ledger.wait_for(20)
    assert {f"id of {number}": 1 for number in range(20)} == ledger.calls


# ------------------------------------------------------------ WSGI


def test_wsgi_reads_no_further_than_it_may() -> None:
    """Where the server marks no end, no more is read than the content length says; without one, nothing."""

    class Socket(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            assert size is not None
            assert self.tell() + size <= 5000, "this would wait for ever"
            return super().read(size)

    environ: dict[str, Any] = {"wsgi.input": Socket(b"x" * 9000), "CONTENT_LENGTH": "5000"}
    assert 5000 == len(b"".join(read_chunks(environ)))
    for length in ("", "0"):
        assert [] == list(read_chunks({"wsgi.input": Socket(b"x"), "CONTENT_LENGTH": length}))
    assert [] == list(read_chunks({"wsgi.input": Socket(b"x")}))
    ended = {"wsgi.input": io.BytesIO(b"x" * 9000), "wsgi.input_terminated": True}
    assert 9000 == len(b"".join(read_chunks(ended)))


def test_wsgi_content_length_that_is_none() -> None:
    """A content length that a sloppy server has let through is refused with 400."""
    environ = {
        "REQUEST_METHOD": "POST",
        "PATH_INFO": f"/{NEW}",
        "CONTENT_LENGTH": "many",
        "CONTENT_TYPE": "application/json",
        "wsgi.input": io.BytesIO(),
    }
    statuses: list[str] = []
    app = webhook_apps.wsgi_alone(print)
    assert [] == app(environ, lambda status, headers: statuses.append(status))
    assert ["400 Bad Request"] == statuses


def test_background_ends_with_the_process(tmp_path: Path) -> None:
    """A process whose background thread nobody has stopped ends all the same when its main thread does."""
    script = (
        "import sys\n"
        "from cloudware_async.webhooks import Receiver, SQLiteStore\n"
        "receiver = Receiver(lambda sms: None, allow_unauthenticated=True, store=SQLiteStore(sys.argv[1]))\n"
        "receiver.start()\n"
        "print(receiver.receive_blocking('POST', '/', {'content-type': 'application/json'}, sys.argv[2].encode()))\n"
    )
    command = [sys.executable, "-c", script, str(tmp_path / "texts.db"), json.dumps(message("one"))]
    ended = subprocess.run(command, check=True, capture_output=True, text=True, timeout=PATIENCE)
    assert ("200\n", "") == (ended.stdout, ended.stderr)


# ------------------------------------------------------------ Django


def reading_middleware(get_response: Any) -> Any:
    """What some projects have: it looks at every body before the view does."""

    def middleware(request: Any) -> Any:
        assert request.body is not None
        return get_response(request)

    return middleware


@pytest.mark.parametrize("view", [WebhookView, AsyncWebhookView])
def test_django_body_that_was_read(view: Any) -> None:
    """A body that a middleware has read already is taken from there, and its cap holds."""
    ledger = Ledger()
    middleware = ["test_webhooks_modules.reading_middleware"]
    app = webhook_apps.django_wsgi(ledger, view=view, middleware=middleware)
    with waitress_serving(app) as port:
        assert 200 == post(port, case_of("one")).status
        assert 413 == post(port, evolve(case_of("two"), body=b" " * (MAX_BODY + 1))).status
    assert {"id of one": 1} == ledger.calls


@pytest.mark.parametrize("view", [WebhookView, AsyncWebhookView])
def test_django_view_needs_a_receiver(view: Any) -> None:
    """A view without a receiver is a configuration error at the first request."""
    from django.test import RequestFactory

    webhook_apps.django_wsgi(print)
    response = view.as_view()
    with pytest.raises(ConfigurationError, match="receiver"):
        result = response(RequestFactory().post("/"))
        asyncio.run(result)


def test_django_without_csrf_token() -> None:
    """The views ask for no CSRF token, though the project checks them."""
    for app, serving in (
        (webhook_apps.django_wsgi, waitress_serving),
        (webhook_apps.django_asgi, lambda app: uvicorn_serving(app, lifespan="off")),
    ):
        with serving(app(lambda _: None)) as port:
            cookie = evolve(case_of("one"), extra=(("Cookie", "csrftoken=" + "x" * 32),))
            assert 200 == post(port, cookie).status


# ------------------------------------------------------------ what importing brings


@pytest.mark.parametrize(
    ("module", "banned"),
    [
        ("cloudware_async", ["cloudware_async.webhooks"]),
        ("cloudware_async.webhooks", ["sqlite3", "psycopg", "fastapi", "starlette", "django", "flask", "aiohttp"]),
        ("cloudware_async.webhooks.asgi", ["sqlite3", "psycopg", "fastapi", "starlette", "django", "uvicorn"]),
        ("cloudware_async.webhooks.wsgi", ["sqlite3", "psycopg", "fastapi", "starlette", "django", "flask"]),
        ("cloudware_async.webhooks.fastapi", ["sqlite3", "psycopg", "django", "flask"]),
        ("cloudware_async.webhooks.django", ["sqlite3", "psycopg", "fastapi", "starlette", "flask"]),
    ],
)
def test_imports_nothing_that_is_not_needed(module: str, banned: list[str]) -> None:
    """Each module can be imported alone, and brings no framework, database or server but its own."""
    script = (
        # what watches the process may have loaded some of it
        f"import sys\nbefore = set(sys.modules)\nimport {module}\n"
        f"print([name for name in {banned} if name in set(sys.modules) - before])"
    )
    ended = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True)
    assert "[]\n" == ended.stdout


@pytest.mark.parametrize(
    ("code", "package", "extra"),
    [
        ("import cloudware_async.webhooks.fastapi", "fastapi", "fastapi"),
        ("import cloudware_async.webhooks.django", "django", "django"),
        (
            "import cloudware_async.webhooks; cloudware_async.webhooks.PostgreSQLStore('')",
            "psycopg",
            "postgresql",
        ),
    ],
)
def test_missing_package(code: str, package: str, extra: str) -> None:
    """Where the package is missing, the error says which extra brings it."""
    script = f"import sys; sys.modules['{package}'] = None\n{code}"
    ended = subprocess.run([sys.executable, "-c", script], check=False, capture_output=True, text=True)
    assert f"pip install 'cloudware-async[{extra}]'" in ended.stderr.splitlines()[-1]
