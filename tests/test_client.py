"""The client: its settings, one call, its errors, its retries, its time and its end."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import math
import threading
import time
from decimal import Decimal
from typing import Any

import anyio
import httpcore
import httpx
import pytest
import requests
import trio
from attrs import define, field
from fault_server import (
    HEALTHY,
    Act,
    Answer,
    AwaitRequest,
    Close,
    FaultServer,
    Hang,
    Healthy,
    Pause,
    ReadHead,
    ReadRequest,
    ReadSome,
    Received,
    Repeat,
    Reset,
    Script,
    Send,
    Trickle,
    answer,
    head,
    receipt,
)
from worlds import (
    GRACE,
    OWN,
    PATIENCE,
    TO,
    TOKEN,
    Book,
    Gate,
    Reply,
    World,
    asked,
    gather,
    held,
    serving,
    texts,
    within,
)

import cloudware_async
from cloudware_async import (
    APIConnectionError,
    APIResponseError,
    APIStatusError,
    APITimeoutError,
    AsyncCloudware,
    AuthenticationError,
    Cloudware,
    CloudwareError,
    ConfigurationError,
    Draft,
    InvalidArgumentError,
    RateLimitError,
    RetryPolicy,
    ServerError,
    _backend_httpx_async,
)

# ----------------------------------------------------------------------------------------------------
# Its settings


async def test_token_from_environment(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without an argument the token is `CLOUDWARE_ACCESS_TOKEN`, and with one it is the argument."""
    monkeypatch.setenv("CLOUDWARE_ACCESS_TOKEN", "from-environment")
    with FaultServer() as server:
        for arguments in ([], ["from-argument"]):
            async with world.make(*arguments, base_url=server.base_url) as cloudware:
                await cloudware.send(TO, "Hello")
        assert ["Bearer from-environment", "Bearer from-argument"] == server.authorizations


@pytest.mark.parametrize("environment", [None, ""])
async def test_missing_token(world: World, monkeypatch: pytest.MonkeyPatch, environment: str | None) -> None:
    """Without a token there is no client, and the error says where to put one."""
    if environment is not None:
        monkeypatch.setenv("CLOUDWARE_ACCESS_TOKEN", environment)
    with pytest.raises(ConfigurationError, match="CLOUDWARE_ACCESS_TOKEN") as caught:
        world.make()
    assert isinstance(caught.value, ValueError)
    assert (False, 0) == (caught.value.may_have_been_sent, caught.value.attempts)


@pytest.mark.parametrize(
    "token",
    [
        "",
        " ",
        "qzx wvk",
        "qzxwvk\n",
        "\tqzxwvk",
        "qzx\x00wvk",
        "qzx\x7fwvk",
        "qzxwvk\xa0",
        "‘qzxwvk’",
        5,
        b"qzxwvk",
        True,
        ["a"],
    ],
)
async def test_malformed_token(world: World, token: Any) -> None:
    """A token that is no visible ASCII is refused when the client is made, and not shown."""
    with pytest.raises(ConfigurationError) as caught:
        world.make(token)
    assert not [part for part in ("qzx", "wvk") if part in f"{caught.value}{caught.value!r}"]


async def test_malformed_token_from_environment(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """A token of the environment is checked as one that is passed."""
    monkeypatch.setenv("CLOUDWARE_ACCESS_TOKEN", "token\n")
    with pytest.raises(ConfigurationError):
        world.make()


async def test_base_url(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """The base URL is the argument, then `CLOUDWARE_BASE_URL`, then the vendor's; an empty variable is none."""
    assert "base_url='https://api.cloudware.chat/v1'" in repr(world.make(TOKEN))
    monkeypatch.setenv("CLOUDWARE_BASE_URL", "")
    assert "base_url='https://api.cloudware.chat/v1'" in repr(world.make(TOKEN))
    monkeypatch.setenv("CLOUDWARE_BASE_URL", "http://127.0.0.1:1/v2")
    assert "base_url='http://127.0.0.1:1/v2'" in repr(world.make(TOKEN))
    assert "base_url='http://127.0.0.1:2/v3'" in repr(world.make(TOKEN, base_url="http://127.0.0.1:2/v3"))


@pytest.mark.parametrize(
    ("path", "prefix"),
    [
        ("/v1", "/v1"),
        ("/v1/", "/v1"),
        ("/v1//", "/v1"),
        ("", ""),
        ("/", ""),
        ("/a/relay/v1", "/a/relay/v1"),
        ("/%7Euser/v1", "/%7Euser/v1"),
    ],
)
async def test_base_url_path(world: World, path: str, prefix: str) -> None:
    """Whatever path the base URL has, with a slash at its end or not, stands before the API's."""
    with serving(lambda *_: answer(receipt("one"))) as server:
        async with world.client(base_url=f"http://127.0.0.1:{server.port}{path}") as cloudware:
            await cloudware.send(TO, "Hello")
        assert [f"{prefix}/sms/send"] == [request.path for request in server.ledger]


@pytest.mark.parametrize("scheme", ["http", "HTTP", "hTTp"])
async def test_base_url_scheme_has_no_case(world: World, scheme: str) -> None:
    """`HTTP://` is `http://`."""
    with FaultServer() as server:
        async with world.client(base_url=f"{scheme}://127.0.0.1:{server.port}/v1") as cloudware:
            await cloudware.send(TO, "Hello")


@pytest.mark.parametrize(
    "url",
    [
        "",
        "api.cloudware.chat/v1",
        "//api.cloudware.chat/v1",
        "ftp://api.cloudware.chat/v1",
        "file:///etc/passwd",
        "https://",
        "https:///v1",
        "https://user@api.cloudware.chat/v1",
        "https://user:word@api.cloudware.chat/v1",
        "https://@api.cloudware.chat/v1",
        "https://api.cloudware.chat:/v1",
        "https://api.cloudware.chat:0/v1",
        "https://api.cloudware.chat:65536/v1",
        "https://api.cloudware.chat:port/v1",
        "https://api.cloudware.chat/v1?key=value",
        "https://api.cloudware.chat/v1?",
        "https://api.cloudware.chat/v1#part",
        "https://api.cloudware.chat/v 1",
        " https://api.cloudware.chat/v1",
        "https://api.cloudware.chat/v1\n",
        "https://api.cloudware.chat\\@elsewhere.invalid/v1",
        "https://clöudware.chat/v1",
        "https://[::1/v1",
        b"https://api.cloudware.chat/v1",
        5,
        True,
    ],
)
async def test_bad_base_url(world: World, url: Any) -> None:
    """A base URL that is no plain http or https URL is refused when the client is made."""
    with pytest.raises(ConfigurationError, match="base_url") as caught:
        world.make(TOKEN, base_url=url)
    assert isinstance(caught.value, ValueError)


async def test_bad_base_url_from_environment(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """A base URL of the environment is checked as one that is passed."""
    monkeypatch.setenv("CLOUDWARE_BASE_URL", "api.cloudware.chat")
    with pytest.raises(ConfigurationError, match="base_url"):
        world.make(TOKEN)


BAD_SECONDS = [
    None,
    math.nan,
    math.inf,
    -math.inf,
    0,
    0.0,
    -0.0,
    -1,
    True,
    False,
    "30",
    b"30",
    Decimal(3),
    [1],
    10**400,
]


@pytest.mark.parametrize("seconds", BAD_SECONDS, ids=lambda value: repr(value)[:12])
@pytest.mark.parametrize("name", ["timeout", "connect_timeout"])
async def test_bad_timeout(world: World, name: str, seconds: Any) -> None:
    """A timeout is a finite number greater than 0; "no timeout" is refused."""
    with pytest.raises(ConfigurationError, match=name):
        world.make(TOKEN, **{name: seconds})


@pytest.mark.parametrize("retry", [3, 0, True, False, "3", RetryPolicy, {"max_attempts": 3}, lambda *_: 1])
async def test_bad_retry(world: World, retry: Any) -> None:
    """`retry` is a `RetryPolicy` or None."""
    with pytest.raises(ConfigurationError, match="retry"):
        world.make(TOKEN, retry=retry)


@pytest.mark.parametrize("most", [0, -1, True, 1.5, 1.0, "10", None, math.inf])
async def test_bad_max_connections(world: World, most: Any) -> None:
    """`max_connections` is a whole number from 1."""
    with pytest.raises(ConfigurationError, match="max_connections"):
        world.make(TOKEN, max_connections=most)


@pytest.mark.parametrize("sender", ["", 5, b"Shop", True, ["Shop"]])
async def test_bad_sender(world: World, sender: Any) -> None:
    """`from_` is a string that is not empty, or None."""
    with pytest.raises(ConfigurationError, match="from_"):
        world.make(TOKEN, from_=sender)


@pytest.mark.parametrize(
    "make",
    [
        lambda: object(),
        lambda: "client",
        lambda: 5,
        lambda: httpx,
        lambda: httpx.AsyncClient,
        lambda: httpx.Client,
        lambda: httpx.HTTPTransport(),
        lambda: httpx.AsyncHTTPTransport(),
        requests.Session,
    ],
)
async def test_bad_http_client(world: World, make: Any) -> None:
    """An `http_client` that is none is refused when the client is made."""
    with pytest.raises(ConfigurationError, match="http_client"):
        world.make(TOKEN, http_client=make())


async def test_http_client_of_the_other_world(world: World) -> None:
    """An async client takes no blocking `http_client`, nor a blocking one an async."""
    other = httpx.AsyncClient() if world.is_blocking else httpx.Client()
    with pytest.raises(ConfigurationError, match="http_client"):
        world.make(TOKEN, http_client=other)
    if world.is_blocking:
        anyio.run(other.aclose)
    else:
        other.close()


async def test_settings_have_names(world: World) -> None:
    """Only the token goes by position."""
    with pytest.raises(TypeError):
        world.make(TOKEN, "http://127.0.0.1/v1")


async def test_repr(world: World) -> None:
    """The `repr` names class and base URL, and nothing private."""
    cloudware = world.make("a-secret-token", from_="2348012345678")
    name = "Cloudware" if world.is_blocking else type(cloudware).__name__
    assert f"{name}(base_url='https://api.cloudware.chat/v1')" == repr(cloudware)
    assert f"{name}(base_url='https://api.cloudware.chat/v1')" == repr(cloudware.with_options(access_token="other"))


# ----------------------------------------------------------------------------------------------------
# A send


@pytest.mark.parametrize("via", ["send", "queue"])
async def test_send_on_the_wire(world: World, via: str) -> None:
    """A send is one POST of the documented JSON to the documented path, with the token once and no cookie."""
    with FaultServer() as server:
        async with world.client(server) as cloudware:
            result = await getattr(cloudware, via)(TO, "Hello", from_="Shop")
        (request,) = server.ledger
        assert ("POST", f"/v1/sms/{via}") == (request.method, request.path)
        assert {"to": TO, "message": "Hello", "from": "Shop"} == json.loads(request.body)
        assert (f"Bearer {TOKEN}",) == request.header("authorization")
        assert ("application/json",) == request.header("content-type")
        assert ("application/json",) == request.header("accept")
        assert ("identity",) == request.header("accept-encoding")
        assert (f"127.0.0.1:{server.port}",) == request.header("host")
        assert (str(len(request.body)),) == request.header("content-length")
        assert () == request.header("cookie")
        assert () == request.header("transfer-encoding")
    assert (request.receipt_id, "success", "Example Resource") == (result.id, result.status, result.name)
    assert "2023-01-01T00:00:00+00:00" == result.created_at.isoformat()


async def test_fewest_fields(world: World) -> None:
    """Without a sender the body has two fields, not a null."""
    with FaultServer() as server:
        async with world.client(server) as cloudware:
            await cloudware.send(TO, "Hello")
        assert {"to": TO, "message": "Hello"} == json.loads(server.ledger[0].body)


@pytest.mark.parametrize(
    "number",
    [
        TO,
        "+2348012345678",
        "+234 801 234 5678",
        "(234) 801-234.5678",
        "234-801-234-5678",
        "[234]8012345678",
        " 2348012345678 ",
    ],
)
async def test_number_is_normalised(world: World, number: str) -> None:
    """`+`, spaces, dashes, dots and brackets are taken out of a number."""
    with FaultServer() as server:
        async with world.client(server) as cloudware:
            await cloudware.send(number, "Hello")
            await cloudware.queue(number, "Hello")
        assert [TO, TO] == [json.loads(request.body)["to"] for request in server.ledger]


async def test_sender(world: World) -> None:
    """A send's own sender goes before the client's, and the client's before none."""
    with FaultServer() as server:
        async with world.client(server, from_="Shop") as cloudware:
            await cloudware.send(TO, "Hello")
            await cloudware.send(TO, "Hello", from_="Other")
            await cloudware.queue(TO, "Hello")
            await cloudware.queue(TO, "Hello", from_="Other")
        assert ["Shop", "Other", "Shop", "Other"] == [json.loads(request.body)["from"] for request in server.ledger]


@pytest.mark.parametrize(
    "text",
    [" ", "\n", "a\x00b", "👩‍👩‍👧", "שלום", "Z͑ͫa", "\u2028", "\U0010ffff", '"quoted\\"', "x" * 100_000],
    ids=lambda text: ascii(text)[:12],
)
async def test_text_arrives(world: World, text: str) -> None:
    """A text reaches the server as it is, in UTF-8."""
    with FaultServer() as server:
        async with world.client(server) as cloudware:
            await cloudware.send(TO, text)
        assert [text] == texts(server)


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ((None, "Hello"), {}),
        ((2348012345678, "Hello"), {}),
        ((b"2348012345678", "Hello"), {}),
        (("", "Hello"), {}),
        (("+", "Hello"), {}),
        (("1234", "Hello"), {}),
        (("1234567890123456", "Hello"), {}),
        (("23480x2345678", "Hello"), {}),
        (("٢٣٤٨٠١٢٣٤٥", "Hello"), {}),
        (("２３４８０１２３４５", "Hello"), {}),
        (("++2348012345678", "Hello"), {}),
        (("234+8012345678", "Hello"), {}),
        (("2348012345678\n", "Hello"), {}),
        ((["2348012345678"], "Hello"), {}),
        ((TO, ""), {}),
        ((TO, None), {}),
        ((TO, b"Hello"), {}),
        ((TO, 5), {}),
        ((TO, "half \ud83d"), {}),
        ((TO, "half \udc00"), {}),
        ((TO, "Hello"), {"from_": ""}),
        ((TO, "Hello"), {"from_": 5}),
        ((TO, "Hello"), {"from_": b"Shop"}),
        ((TO, "Hello"), {"from_": "half \ud83d"}),
    ],
    ids=lambda value: ascii(value)[:40],
)
@pytest.mark.parametrize("via", ["send", "queue"])
async def test_wrong_arguments(world: World, via: str, arguments: tuple[Any, ...], named: dict[str, Any]) -> None:
    """A wrong argument is an `InvalidArgumentError`, and not even a connection is made."""
    with FaultServer() as server:
        async with world.client(server) as cloudware:
            with pytest.raises(InvalidArgumentError) as caught:
                await getattr(cloudware, via)(*arguments, **named)
        assert (0, []) == (server.connections, server.ledger)
    assert isinstance(caught.value, ValueError)
    assert (False, 0, None) == (caught.value.may_have_been_sent, caught.value.attempts, caught.value.cursor)


async def test_arguments_are_named(world: World) -> None:
    """The sender goes by name only."""
    with FaultServer() as server:
        async with world.client(server) as cloudware:
            with pytest.raises(TypeError):
                await cloudware.send(TO, "Hello", "Shop")
        assert 0 == server.connections


async def test_connection_is_kept(world: World) -> None:
    """Calls one after the other share one connection."""
    with FaultServer() as server:
        async with world.client(server) as cloudware:
            for _ in range(5):
                await cloudware.send(TO, "Hello")
                await gather(cloudware.messages())
        assert (1, 10) == (server.connections, len(server.ledger))


async def test_connection_that_the_server_ended(world: World) -> None:
    """A kept connection that the server has closed is replaced, and the send goes out once."""
    script = Script(((ReadRequest(), Healthy(), Close()), (ReadRequest(), Healthy(), Close())))
    with FaultServer(script) as server:
        async with world.client(server, retry=None) as cloudware:
            for number in range(3):
                await cloudware.send(TO, f"{number}")
                assert await world.wait(server.wait_for_ended, min(number + 1, 2))
        assert ["0", "1", "2"] == texts(server)
        assert 3 == server.connections


async def test_connection_close_is_heeded(world: World) -> None:
    """An answer with `Connection: close` ends its connection."""
    with serving(lambda *_: answer(receipt("one"), 200, b"Connection: close")) as server:
        async with world.client(server) as cloudware:
            for _ in range(3):
                await cloudware.send(TO, "Hello")
        assert 3 == server.connections


async def test_connections_are_limited(world: World) -> None:
    """No more than `max_connections` are held, and calls wait for one instead of failing."""
    gate = Gate()
    with held(gate) as server, gate:
        async with world.client(server, max_connections=3) as cloudware, world.crew() as crew:
            jobs = [crew.start(lambda number=number: cloudware.send(TO, f"{number}")) for number in range(12)]
            assert await world.wait(gate.wait_for, 3)
            gate.open()
        assert {job.result().id for job in jobs} == {f"receipt-{number}" for number in range(1, 13)}
        assert (3, 3) == (gate.most, server.connections)


async def test_many_at_once(world: World) -> None:
    """A hundred sends at once are all received, each once."""
    with FaultServer() as server:
        async with world.client(server) as cloudware:
            await world.together(*(lambda number=number: cloudware.send(TO, f"{number}") for number in range(100)))
        assert {f"{number}" for number in range(100)} == set(texts(server))
        assert 100 == len(server.ledger)


async def test_cookies_are_not_kept(world: World) -> None:
    """A cookie that the server sets is never sent back."""

    def make(request: Received, _: str) -> bytes:
        body = receipt("one") if request.method == "POST" else b'{"data": []}'
        return answer(body, 200, b"Set-Cookie: session=1; Path=/", b"Set-Cookie: other=2; Path=/; Max-Age=1000")

    with serving(make) as server:
        async with world.client(server) as cloudware:
            for client in (cloudware, cloudware.with_options(access_token="other")):
                await client.send(TO, "Hello")
                await client.queue(TO, "Hello")
                await gather(client.messages())
        assert 6 == len(server.ledger)
        assert not [value for request in server.ledger for value in request.header("cookie")]


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_redirect_is_not_followed(world: World, status: int) -> None:
    """A redirect is an error; whom it names gets neither token nor text, be it a stranger or the same host."""
    with FaultServer() as stranger, FaultServer() as server:
        for target in (stranger.base_url, "{base_url}"):
            redirect: Act = (ReadRequest(), Answer(b"", status, (f"Location: {target}/sms/send".encode(),)))
            with FaultServer(Script(then=redirect)) as server:  # noqa: PLW2901 (the outer one is the ordinary service)
                async with world.client(server) as cloudware:
                    with pytest.raises(APIStatusError, match="redirect") as caught:
                        await cloudware.send(TO, "Hello")
                    assert (status, True, 1) == (
                        caught.value.status_code,
                        caught.value.may_have_been_sent,
                        caught.value.attempts,
                    )
                    with pytest.raises(APIStatusError, match="redirect") as caught:
                        await gather(cloudware.messages())
                    assert (status, False) == (caught.value.status_code, caught.value.may_have_been_sent)
                assert ["POST", "GET"] == [request.method for request in server.ledger]
        assert 0 == stranger.connections


# ----------------------------------------------------------------------------------------------------
# Errors

STATUSES = [
    (400, "BadRequestError", False),
    (401, "AuthenticationError", False),
    (402, "APIStatusError", False),
    (403, "PermissionDeniedError", False),
    (404, "NotFoundError", False),
    (405, "APIStatusError", False),
    (408, "APIStatusError", True),
    (409, "ConflictError", True),
    (413, "APIStatusError", False),
    (418, "APIStatusError", False),
    (422, "UnprocessableEntityError", False),
    (425, "APIStatusError", False),
    (429, "RateLimitError", False),
    (499, "APIStatusError", False),
    (500, "ServerError", True),
    (502, "ServerError", True),
    (503, "ServerError", True),
    (504, "ServerError", True),
    (599, "ServerError", True),
    (300, "APIStatusError", True),
    (304, "APIStatusError", True),
    (600, "APIStatusError", True),
]


@pytest.mark.parametrize(("status", "name", "may_have_been_sent"), STATUSES)
async def test_status(world: World, status: int, name: str, may_have_been_sent: bool) -> None:
    """Each status is its error, which says whether the text may have gone out, and shows the answer."""
    body = b'{"error": "no"}' if status != 304 else b""
    headers = (b"X-Request-Id: r-1", b"Date: Mon, 02 Nov 2026 10:00:00 GMT", b"X-Other: hidden")
    with FaultServer(Script(then=(ReadRequest(), Send(answer(body, status, *headers))))) as server:
        async with world.client(server, retry=None) as cloudware:
            for via in (cloudware.send, cloudware.queue):
                with pytest.raises(APIStatusError) as caught:
                    await via(TO, "Hello")
                error = caught.value
                assert (name, may_have_been_sent) == (type(error).__name__, error.may_have_been_sent)
                assert (status, body.decode(), None, 1) == (
                    error.status_code,
                    error.body,
                    error.retry_after,
                    error.attempts,
                )
                assert {
                    "content-type": "application/json",
                    "date": "Mon, 02 Nov 2026 10:00:00 GMT",
                    "x-request-id": "r-1",
                } == error.headers
                assert f"HTTP {status}" in str(error)
            with pytest.raises(APIStatusError) as caught:
                await gather(cloudware.messages())
            assert (name, False) == (type(caught.value).__name__, caught.value.may_have_been_sent)
        assert 3 == len(server.ledger)


@pytest.mark.parametrize(("status", "name"), [(status, name) for status, name, _ in STATUSES if status != 304])
def test_status_errors_are_public(status: int, name: str) -> None:
    """Each class that a status is raised as can be imported."""
    assert issubclass(getattr(cloudware_async, name), CloudwareError)


@pytest.mark.parametrize("status", [400, 401, 403, 404, 409, 422, 500, 503])
async def test_send_is_not_repeated_after_status(world: World, status: int) -> None:
    """With the default policy, an answer that is no refusal is raised at once: one request."""
    with FaultServer(Script(((ReadRequest(), Answer(b"{}", status)),))) as server:
        async with world.client(server) as cloudware:
            with pytest.raises(APIStatusError) as caught:
                await cloudware.send(TO, "Hello")
        assert (1, 1) == (len(server.ledger), caught.value.attempts)


async def test_wrong_token(world: World) -> None:
    """A 401 says which setting to look at, and neither shows the token nor repeats the send."""
    with FaultServer(Script(then=(ReadRequest(), Answer(b'{"error": "bad token test-token"}', 401)))) as server:
        async with world.client(server) as cloudware:
            with pytest.raises(AuthenticationError, match="CLOUDWARE_ACCESS_TOKEN") as caught:
                await cloudware.send(TO, "Hello")
        assert 1 == len(server.ledger)
    assert not caught.value.may_have_been_sent
    assert TOKEN not in f"{caught.value!r}{caught.value}{caught.value.body}"


async def test_error_shows_nothing_private(world: World) -> None:
    """What the service echoes of token, number and text is taken out of the error."""
    echo = json.dumps({"to": TO, "text": "a private matter", "token": TOKEN}).encode()
    with FaultServer(Script(then=(ReadRequest(), Answer(echo, 422, (f"X-Request-Id: {TO}".encode(),))))) as server:
        async with world.client(server) as cloudware:
            with pytest.raises(APIStatusError) as caught:
                await cloudware.send("+234 801 234 5678", "a private matter")
    error = caught.value
    shown = f"{error!r}{error}{error.body}{error.headers}{error.__cause__!r}{error.__context__!r}"
    assert not [private for private in (TO, "a private matter", TOKEN) if private in shown]


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"OK",
        b"<html><body>It works!</body></html>",
        b"null",
        b"true",
        b"5",
        b'"success"',
        b"[]",
        b"{}",
        b'{"status": "error"}',
        b'{"status": null, "data": {}}',
        b'{"status": "Success", "data": {}}',
        b'{"error": "no"}',
        b'{"data": []}',
        b'{"data": {"id": "1"}, "status": "succ',
        b'{"data": {"id": "1"}, "status": "success"} {}',
        b"\xff\xfe{}",
        b'{"data": NaN, "status": "success"}',
        b"[" * 100_000,
        b'{"status": "success", "data": ' + b"9" * 10_000 + b"}",
    ],
    ids=lambda body: repr(body)[:24],
)
@pytest.mark.parametrize("via", ["send", "queue"])
async def test_unreadable_success(world: World, via: str, body: bytes) -> None:
    """A 200 that does not say that the text was accepted is an `APIResponseError` and unknown, and not repeated."""
    with FaultServer(Script(then=(ReadRequest(), Send(answer(body))))) as server:
        async with world.client(server) as cloudware:
            with pytest.raises(APIResponseError) as caught:
                await getattr(cloudware, via)(TO, "Hello")
        assert 1 == len(server.ledger)
    assert (True, 1) == (caught.value.may_have_been_sent, caught.value.attempts)


@pytest.mark.parametrize(
    "body",
    [
        b'{"status": "success"}',
        b'{"data": {}}',
        b'{"data": {"id": 5, "created_at": "soon"}}',
        b'\xef\xbb\xbf{"data": {}}',
    ],
)
async def test_tolerated_success(world: World, body: bytes) -> None:
    """A receipt is read tolerantly: the text is out."""
    with FaultServer(Script(then=(ReadRequest(), Send(answer(body, 201))))) as server:
        async with world.client(server) as cloudware:
            result = await cloudware.send(TO, "Hello")
    assert result.id in (None, "5")


BROKEN: dict[str, Act] = {
    "closed at the first byte": (AwaitRequest(), Close()),
    "closed after the head": (ReadHead(), Close()),
    "closed before the answer": (ReadRequest(), Close()),
    "reset before the answer": (ReadRequest(), Reset()),
    "half a status line": (ReadRequest(), Send(b"HTTP/1.1 2"), Close()),
    "half a head": (ReadRequest(), Send(b"HTTP/1.1 200 OK\r\nContent-"), Close()),
    "half a body": (ReadRequest(), Send(answer(receipt("x"))[:-10]), Close()),
    "reset in the body": (ReadRequest(), Send(answer(receipt("x"))[:-10]), Reset()),
    "half a chunk": (ReadRequest(), Send(head(200, b"Transfer-Encoding: chunked") + b"9\r\n{}"), Close()),
    "no HTTP": (ReadRequest(), Send(b"SSH-2.0-OpenSSH_9.6\r\n"), Close()),
}


@pytest.mark.parametrize("act", BROKEN.values(), ids=BROKEN)
async def test_broken_connection(world: World, act: Act) -> None:
    """A connection that breaks after a byte was written leaves a send unknown, and the send is not repeated."""
    with FaultServer(Script((act,))) as server:
        async with world.client(server) as cloudware:
            with pytest.raises(APIConnectionError, match="may have gone out") as caught:
                await cloudware.send(TO, "Hello")
            assert (True, 1) == (caught.value.may_have_been_sent, caught.value.attempts)
            await cloudware.send(TO, "Hello again")
        assert "Hello again" in texts(server)
        assert len(server.ledger) <= 2
    assert (None, None) == (caught.value.__cause__, caught.value.__context__)


@pytest.mark.parametrize("act", BROKEN.values(), ids=BROKEN)
async def test_broken_connection_of_a_read(world: World, act: Act) -> None:
    """A read whose connection breaks is tried again, and gives up after `max_attempts`."""
    with FaultServer(Script((act,))) as server:
        async with world.client(server) as cloudware:
            assert 1 == len(await gather(cloudware.messages()))
    with FaultServer(Script(then=act)) as server:
        async with world.client(server) as cloudware:
            with pytest.raises(APIConnectionError) as caught:
                await gather(cloudware.messages())
    assert (False, 3) == (caught.value.may_have_been_sent, caught.value.attempts)


async def test_answer_over_its_cap(world: World) -> None:
    """An endless answer to a send is cut off at the cap, and unknown."""
    script = Script(then=(ReadRequest(), Send(head(200)), Repeat(b"x" * 65536)))
    with FaultServer(script) as server, within(PATIENCE):
        async with world.client(server) as cloudware:
            with pytest.raises(APIResponseError, match="too large") as caught:
                await cloudware.send(TO, "Hello")
    assert caught.value.may_have_been_sent


# ----------------------------------------------------------------------------------------------------
# Retries


@pytest.mark.parametrize("via", ["send", "queue"])
@pytest.mark.parametrize("status", [425, 429, 503])
async def test_refusal_is_tried_again(world: World, status: int, via: str) -> None:
    """A send that the server refused for now is tried again, and the same text is accepted then."""
    refusal: Act = (ReadRequest(), Answer(b"", status, (b"Retry-After: 0",)))
    with FaultServer(Script((refusal, refusal))) as server:
        async with world.client(server) as cloudware:
            result = await getattr(cloudware, via)(TO, "Hello")
        assert "receipt-3" == result.id
        assert ["Hello"] * 3 == texts(server)
        assert 1 == len({request.body for request in server.ledger})


async def test_refusals_have_an_end(world: World) -> None:
    """After `max_attempts` refusals the last one is raised, with `retry_after` and the number of attempts."""
    with FaultServer(Script(then=(ReadRequest(), Answer(b"", 429, (b"Retry-After: 0",))))) as server:
        async with world.client(server) as cloudware:
            with pytest.raises(RateLimitError) as caught:
                await cloudware.send(TO, "Hello")
        assert 3 == len(server.ledger) == caught.value.attempts
    assert (False, 0.0, "0") == (
        caught.value.may_have_been_sent,
        caught.value.retry_after,
        caught.value.headers["retry-after"],
    )


async def test_no_retry(world: World) -> None:
    """`retry=None` is one attempt, also for a read."""
    with FaultServer(Script(then=(ReadRequest(), Answer(b"", 429, (b"Retry-After: 0",))))) as server:
        async with world.client(server, retry=None) as cloudware:
            with pytest.raises(RateLimitError) as caught:
                await cloudware.send(TO, "Hello")
            assert (1, 1) == (len(server.ledger), caught.value.attempts)
            with pytest.raises(RateLimitError) as caught:
                await gather(cloudware.messages())
            assert (2, 1) == (len(server.ledger), caught.value.attempts)


async def test_retry_after_is_waited_for(world: World) -> None:
    """The next attempt comes no earlier than `Retry-After` asked."""
    with FaultServer(Script(((ReadRequest(), Answer(b"", 429, (b"Retry-After: 1",))),))) as server:
        async with world.client(server) as cloudware:
            await cloudware.send(TO, "Hello")
        first, second = server.ledger
        assert 1.0 <= second.at - first.at < 1.0 + GRACE


async def test_retry_after_as_a_date(world: World) -> None:
    """A date in `Retry-After` is measured against the answer's own `Date`."""
    headers = (b"Date: Mon, 02 Nov 2026 10:00:00 GMT", b"Retry-After: Mon, 02 Nov 2026 10:00:01 GMT")
    with FaultServer(Script(((ReadRequest(), Answer(b"", 503, headers)),))) as server:
        async with world.client(server) as cloudware:
            await cloudware.send(TO, "Hello")
        first, second = server.ledger
        assert 1.0 <= second.at - first.at < 1.0 + GRACE


@pytest.mark.parametrize("seconds", [b"3600", b"9" * 5000])
async def test_retry_after_beyond_the_timeout(world: World, seconds: bytes) -> None:
    """A `Retry-After` longer than what is left fails at once, and the error says how long it asks to wait."""
    with FaultServer(Script(then=(ReadRequest(), Answer(b"", 429, (b"Retry-After: " + seconds,))))) as server:
        async with world.client(server) as cloudware:
            with pytest.raises(RateLimitError, match="asks to wait") as caught, within(1):
                await cloudware.send(TO, "Hello")
        assert 1 == len(server.ledger)
    assert caught.value.retry_after is not None
    assert caught.value.retry_after >= 3600


@pytest.mark.parametrize("value", [b"-1", b"1.5", b"nan", b"1e3", b"soon", b"", b"1_0", b"0, 5", "٣".encode()])
async def test_malformed_retry_after(world: World, value: bytes) -> None:
    """A 503 whose `Retry-After` is malformed is as one without: unknown, and not repeated."""
    with FaultServer(Script(then=(ReadRequest(), Answer(b"", 503, (b"Retry-After: " + value,))))) as server:
        async with world.client(server) as cloudware:
            with pytest.raises(ServerError) as caught:
                await cloudware.send(TO, "Hello")
        assert 1 == len(server.ledger)
    assert (None, True) == (caught.value.retry_after, caught.value.may_have_been_sent)


async def test_no_connection(world: World) -> None:
    """Where nobody listens nothing was sent, and it is tried `max_attempts` times."""
    with FaultServer(door="refused") as server:
        async with world.client(server) as cloudware:
            for call in (
                lambda: cloudware.send(TO, "Hello"),
                lambda: cloudware.queue(TO, "Hello"),
                lambda: gather(cloudware.messages()),
            ):
                with pytest.raises(APIConnectionError, match="Could not connect") as caught:
                    await call()
                assert (False, 3) == (caught.value.may_have_been_sent, caught.value.attempts)
                assert APIConnectionError is type(caught.value)


async def test_no_such_host(world: World) -> None:
    """A name that is none is no connection either."""
    with FaultServer(door="nameless") as server:
        async with world.client(server, retry=None) as cloudware:
            with pytest.raises(APIConnectionError, match="Could not connect") as caught:
                await cloudware.send(TO, "Hello")
    assert (False, 1) == (caught.value.may_have_been_sent, caught.value.attempts)


@define
class Recorder(RetryPolicy):
    """A policy of a user's own, which tells what it was asked."""

    asked: list[tuple[int, CloudwareError, float]] = field(factory=list, eq=False)
    says: Any = field(default=0.0, eq=False)

    def delay(self, attempt: int, failure: CloudwareError, elapsed: float) -> float | None:
        self.asked.append((attempt, failure, elapsed))
        return self.says() if callable(self.says) else self.says


async def test_server_that_comes_back(world: World) -> None:
    """A send that found nobody goes out once somebody listens again."""
    server = FaultServer()  # bound, and listening only once it is entered
    policy = Recorder(says=lambda: server.__enter__() and 0.0)
    try:
        async with world.client(server, retry=policy) as cloudware:
            await cloudware.send(TO, "Hello")
        assert ["Hello"] == texts(server)
    finally:
        server.close()
    assert [(1, "APIConnectionError")] == [(attempt, type(failure).__name__) for attempt, failure, _ in policy.asked]


async def test_policy_of_ones_own(world: World) -> None:
    """An overridden `delay` is asked after each refusal, with the attempt, the failure and the time."""
    policy = Recorder(max_attempts=4)
    with FaultServer(Script(then=(ReadRequest(), Answer(b"", 429)))) as server:
        async with world.client(server, retry=policy) as cloudware:
            with pytest.raises(RateLimitError) as caught:
                await cloudware.send(TO, "Hello")
        assert 4 == len(server.ledger) == caught.value.attempts
    assert [1, 2, 3] == [attempt for attempt, _, _ in policy.asked]
    assert all(isinstance(failure, RateLimitError) for _, failure, _ in policy.asked)
    elapsed = [elapsed for _, _, elapsed in policy.asked]
    assert sorted(elapsed) == elapsed
    assert 0 <= elapsed[0]
    assert elapsed[-1] < PATIENCE


async def test_policy_that_gives_up(world: World) -> None:
    """An overridden `delay` that gives None ends it."""
    policy = Recorder(says=None)
    with FaultServer(Script(then=(ReadRequest(), Answer(b"", 429)))) as server:
        async with world.client(server, retry=policy) as cloudware:
            with pytest.raises(RateLimitError):
                await cloudware.send(TO, "Hello")
        assert (1, 1) == (len(server.ledger), len(policy.asked))


async def test_policy_is_not_asked_about_the_unknown(world: World) -> None:
    """An overridden `delay` cannot repeat a send that may have gone out, or that was rejected."""
    policy = Recorder()
    acts: tuple[Act, ...] = (
        (ReadRequest(), Close()),
        (ReadRequest(), Answer(b"", 500)),
        (ReadRequest(), Answer(b"", 400)),
    )
    with FaultServer(Script(acts)) as server:
        async with world.client(server, retry=policy) as cloudware:
            for _ in acts:
                with pytest.raises(CloudwareError):
                    await cloudware.send(TO, "Hello")
        assert 3 == len(server.ledger)
    assert [] == policy.asked


@pytest.mark.parametrize("says", ["1", True, math.nan, [1], Decimal(1)], ids=repr)
async def test_policy_that_says_nonsense(world: World, says: Any) -> None:
    """An overridden `delay` that gives no seconds is a `ConfigurationError`; that an attempt was made is not forgotten."""
    with FaultServer(Script(then=(ReadRequest(), Answer(b"", 429)))) as server:
        async with world.client(server, retry=Recorder(says=says)) as cloudware:
            with pytest.raises(ConfigurationError, match="delay") as caught:
                await cloudware.send(TO, "Hello")
        assert 1 == len(server.ledger)
    assert (False, 1) == (caught.value.may_have_been_sent, caught.value.attempts)


def test_no_event_loop() -> None:
    """Where no event loop runs an async call says what to use."""
    cloudware = AsyncCloudware(TOKEN)
    with pytest.raises(ConfigurationError, match="no event loop"):
        cloudware.send(TO, "Hello").send(None)


async def test_closed_in_a_pause(world: World) -> None:
    """A client that is closed between two attempts says so, and that the first may have gone out."""
    paused = threading.Event()

    class Slow(RetryPolicy):
        def delay(self, attempt: int, failure: CloudwareError, elapsed: float) -> float:
            paused.set()
            return 0.3

    with FaultServer(Script(then=(ReadRequest(), Answer(b"", 500)))) as server:
        async with world.client(server, retry=Slow(resend_unknown=True)) as cloudware, world.crew() as crew:
            job = crew.start(lambda: cloudware.send(TO, "Hello"))
            assert await world.wait(paused.wait, PATIENCE)
            await cloudware.aclose()
        assert 1 == len(server.posts)
    error = job.error
    assert isinstance(error, ConfigurationError)
    assert (True, 1) == (error.may_have_been_sent, error.attempts)
    assert "closed" in str(error)
    assert "may have gone out" in str(error)


@pytest.mark.parametrize("says", [-5, math.inf, 1e300, 10**400], ids=lambda value: repr(value)[:12])
async def test_policy_that_exaggerates(world: World, says: Any) -> None:
    """A `delay` before now is now, and one beyond the timeout fails at once."""
    with FaultServer(Script(then=(ReadRequest(), Answer(b"", 429)))) as server:
        async with world.client(server, retry=Recorder(says=says)) as cloudware:
            with pytest.raises(RateLimitError), within(PATIENCE):
                await cloudware.send(TO, "Hello")
        assert (3 if says == -5 else 1) == len(server.ledger)


async def test_policy_that_raises(world: World) -> None:
    """What an overridden `delay` raises is behind an error that tells whether the text may have gone out."""

    def fail() -> None:
        raise LookupError("mine")

    with FaultServer(Script(((ReadRequest(), Close()),), then=(ReadRequest(), Answer(b"", 429)))) as server:
        policy = Recorder(says=fail, resend_unknown=True)
        async with world.client(server, retry=policy) as cloudware:
            for may_have_been_sent in (True, False):
                with pytest.raises(ConfigurationError, match="raised LookupError") as caught:
                    await cloudware.send(TO, "Hello")
                assert isinstance(caught.value.__cause__, LookupError)
                assert caught.value.may_have_been_sent is may_have_been_sent


async def test_resend_unknown(world: World) -> None:
    """With `resend_unknown=True`, and only then, a send that may have gone out is repeated."""
    with FaultServer(Script(((ReadRequest(), Close()), (ReadRequest(), Answer(b"", 500))))) as server:
        async with world.client(server, retry=RetryPolicy(base_delay=0, resend_unknown=True)) as cloudware:
            result = await cloudware.send(TO, "Hello")
        assert (3, "receipt-3") == (len(server.ledger), result.id)


async def test_doubt_is_sticky(world: World) -> None:
    """Once an attempt may have gone out the call's error says so, whatever came last."""
    with FaultServer(Script(((ReadRequest(), Close()), (ReadRequest(), Answer(b"", 401))))) as server:
        async with world.client(server, retry=RetryPolicy(base_delay=0, resend_unknown=True)) as cloudware:
            with pytest.raises(AuthenticationError, match="earlier attempt") as caught:
                await cloudware.send(TO, "Hello")
    assert (True, 2) == (caught.value.may_have_been_sent, caught.value.attempts)


@pytest.mark.parametrize("status", [408, 425, 429, 500, 502, 503, 504])
async def test_read_is_tried_again(world: World, status: int) -> None:
    """A read is repeated after any failure that may pass."""
    failure: Act = (ReadRequest(), Answer(b"", status))
    with FaultServer(Script((failure, failure))) as server:
        async with world.client(server) as cloudware:
            assert 1 == len(await gather(cloudware.messages()))
        assert 3 == len(server.ledger)


@pytest.mark.parametrize("status", [400, 401, 403, 404, 409, 422])
async def test_read_is_not_tried_again(world: World, status: int) -> None:
    """A read that the server rejects is not repeated."""
    with FaultServer(Script(then=(ReadRequest(), Answer(b"", status)))) as server:
        async with world.client(server) as cloudware:
            with pytest.raises(APIStatusError):
                await gather(cloudware.messages())
        assert 1 == len(server.ledger)


async def test_outage_is_not_multiplied(world: World) -> None:
    """A client's retries run out in an outage, and its views share what is left."""
    with FaultServer(Script(then=(ReadRequest(), Answer(b"", 429)))) as server:
        async with world.client(server) as cloudware:
            for client in (cloudware, cloudware.with_options(from_="Shop")):
                for _ in range(10):
                    with pytest.raises(RateLimitError):
                        await client.send(TO, "Hello")
        assert 20 + 10 == len(server.ledger)


# ----------------------------------------------------------------------------------------------------
# Time

SLOW: dict[str, Act] = {
    "hangs at accept": (Hang(),),
    "hangs in the request": (ReadSome(50), Hang()),
    "hangs before the answer": (ReadRequest(), Hang()),
    "hangs in the head": (ReadRequest(), Send(b"HTTP/1.1 200 OK\r\nContent-"), Hang()),
    "hangs in the body": (ReadRequest(), Send(answer(receipt("x"))[:-10]), Hang()),
    "trickles the status line": (ReadRequest(), Trickle(b"HTTP/1.1 200 " + b"O" * 1000)),
    "trickles headers": (ReadRequest(), Send(b"HTTP/1.1 200 OK\r\n"), Trickle(b"X-Slow: 1\r\n" * 1000)),
    "trickles the body": (ReadRequest(), Send(head(200, b"Content-Length: 5000")), Trickle(b" " * 5000)),
    "trickles chunks": (
        ReadRequest(),
        Send(head(200, b"Transfer-Encoding: chunked")),
        Repeat(b"1\r\n \r\n", pause=0.05),
    ),
    "trickles an endless body": (ReadRequest(), Send(head(200)), Repeat(b" ", pause=0.05)),
    "goes on to continue": (ReadRequest(), Repeat(head(100), pause=0.05)),
}


@pytest.mark.parametrize("act", SLOW.values(), ids=SLOW)
async def test_timeout(world: World, act: Act) -> None:
    """However the server dawdles, a call ends by its timeout; a send is then unknown."""
    with FaultServer(Script(then=act)) as server:
        async with world.client(server, timeout=0.4) as cloudware:
            with pytest.raises(APITimeoutError, match="may have gone out") as caught, within(0.4 + GRACE):
                await cloudware.send(TO, "Hello")
            assert isinstance(caught.value, TimeoutError)
            assert (True, 1) == (caught.value.may_have_been_sent, caught.value.attempts)
            with pytest.raises(APITimeoutError) as caught, within(0.4 + GRACE):
                await gather(cloudware.messages())
            assert not caught.value.may_have_been_sent
        assert len(server.ledger) <= 2
    assert (None, None) == (caught.value.__cause__, caught.value.__context__)


async def test_timeout_on_a_kept_connection(world: World) -> None:
    """The timeout holds on a connection that served before, and the next call gets a new one."""
    slow: Act = (ReadRequest(), Trickle(b"HTTP/1.1 200 OK\r\n" + b"X: 1\r\n" * 1000))
    with FaultServer(Script((HEALTHY, slow))) as server:
        async with world.client(server, timeout=0.4) as cloudware:
            await cloudware.send(TO, "1")
            with pytest.raises(APITimeoutError), within(0.4 + GRACE):
                await cloudware.send(TO, "2")
            await cloudware.send(TO, "3")
        assert [1, 1, 2] == [request.connection for request in server.ledger]


async def test_timeout_of_a_write(world: World) -> None:
    """A server that reads nothing of a long text holds a send up no longer than its timeout."""
    with FaultServer(Script(then=(ReadSome(1), Hang()))) as server:
        async with world.client(server, timeout=0.4) as cloudware:
            with pytest.raises(APITimeoutError) as caught, within(0.4 + GRACE):
                await cloudware.send(TO, "x" * 30_000_000)
        assert [] == server.ledger
    assert caught.value.may_have_been_sent


async def test_connect_timeout(world: World) -> None:
    """A connection that is never completed ends by `connect_timeout`; nothing was sent."""
    with FaultServer(door="full") as server:
        async with world.client(server, connect_timeout=0.3, retry=None) as cloudware:
            with pytest.raises(APITimeoutError, match="connect_timeout") as caught, within(0.3 + GRACE):
                await cloudware.send(TO, "Hello")
    assert (False, 1) == (caught.value.may_have_been_sent, caught.value.attempts)


async def test_timeout_bounds_connecting(world: World) -> None:
    """`timeout` bounds a `connect_timeout` that is longer, over all attempts."""
    with FaultServer(door="full") as server:
        async with world.client(server, timeout=0.4, connect_timeout=60) as cloudware:
            with pytest.raises(APITimeoutError) as caught, within(0.4 + GRACE):
                await cloudware.send(TO, "Hello")
    assert not caught.value.may_have_been_sent


async def test_timeout_is_over_all_attempts(world: World) -> None:
    """However often a server refuses, the attempts and the pauses between them end by the timeout."""
    policy = RetryPolicy(max_attempts=10**6, throttled_delay=0.01)
    slow: Act = (ReadRequest(), Trickle(answer(b"", 429), pause=0.004))
    with FaultServer(Script(then=slow)) as server:
        async with world.client(server, timeout=0.8, retry=policy) as cloudware:
            with pytest.raises((RateLimitError, APITimeoutError)) as caught, within(0.8 + GRACE):
                await cloudware.send(TO, "Hello")
        assert caught.value.attempts >= 1


@pytest.mark.worlds(*OWN, reason="aiohttp does not tell waiting for a connection from making one")
async def test_timeout_while_waiting_for_a_connection(world: World) -> None:
    """Waiting for a connection counts; nothing was sent, and the error says what to change."""
    with FaultServer(Script(((ReadRequest(), Hang()),))) as server:
        async with world.client(server, max_connections=1, timeout=1.5) as cloudware, world.crew() as crew:
            job = crew.start(lambda: cloudware.send(TO, "first"))
            assert await world.wait(server.wait_for, 1)
            with pytest.raises(APITimeoutError, match="max_connections") as caught, within(0.3 + GRACE):
                await cloudware.with_options(timeout=0.3).send(TO, "second")
        assert isinstance(job.error, APITimeoutError)
        assert ["first"] == texts(server)
    assert not caught.value.may_have_been_sent


# CPython's sockets wait for so many milliseconds modulo 2**32: these are seven weeks and half a second
@pytest.mark.parametrize("seconds", [10**6, 2**32 / 1000 + 0.5, 10**12, 1e300])
async def test_long_timeout(world: World, seconds: float) -> None:
    """A timeout of weeks or ages is one like any other."""
    with FaultServer(Script(((ReadRequest(), Pause(0.8), Healthy()),))) as server:
        async with world.client(server, timeout=seconds, connect_timeout=seconds, max_connections=1) as cloudware:
            await world.together(*(lambda: cloudware.send(TO, "Hello") for _ in range(4)))
            assert 1 == len(await gather(cloudware.messages()))


async def test_answer_that_comes_slowly_but_in_time(world: World) -> None:
    """An answer in small pieces is read, if it is whole in time."""
    with FaultServer(Script(then=(ReadRequest(), Trickle(answer(receipt("slow")), pause=0.001)))) as server:
        async with world.client(server) as cloudware:
            assert "slow" == (await cloudware.send(TO, "Hello")).id


# ----------------------------------------------------------------------------------------------------
# Its end


async def test_close_twice(world: World) -> None:
    """Closing ends the connections, and closing again does no harm."""
    with FaultServer() as server:
        cloudware = world.client(server)
        await cloudware.aclose()
        cloudware = world.client(server)
        await world.together(*(lambda: cloudware.send(TO, "Hello") for _ in range(5)))
        await cloudware.aclose()
        assert await world.wait(server.wait_for_ended, server.connections)
        await cloudware.aclose()
        async with cloudware:
            pass


async def test_use_after_close(world: World) -> None:
    """A closed client sends nothing and says that it is closed."""
    with FaultServer() as server:
        async with world.client(server) as cloudware:
            view = cloudware.with_options(from_="Shop")
            pager = cloudware.messages()
        for call in (
            lambda: cloudware.send(TO, "Hello"),
            lambda: cloudware.queue(TO, "Hello"),
            lambda: cloudware.send_many([Draft(TO, "Hello")]),
            lambda: gather(cloudware.messages()),
            lambda: gather(pager),
            lambda: gather(pager.pages()),
            lambda: view.send(TO, "Hello"),
            lambda: cloudware.with_options().send(TO, "Hello"),
        ):
            with pytest.raises(ConfigurationError, match="closed") as caught:
                await call()
            assert not caught.value.may_have_been_sent
        assert (0, []) == (server.connections, server.ledger)


async def test_exception_in_the_block(world: World) -> None:
    """What is raised inside `async with` leaves as itself, and the client is closed."""
    with FaultServer() as server:
        with pytest.raises(LookupError, match="mine"):
            async with world.client(server) as cloudware:
                await cloudware.send(TO, "Hello")
                raise LookupError("mine")
        assert await world.wait(server.wait_for_ended, 1)


@pytest.mark.worlds("asyncio", "trio", reason="elsewhere httpx makes no generator of a body")
async def test_a_failed_write_leaves_no_generator(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a write fails, no generator is left to the garbage collector, of which trio would complain."""

    async def fail(_: object) -> None:
        raise httpcore.WriteError

    monkeypatch.setattr(_backend_httpx_async._AsyncStream, "_flush", fail)
    with FaultServer() as server:
        async with world.client(server, retry=None) as cloudware:
            for call in (lambda: gather(cloudware.messages()), lambda: cloudware.send(TO, "Hello")):
                with pytest.raises(APIConnectionError):
                    await call()
    gc.collect()


@pytest.mark.worlds(*OWN, reason="closing a session is its user's affair")
async def test_close_lets_requests_end(world: World) -> None:
    """A request under way when the client is closed ends as if nothing were; then its connection is closed."""
    gate = Gate()
    with held(gate) as server, gate:
        cloudware = world.client(server)
        async with world.crew() as crew:
            job = crew.start(lambda: cloudware.send(TO, "Hello"))
            assert await world.wait(gate.wait_for, 1)
            await cloudware.aclose()
            gate.open()
        assert "receipt-1" == job.result().id
        assert await world.wait(server.wait_for_ended, 1)


# Views


async def test_view_of_a_subclass(world: World) -> None:
    """A view has what a class of the user's own adds."""
    kind = Cloudware if world.is_blocking else AsyncCloudware

    class Mine(kind):  # type: ignore[misc,valid-type]
        def __init__(self, name: str) -> None:
            super().__init__(TOKEN)
            self.name = name

    view = Mine("mine").with_options(timeout=3)
    assert isinstance(view, Mine)
    assert "mine" == view.name


async def test_view_has_other_settings(world: World) -> None:
    """A view has its own token, sender, timeout and policy; what is not given it takes from its client."""
    with FaultServer() as server:
        async with world.client(server, from_="Shop") as cloudware:
            view = cloudware.with_options(access_token="other", from_=None)
            await view.send(TO, "1")
            await view.with_options(from_="Deep").send(TO, "2")
            await cloudware.send(TO, "3")
            await cloudware.with_options(from_="Third").queue(TO, "4")
            await gather(view.messages())
        assert ["other", "other", TOKEN, TOKEN, "other"] == [
            value.removeprefix("Bearer ") for value in server.authorizations
        ]
        assert [None, "Deep", "Shop", "Third"] == [json.loads(request.body).get("from") for request in server.posts]
        assert 1 == server.connections


async def test_view_has_its_own_time_and_policy(world: World) -> None:
    """`timeout` and `retry` of a view are its own."""
    refusal: Act = (ReadRequest(), Answer(b"", 429, (b"Retry-After: 0",)))
    with FaultServer(Script((refusal, refusal, HEALTHY, (ReadRequest(), Hang())))) as server:
        async with world.client(server) as cloudware:
            with pytest.raises(RateLimitError) as caught:
                await cloudware.with_options(retry=None).send(TO, "1")
            assert 1 == caught.value.attempts
            await cloudware.send(TO, "2")
            with pytest.raises(APITimeoutError), within(0.3 + GRACE):
                await cloudware.with_options(timeout=0.3, retry=None).send(TO, "4")
        assert 4 == len(server.ledger)


async def test_view_owns_nothing(world: World) -> None:
    """Closing a view closes nothing, and it works until its client is closed."""
    with FaultServer() as server:
        async with world.client(server) as cloudware:
            async with cloudware.with_options(from_="Shop") as view:
                await view.send(TO, "1")
            await view.aclose()
            await view.send(TO, "2")
            await cloudware.send(TO, "3")
            assert 1 == server.connections
        with pytest.raises(ConfigurationError, match="closed"):
            await view.send(TO, "4")
        assert ["1", "2", "3"] == texts(server)


@pytest.mark.parametrize(
    "options",
    [
        {"access_token": ""},
        {"access_token": None},
        {"access_token": "two words"},
        {"from_": ""},
        {"from_": 5},
        {"timeout": None},
        {"timeout": 0},
        {"timeout": math.nan},
        {"timeout": 10**400},
        {"retry": 3},
        {"retry": False},
    ],
    ids=lambda options: repr(options)[:30],
)
async def test_bad_view(world: World, options: dict[str, Any]) -> None:
    """A view's settings are checked as a client's are."""
    with pytest.raises(ConfigurationError):
        world.make(TOKEN).with_options(**options)


async def test_view_takes_no_other_options(world: World) -> None:
    """What belongs to the connections is not a view's to change."""
    for options in ({"base_url": "http://127.0.0.1:1"}, {"max_connections": 1}, {"http_client": None}):
        with pytest.raises(TypeError):
            world.make(TOKEN).with_options(**options)


# ----------------------------------------------------------------------------------------------------
# Event loops


def test_second_event_loop() -> None:
    """An async client that worked in one loop says in another, before anything is sent, that it belongs to the first."""
    with FaultServer() as server:
        cloudware = AsyncCloudware(TOKEN, base_url=server.base_url)

        async def first() -> None:
            await cloudware.send(TO, "1")
            await cloudware.aclose()

        async def second() -> None:
            with pytest.raises(ConfigurationError) as caught:
                await cloudware.send(TO, "2")
            assert not caught.value.may_have_been_sent

        asyncio.run(first())
        asyncio.run(second())
        trio.run(second)
        assert ["1"] == texts(server)


@pytest.mark.parametrize("run", [asyncio.run, lambda coroutine: trio.run(lambda: coroutine)], ids=["asyncio", "trio"])
def test_second_event_loop_while_open(run: Any) -> None:
    """So too while the client is open: a send, a listing and a bulk from a second loop are refused in one sentence."""
    with FaultServer() as server:

        async def main() -> None:
            async with AsyncCloudware(TOKEN, base_url=server.base_url) as cloudware:
                await cloudware.send(TO, "1")
                caught: list[BaseException] = []

                async def elsewhere() -> None:
                    for call in (
                        lambda: cloudware.send(TO, "2"),
                        lambda: gather(cloudware.messages()),
                        lambda: cloudware.send_many([Draft(TO, "3")]),
                    ):
                        try:
                            await call()
                        except BaseException as error:  # noqa: BLE001 (looked at below)
                            caught.append(error)

                thread = threading.Thread(target=lambda: asyncio.run(elsewhere()))
                thread.start()
                await anyio.to_thread.run_sync(thread.join)
                assert [ConfigurationError] * 3 == [type(error) for error in caught]
                assert "another event loop" in str(caught[0])
                assert "Cloudware" in str(caught[0])
                await cloudware.send(TO, "4")

        run(main())
        assert ["1", "4"] == texts(server)
        assert 1 == server.connections


def test_made_outside_an_event_loop() -> None:
    """A client may be made before there is a loop, and belongs to the one that first uses it."""
    with FaultServer() as server:
        cloudware = AsyncCloudware(TOKEN, base_url=server.base_url)

        async def main() -> None:
            async with cloudware:
                await cloudware.send(TO, "1")

        trio.run(main)
        assert ["1"] == texts(server)


def test_closed_without_a_use_belongs_to_no_loop() -> None:
    """A client that was never used can be closed in any loop."""
    cloudware = AsyncCloudware(TOKEN)
    asyncio.run(cloudware.aclose())
    trio.run(cloudware.aclose)


# what the first loop left open is warned of: that is the loop's own complaint
@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("first", ["asyncio", "trio"])
@pytest.mark.parametrize("second", ["asyncio", "trio"])
def test_closed_in_another_event_loop(first: str, second: str) -> None:
    """Closing in another loop than the one that was used closes, or is refused in one sentence; nothing breaks."""
    with FaultServer() as server:
        cloudware = AsyncCloudware(TOKEN, base_url=server.base_url)
        anyio.run(cloudware.send, TO, "1", backend=first)
        with contextlib.suppress(ConfigurationError):
            anyio.run(cloudware.aclose, backend=second)
        del cloudware
        gc.collect()
        assert server.wait_for_ended(1)


# ----------------------------------------------------------------------------------------------------
# Cancellation


@pytest.mark.worlds("asyncio", "trio", reason="nothing cancels a blocking call")
async def test_cancellation(world: World) -> None:
    """A call that is cancelled from outside ends at once with the loop's own exception, and the client works on."""
    hang: Act = (ReadRequest(), Hang())
    with FaultServer(Script((hang, HEALTHY, hang))) as server:
        async with world.client(server) as cloudware:
            with within(GRACE + 0.2), anyio.move_on_after(0.2) as scope:
                await cloudware.send(TO, "1")
            assert scope.cancelled_caught
            assert await world.wait(server.wait_for_ended, 1)
            await cloudware.send(TO, "2")
            with within(GRACE + 0.2), pytest.raises(TimeoutError) as caught:
                with anyio.fail_after(0.2):
                    await cloudware.send(TO, "3")
            assert not isinstance(caught.value, CloudwareError)
            await cloudware.send(TO, "4")
        assert ["1", "2", "3", "4"] == texts(server)


@pytest.mark.worlds("asyncio", reason="a task's own cancel() is asyncio's")
async def test_native_cancellation(world: World) -> None:
    """A task's `cancel()` and `asyncio.timeout` leave no connection behind, and lose none of the places for one."""
    script = Script(tuple((ReadRequest(), Hang()) for _ in range(8)))
    with FaultServer(script) as server:
        async with world.client(server, max_connections=2) as cloudware:
            for number in range(4):
                with pytest.raises(TimeoutError) as caught:
                    async with asyncio.timeout(0.05):
                        await cloudware.send(TO, "Hello")
                assert not isinstance(caught.value, CloudwareError)
                tasks = [asyncio.create_task(cloudware.send(TO, "Hello")) for _ in range(1)]
                assert await world.wait(server.wait_for, 2 * number + 2)
                for task in tasks:
                    task.cancel()
                assert [asyncio.CancelledError] == [
                    type(result) for result in await asyncio.gather(*tasks, return_exceptions=True)
                ]
            await asyncio.gather(*(cloudware.send(TO, "Hello") for _ in range(10)))
            assert await world.wait(server.wait_for_ended, 8)


@pytest.mark.worlds("asyncio", "trio", reason="nothing cancels a blocking call")
async def test_cancelled_before_it_began(world: World) -> None:
    """A call in a scope that is cancelled already sends nothing."""
    with FaultServer() as server:
        async with world.client(server) as cloudware:
            await cloudware.send(TO, "1")
            with anyio.CancelScope() as scope:
                scope.cancel()
                await cloudware.send(TO, "2")
            assert scope.cancelled_caught
            await cloudware.send(TO, "3")
        assert ["1", "3"] == texts(server)


async def test_time_is_counted_from_each_call(world: World) -> None:
    """A client's age is nothing to a call: each has its whole timeout."""
    gate = Gate()
    with held(gate) as server, gate:
        gate.open()
        async with world.client(server, timeout=1.0) as cloudware:
            began = time.monotonic()
            while time.monotonic() - began < 1.2:
                await cloudware.send(TO, "Hello")


async def test_pages_have_a_timeout_each(world: World) -> None:
    """A walk may last longer than `timeout`: each page has its own."""
    script = Script(then=(ReadRequest(), Pause(0.3), Reply(Book.of(1, 1, 1).answer)))
    with FaultServer(script) as server:
        async with world.client(server, timeout=0.7) as cloudware:
            assert 3 == len(await gather(cloudware.messages()))
        assert ["", "p1", "p2"] == asked(server)
