"""How a connection is made: proxies and certificates from the environment, and a client of the user's own."""

from __future__ import annotations

import base64
import contextlib
import gzip
import select
import socket
import ssl
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import aiohttp
import anyio.lowlevel
import httpx
import httpx2
import pytest
from fault_server import (
    HEALTHY,
    PATIENCE,
    Answer,
    Certificates,
    Close,
    FaultServer,
    Hang,
    ReadHead,
    ReadRequest,
    ReadSome,
    Repeat,
    Script,
    Send,
    answer,
    receipt,
)
from worlds import (
    GRACE,
    OWN,
    QUICK,
    TOKEN,
    Book,
    Gate,
    Reply,
    World,
    gather,
    held,
    ids,
    message,
    numbers,
    texts,
    within,
)

from cloudware_async import (
    APIConnectionError,
    APIResponseError,
    APIStatusError,
    APITimeoutError,
    CloudwareError,
    ConfigurationError,
    _backend_httpx,
    _backend_httpx_async,
    _backend_httpx_blocking,
)

pytestmark = pytest.mark.worlds(*OWN, reason="how a session of aiohttp's connects is its user's affair")

TO = "2348012345678"


class Proxy:
    """A forward proxy, real and small: what is asked of it is in `asked`, by its first line and headers."""

    def __init__(self, context: ssl.SSLContext | None = None, pace: float = 0) -> None:
        self.asked: list[bytes] = []
        self._context = context
        # seconds before each byte that goes to the client
        self._pace = pace
        self._closing = threading.Event()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._threads = [threading.Thread(target=self._accept, daemon=True)]
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self._threads[0].start()

    def _accept(self) -> None:
        while True:
            try:
                accepted, _ = self._listener.accept()
            except OSError:
                return
            thread = threading.Thread(target=self._serve, args=(accepted,), daemon=True)
            self._threads.append(thread)
            thread.start()

    def _serve(self, client: socket.socket) -> None:
        if self._context is not None:
            client = self._context.wrap_socket(client, server_side=True)
        with client:
            head = b""
            while b"\r\n\r\n" not in head:
                more = client.recv(65536)
                if not more:
                    return
                head += more
            self.asked.append(head)
            method, target, _ = head.split(b"\r\n", 1)[0].split(b" ")
            authority = target if method == b"CONNECT" else target.split(b"/")[2]
            host, _, port = authority.partition(b":")
            with socket.create_connection((host.decode(), int(port)), PATIENCE) as upstream:
                if method == b"CONNECT":
                    client.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
                else:
                    path = target.split(b"/", 3)[3]
                    upstream.sendall(head.replace(target, b"/" + path, 1))
                self._relay(client, upstream)

    def _relay(self, client: socket.socket, upstream: socket.socket) -> None:
        sides = {client: upstream, upstream: client}
        while not self._closing.is_set():
            for side in select.select(list(sides), [], [], 0.05)[0]:
                with contextlib.suppress(OSError):
                    if data := side.recv(65536):
                        while isinstance(side, ssl.SSLSocket) and side.pending():
                            data += side.recv(65536)
                        self._hand_on(data, sides[side], self._pace if side is upstream else 0)
                        continue
                return

    def _hand_on(self, data: bytes, side: socket.socket, pace: float) -> None:
        if not pace:
            side.sendall(data)
            return
        for byte in data:
            if self._closing.wait(pace):
                return
            side.sendall(bytes([byte]))

    def close(self) -> None:
        self._closing.set()
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for thread in self._threads:
            thread.join(PATIENCE)


@pytest.fixture
def proxy() -> Iterator[Proxy]:
    made = Proxy()
    yield made
    made.close()


@pytest.fixture
def trusted(certificates: Certificates, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Certificates:
    certificates.authority.cert_pem.write_to_path(str(tmp_path / "authority.pem"))
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "authority.pem"))
    return certificates


@pytest.mark.parametrize("name", ["HTTP_PROXY", "http_proxy", "ALL_PROXY"])
async def test_http_goes_through_the_environments_proxy(
    world: World, proxy: Proxy, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A plain request is handed to the proxy with its whole address."""
    if name == "HTTP_PROXY":
        monkeypatch.delenv("REQUEST_METHOD", raising=False)
    monkeypatch.setenv(name, proxy.url)
    with FaultServer() as server:
        async with world.client(server) as cloudware:
            assert "success" == (await cloudware.send(TO, "Hello")).status
        assert [True] == [server.base_url.encode() in asked for asked in proxy.asked]


@pytest.mark.parametrize("name", ["HTTPS_PROXY", "ALL_PROXY"])
async def test_https_goes_through_a_tunnel(
    world: World, proxy: Proxy, trusted: Certificates, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Over TLS the proxy is asked for a tunnel, and sees neither token nor text."""
    monkeypatch.setenv(name, proxy.url)
    with FaultServer(ssl_context=trusted.server_context()) as server:
        async with world.client(server) as cloudware:
            for _ in range(3):
                assert "success" == (await cloudware.send(TO, "Hello")).status
        assert 1 == server.connections
    assert [True] == [asked.startswith(b"CONNECT 127.0.0.1:") for asked in proxy.asked]
    assert TOKEN.encode() not in b"".join(proxy.asked)


async def test_a_proxys_own_user(world: World, proxy: Proxy, monkeypatch: pytest.MonkeyPatch) -> None:
    """User and password in the proxy's address go to the proxy."""
    monkeypatch.setenv("http_proxy", proxy.url.replace("//", "//user:word@"))
    with FaultServer() as server:
        async with world.client(server) as cloudware:
            await cloudware.send(TO, "Hello")
    assert b"Proxy-Authorization: Basic " + base64.b64encode(b"user:word") in proxy.asked[0]


@pytest.mark.parametrize("value", ["127.0.0.1", "*", "example.com,127.0.0.1"])
async def test_no_proxy(world: World, proxy: Proxy, value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What `NO_PROXY` names goes there directly."""
    monkeypatch.setenv("http_proxy", proxy.url)
    monkeypatch.setenv("NO_PROXY", value)
    with FaultServer() as server:
        async with world.client(server) as cloudware:
            assert "success" == (await cloudware.send(TO, "Hello")).status
    assert [] == proxy.asked


async def test_a_proxy_that_is_not_there(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing was sent."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{port}")
    with FaultServer() as server:
        async with world.client(server) as cloudware:
            with pytest.raises(APIConnectionError) as caught:
                await cloudware.send(TO, "Hello")
    assert (False, 3) == (caught.value.may_have_been_sent, caught.value.attempts)


async def test_ssl_cert_file(world: World, trusted: Certificates) -> None:
    """`SSL_CERT_FILE` says whom to trust."""
    with FaultServer(ssl_context=trusted.server_context()) as server:
        async with world.client(server) as cloudware:
            assert "success" == (await cloudware.send(TO, "Hello")).status


@pytest.mark.parametrize("trust", ["unknown-authority", "wrong-name", "expired"])
async def test_a_certificate_that_fails(world: World, trusted: Certificates, trust: Any) -> None:
    """Nothing was sent, and it is not tried again."""
    with FaultServer(ssl_context=trusted.server_context(trust)) as server:
        async with world.client(server) as cloudware:
            with pytest.raises(APIConnectionError, match="certificate") as caught:
                await cloudware.send(TO, "Hello")
        assert [] == server.posts
    assert (False, 1) == (caught.value.may_have_been_sent, caught.value.attempts)


@pytest.mark.parametrize("library", [httpx, httpx2], ids=["httpx", "httpx2"])
async def test_a_client_of_ones_own(world: World, library: Any) -> None:
    """It is used and not closed; its redirects are off, and the token is ours whatever `auth` it has."""
    moved = (ReadRequest(), Answer(b"", 302, (b"Location: {base_url}/elsewhere",)))
    with FaultServer(Script((moved,))) as server:
        http_client = world.http_client(library, auth=("user", "word"), follow_redirects=True, trust_env=False)
        async with world.make(TOKEN, base_url=server.base_url, http_client=http_client, retry=QUICK) as cloudware:
            with pytest.raises(APIStatusError) as caught:
                await cloudware.send(TO, "Hello")
            assert (302, True) == (caught.value.status_code, caught.value.may_have_been_sent)
            assert "success" == (await cloudware.send(TO, "Hello")).status
            assert 1 == len(await gather(cloudware.messages()))
        assert not http_client.is_closed
        assert {f"Bearer {TOKEN}"} == set(server.authorizations)
        assert ["/v1/sms/send", "/v1/sms/send", "/v1/sms/messages"] == [request.path for request in server.ledger]
        await http_client.aclose()
        async with world.make(TOKEN, base_url=server.base_url, http_client=http_client) as cloudware:
            with pytest.raises(ConfigurationError, match="closed"):
                await cloudware.send(TO, "Hello")


@pytest.mark.worlds("asyncio", reason="aiohttp runs on asyncio only")
async def test_an_aiohttp_session_of_ones_own(world: World) -> None:
    """It is used and not closed, follows no redirect, and raises nothing by itself."""
    moved = (ReadRequest(), Answer(b"", 302, (b"Location: {base_url}/elsewhere",)))
    with FaultServer(Script((moved,))) as server:
        async with aiohttp.ClientSession(raise_for_status=True) as session:
            async with world.make(TOKEN, base_url=server.base_url, http_client=session) as cloudware:
                with pytest.raises(APIStatusError) as caught:
                    await cloudware.send(TO, "Hello")
                assert 302 == caught.value.status_code
                assert "success" == (await cloudware.send(TO, "Hello")).status
                view = cloudware.with_options(access_token="other")
                assert 1 == len(await gather(view.messages(phone="+40722000000")))
            assert not session.closed
        assert "/v1/sms/messages?phone=%2B40722000000" == server.ledger[-1].path
        assert [f"Bearer {TOKEN}"] * 2 + ["Bearer other"] == server.authorizations
        async with world.make(TOKEN, base_url=server.base_url, http_client=session) as cloudware:
            with pytest.raises(ConfigurationError, match="closed"):
                await cloudware.send(TO, "Hello")


@pytest.mark.worlds("asyncio", reason="aiohttp runs on asyncio only")
async def test_aiohttp_repeats_a_read(world: World) -> None:
    """On a kept connection that ends without an answer aiohttp asks for a page again by itself."""
    with FaultServer(Script((HEALTHY, (ReadRequest(), Close())))) as server:
        async with (
            aiohttp.ClientSession() as session,
            world.client(server, http_client=session, retry=None) as cloudware,
        ):
            await cloudware.send(TO, "opens a connection")
            assert 1 == len(await gather(cloudware.messages()))
        assert ["POST", "GET", "GET"] == [request.method for request in server.ledger]


@pytest.mark.worlds("asyncio", reason="aiohttp runs on asyncio only")
async def test_aiohttp_never_repeats_a_send(world: World) -> None:
    """Where it would ask for a page again it does not post a text again: what became of it is unknown."""
    with FaultServer(Script((HEALTHY, (ReadRequest(), Close())))) as server:
        async with (
            aiohttp.ClientSession() as session,
            world.client(server, http_client=session, retry=None) as cloudware,
        ):
            await cloudware.send(TO, "opens a connection")
            with pytest.raises(APIConnectionError) as caught:
                await cloudware.send(TO, "Hello")
        assert caught.value.may_have_been_sent is True
        assert ["POST", "POST"] == [request.method for request in server.ledger]


@pytest.mark.worlds("asyncio", reason="aiohttp runs on asyncio only")
async def test_a_send_that_waits_for_a_connection_of_aiohttps(world: World) -> None:
    """A send that found no connection in time was not sent: aiohttp never began to write it."""
    with FaultServer(Script(((ReadRequest(), Hang()),))) as server:
        async with (
            aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=1)) as session,
            world.client(server, http_client=session, timeout=1.5) as cloudware,
            world.crew() as crew,
        ):
            job = crew.start(lambda: cloudware.send(TO, "first"))
            assert await world.wait(server.wait_for, 1)
            with pytest.raises(APITimeoutError) as caught:
                await cloudware.with_options(timeout=0.3).send(TO, "second")
        assert ["POST"] == [request.method for request in server.ledger]
    assert not caught.value.may_have_been_sent
    assert isinstance(job.error, APITimeoutError)
    assert job.error.may_have_been_sent


class OtherRequest(aiohttp.ClientRequest):
    """A class of requests that has a body of its own."""

    def update_body_from_data(self, body: Any, **options: Any) -> None:
        super().update_body_from_data(body and aiohttp.BytesPayload(bytes(body._value)), **options)


async def forward(request: aiohttp.ClientRequest, handler: Any) -> Any:
    """A middleware that has something of its own to do afterwards, and fails at it."""
    await handler(request)
    async with aiohttp.ClientSession() as session:
        await session.get("http://127.0.0.1:1/metrics")


async def refuse(*_: Any) -> None:
    async with aiohttp.ClientSession() as session:
        await session.get("http://127.0.0.1:1/metrics")


def traced() -> aiohttp.ClientSession:
    trace = aiohttp.TraceConfig()
    trace.on_request_end.append(refuse)
    return aiohttp.ClientSession(trace_configs=[trace])


DROPPED = (ReadRequest(), Close())


@pytest.mark.worlds("asyncio", reason="aiohttp runs on asyncio only")
@pytest.mark.parametrize(
    ("make", "act"),
    [
        pytest.param(
            lambda: aiohttp.ClientSession(request_class=OtherRequest), DROPPED, id="requests of another class"
        ),
        pytest.param(lambda: type("Mine", (aiohttp.ClientSession,), {})(), DROPPED, id="session of another class"),
        pytest.param(lambda: aiohttp.ClientSession(middlewares=[forward]), HEALTHY, id="middleware"),
        pytest.param(traced, HEALTHY, id="trace"),
    ],
)
@pytest.mark.filterwarnings("ignore:Inheritance class Mine:DeprecationWarning")
async def test_an_aiohttp_session_that_does_more(world: World, make: Callable[[], Any], act: Any) -> None:
    """Where code of the user's takes part in a request, what fails may be its own: the text may have gone out."""
    with FaultServer(Script(then=act)) as server:
        async with make() as session, world.client(server, http_client=session) as cloudware:
            with pytest.raises(APIConnectionError) as caught:
                await cloudware.send(TO, "Hello")
        assert ["POST"] == [request.method for request in server.ledger]
    assert caught.value.may_have_been_sent
    assert 1 == caught.value.attempts


@pytest.mark.worlds("asyncio", reason="aiohttp runs on asyncio only")
async def test_an_aiohttp_session_that_is_closed_while_a_send_waits(world: World) -> None:
    """Who waits for a connection then has sent nothing, and hears of the session and not of a cancellation."""
    with FaultServer(Script(((ReadRequest(), Hang()),))) as server:
        session = aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=1))
        async with world.client(server, http_client=session, timeout=20) as cloudware, world.crew() as crew:
            first = crew.start(lambda: cloudware.send(TO, "first"))
            assert await world.wait(server.wait_for, 1)
            second = crew.start(lambda: cloudware.send(TO, "second"))
            while not session.connector._waiters:
                await anyio.lowlevel.checkpoint()
            await session.close()
        assert 1 == len(server.ledger)
    assert isinstance(second.error, ConfigurationError)
    assert not second.error.may_have_been_sent
    assert isinstance(first.error, CloudwareError)
    assert first.error.may_have_been_sent


@pytest.mark.worlds("asyncio", "trio", "blocking", reason="aiohttp has no such hooks")
@pytest.mark.parametrize("asks", ["of its own", "the same again"])
@pytest.mark.parametrize("library", [httpx, httpx2], ids=["httpx", "httpx2"])
async def test_a_hook_that_fails(world: World, library: Any, asks: str) -> None:
    """A request of a hook's that is refused, its own or the text's once more, says nothing of the text, which went out."""

    def make(request: Any) -> Any:
        if asks == "of its own":
            return library.Request("GET", "http://127.0.0.1:1/metrics")
        request.url = library.URL("http://127.0.0.1:1/v1/sms/send")
        return request

    def ask(response: Any) -> None:
        with library.Client(trust_env=False) as client:
            client.send(make(response.request))

    async def ask_asynchronously(response: Any) -> None:
        async with library.AsyncClient(trust_env=False) as client:
            await client.send(make(response.request))

    hook = ask if world.is_blocking else ask_asynchronously
    await goes_out_once(world, world.http_client(library, event_hooks={"response": [hook]}, trust_env=False))


async def goes_out_once(world: World, http_client: Any) -> None:
    """A send through this client is posted once, and ends as unknown."""
    with FaultServer() as server:
        async with world.client(server, http_client=http_client, retry=QUICK) as cloudware:
            with pytest.raises(APIConnectionError) as caught:
                await cloudware.send(TO, "Hello")
        await http_client.aclose()
        assert ["Hello"] == texts(server)
    assert caught.value.may_have_been_sent
    assert 1 == caught.value.attempts


class Careless:
    """What sends a request on, takes the answer to it, and then asks somebody who is not there; by `failing` how."""

    def __init__(self, library: Any, failing: str) -> None:
        self._library = library
        self._failing = failing
        self._inner = library.HTTPTransport()
        self._async_inner = library.AsyncHTTPTransport()

    def handle_request(self, request: Any) -> Any:
        self._inner.handle_request(request).read()
        if self._failing == "repeats":
            request.url = self._library.URL("http://127.0.0.1:1/v1/sms/send")
            return self._inner.handle_request(request)
        return self._library.get("http://127.0.0.1:1/audit", trust_env=False)

    async def handle_async_request(self, request: Any) -> Any:
        await (await self._async_inner.handle_async_request(request)).aread()
        if self._failing == "repeats":
            request.url = self._library.URL("http://127.0.0.1:1/v1/sms/send")
            return await self._async_inner.handle_async_request(request)
        async with self._library.AsyncClient(trust_env=False) as client:
            return await client.get("http://127.0.0.1:1/audit")

    def close(self) -> None:
        self._inner.close()

    async def aclose(self) -> None:
        await self._async_inner.aclose()


@pytest.mark.worlds("asyncio", "trio", "blocking", reason="aiohttp has no such transports")
@pytest.mark.parametrize("failing", ["repeats", "asks somebody else"])
@pytest.mark.parametrize("library", [httpx, httpx2], ids=["httpx", "httpx2"])
async def test_a_transport_of_ones_own(world: World, library: Any, failing: str) -> None:
    """What it could not connect to in the end says nothing of the text, which went out before."""
    base = library.BaseTransport if world.is_blocking else library.AsyncBaseTransport
    transport = type("Transport", (Careless, base), {})(library, failing)
    await goes_out_once(world, world.http_client(library, transport=transport))


NOBODY = "http://127.0.0.1:1/v1/sms/send"


def remade(library: Any, request: Any, url: Any) -> Any:
    return library.Request(request.method, url, headers=request.headers, content=request.content)


def failing_over(base: Any, library: Any, method: str) -> Any:
    """A class of httpx's with requests of its own making: the second goes to somebody who is not there."""

    def ask(self: Any, request: Any, **options: Any) -> Any:
        request.read()
        getattr(base, method)(self, remade(library, request, request.url), **options).read()
        return getattr(base, method)(self, remade(library, request, NOBODY), **options)

    async def ask_asynchronously(self: Any, request: Any, **options: Any) -> Any:
        await request.aread()
        await (await getattr(base, method)(self, remade(library, request, request.url), **options)).aread()
        return await getattr(base, method)(self, remade(library, request, NOBODY), **options)

    return type("FailingOver", (base,), {method: ask_asynchronously if "Async" in base.__name__ else ask})


@pytest.mark.worlds("asyncio", "trio", "blocking", reason="a session of aiohttp's has a test of its own")
@pytest.mark.parametrize("library", [httpx, httpx2], ids=["httpx", "httpx2"])
async def test_a_class_derived_from_httpxs_transport(world: World, library: Any) -> None:
    """It may make requests of its own, of which nothing is seen: the text may have gone out."""
    if world.is_blocking:
        kind = failing_over(library.HTTPTransport, library, "handle_request")
    else:
        kind = failing_over(library.AsyncHTTPTransport, library, "handle_async_request")
    await goes_out_once(world, world.http_client(library, transport=kind()))


@pytest.mark.worlds("asyncio", "trio", reason="a session of aiohttp's has a test of its own")
@pytest.mark.parametrize("library", [httpx, httpx2], ids=["httpx", "httpx2"])
async def test_a_class_derived_from_httpxs_client(world: World, library: Any) -> None:
    """So may it; but where the steps of our own request are told, they are believed."""
    kind = failing_over(library.AsyncClient, library, "send")
    await goes_out_once(world, kind(trust_env=False))
    async with (
        type("Plain", (library.AsyncClient,), {})(trust_env=False) as http_client,
        world.make(TOKEN, base_url="http://127.0.0.1:1/v1", http_client=http_client, retry=QUICK) as cloudware,
    ):
        with pytest.raises(APIConnectionError) as caught:
            await cloudware.send(TO, "Hello")
    assert not caught.value.may_have_been_sent
    assert 3 == caught.value.attempts


@pytest.mark.worlds("asyncio", "trio", "blocking", reason="a session of aiohttp's has a test of its own")
@pytest.mark.parametrize("library", [httpx, httpx2], ids=["httpx", "httpx2"])
async def test_waiting_for_a_connection_leaves_less_for_the_answer(world: World, library: Any) -> None:
    """Through the user's client too one timeout holds over the wait for a connection and the wait for the answer."""
    with FaultServer(Script(then=(ReadRequest(), Hang()))) as server:
        http_client = world.http_client(library, limits=library.Limits(max_connections=1), trust_env=False)
        async with (
            world.client(server, http_client=http_client, retry=None, timeout=1.0) as cloudware,
            world.crew() as crew,
        ):
            job = crew.start(lambda: cloudware.with_options(timeout=0.7).send(TO, "first"))
            assert await world.wait(server.wait_for, 1)
            with pytest.raises(APITimeoutError), within(1.0 + GRACE):
                await cloudware.send(TO, "second")
        await http_client.aclose()
    assert isinstance(job.error, APITimeoutError)


@pytest.mark.worlds("asyncio", reason="aiohttp runs on asyncio only")
async def test_an_aiohttp_session_that_is_a_mock(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where nobody can see whether a text was written, it may have gone out."""

    async def fail(*_: object, **__: object) -> None:
        raise aiohttp.ServerDisconnectedError

    async with aiohttp.ClientSession() as session, world.make(TOKEN, http_client=session) as cloudware:
        monkeypatch.setattr(session, "_request", fail)
        with pytest.raises(APIConnectionError) as caught:
            await cloudware.send(TO, "Hello")
    assert caught.value.may_have_been_sent
    assert 1 == caught.value.attempts


@pytest.mark.worlds("asyncio", reason="aiohttp runs on asyncio only")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # aiohttp 4 will have no auth= to refuse
async def test_an_aiohttp_session_with_auth_is_refused(world: World) -> None:
    """It would put its own header in the token's place."""
    async with aiohttp.ClientSession(auth=aiohttp.BasicAuth("user", "word")) as session:
        with pytest.raises(ConfigurationError, match="auth="):
            world.make(TOKEN, http_client=session)


@pytest.mark.worlds("trio", reason="elsewhere it works")
async def test_an_aiohttp_session_on_trio_says_so(world: World) -> None:
    """In one sentence, and nothing is sent."""

    class ClientSession:
        auth = None
        closed = False

    ClientSession.__module__ = "aiohttp.client"
    async with world.make(TOKEN, http_client=ClientSession()) as cloudware:
        with pytest.raises(ConfigurationError, match="asyncio only"):
            await cloudware.send(TO, "Hello")


# What the environment may say wrongly


@pytest.mark.parametrize("value", ["ftp://127.0.0.1:1", "://", "http://127.0.0.1:port"])
async def test_a_proxy_that_is_none(world: World, value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A proxy's address that cannot be read is a wrong setting, and is said as one."""
    monkeypatch.setenv("http_proxy", value)
    with FaultServer() as server:
        with pytest.raises(ConfigurationError) as caught:
            async with world.client(server) as cloudware:
                await cloudware.send(TO, "Hello")
        assert 0 == server.connections
    assert caught.value.may_have_been_sent is False


@pytest.mark.parametrize("content", [None, "", "no certificate"], ids=["missing", "empty", "no certificate"])
async def test_an_ssl_cert_file_that_is_none(
    world: World, content: str | None, certificates: Certificates, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file without certificates is a wrong setting, and is said as one."""
    path = tmp_path / "authority.pem"
    if content is not None:
        path.write_text(content)
    monkeypatch.setenv("SSL_CERT_FILE", str(path))
    with FaultServer(ssl_context=certificates.server_context()) as server:
        with pytest.raises(ConfigurationError) as caught:
            async with world.client(server) as cloudware:
                await cloudware.send(TO, "Hello")
        assert 0 == server.connections
    assert caught.value.may_have_been_sent is False


# Tunnels


@pytest.mark.parametrize(
    "said", [answer(b"", 403), answer(b"", 407), answer(b"", 502), b"no HTTP\r\n\r\n", b""], ids=repr
)
async def test_a_tunnel_that_is_refused(world: World, said: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a tunnel nothing was sent, and the proxy has seen no token."""
    with FaultServer(Script(then=(ReadHead(), Send(said), Close()))) as server:
        monkeypatch.setenv("https_proxy", f"http://127.0.0.1:{server.port}")
        async with world.make(TOKEN, base_url="https://127.0.0.1:1/v1", retry=QUICK) as cloudware:
            with pytest.raises(APIConnectionError) as caught:
                await cloudware.send(TO, "Hello")
        assert {"CONNECT"} == {request.method for request in server.ledger}
        assert [] == server.authorizations
    assert (False, 3) == (caught.value.may_have_been_sent, caught.value.attempts)


async def test_a_tunnel_within_connect_timeout(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a proxy takes is a part of connecting, and ends with `connect_timeout`."""
    with FaultServer(Script(then=(ReadHead(), Hang()))) as server:
        monkeypatch.setenv("https_proxy", f"http://127.0.0.1:{server.port}")
        options = {"base_url": "https://127.0.0.1:1/v1", "timeout": 60.0, "connect_timeout": 0.3, "retry": None}
        async with world.make(TOKEN, **options) as cloudware:
            with pytest.raises(APITimeoutError, match="connect_timeout") as caught, within(0.3 + GRACE):
                await cloudware.send(TO, "Hello")
    assert caught.value.may_have_been_sent is False


async def test_a_tunnel_that_is_never_there(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """A proxy that says "soon" without end holds a send up no longer than its timeout, and nothing was sent."""
    soon = b"HTTP/1.1 102 Processing\r\n\r\n" * 100
    with FaultServer(Script(then=(ReadHead(), Repeat(soon)))) as server:
        monkeypatch.setenv("https_proxy", f"http://127.0.0.1:{server.port}")
        options = {"base_url": "https://127.0.0.1:1/v1", "timeout": 0.6, "connect_timeout": 0.4, "retry": None}
        async with world.make(TOKEN, **options) as cloudware:
            with pytest.raises(APITimeoutError) as caught, within(0.6 + GRACE):
                await cloudware.send(TO, "Hello")
    assert caught.value.may_have_been_sent is False


@pytest.mark.parametrize("scheme", ["https", "HTTPS"])
async def test_a_tunnel_within_tls(
    world: World, trusted: Certificates, scheme: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """TLS within TLS to a proxy works, and no such connection is used twice: what is left over in it nobody can see."""
    proxy = Proxy(trusted.server_context())
    monkeypatch.setenv("https_proxy", proxy.url.replace("http:", f"{scheme}:"))
    with FaultServer(ssl_context=trusted.server_context()) as server, contextlib.closing(proxy):
        async with world.make(TOKEN, base_url=server.base_url) as cloudware:
            assert "success" == (await cloudware.send(TO, "first")).status
            assert "success" == (await cloudware.send(TO, "second")).status
        assert ["first", "second"] == texts(server)
    assert 2 == len(proxy.asked)


async def test_a_tunnel_within_tls_that_trickles(
    world: World, trusted: Certificates, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each byte of a record is waited for, and all of them together no longer than the timeout."""
    proxy = Proxy(trusted.server_context(), pace=0.05)
    monkeypatch.setenv("https_proxy", proxy.url.replace("http:", "https:"))
    with FaultServer(ssl_context=trusted.server_context()) as server, contextlib.closing(proxy):
        options = {"base_url": server.base_url, "timeout": 0.6, "retry": None}
        async with world.make(TOKEN, **options) as cloudware:
            with pytest.raises(CloudwareError) as caught, within(0.6 + GRACE):
                await cloudware.send(TO, "Hello")
        assert [] == texts(server)
    assert caught.value.may_have_been_sent is False


async def test_a_tunnel_that_hangs(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """A proxy that never answers holds a send up no longer than its timeout, and nothing was sent."""
    with FaultServer(Script(then=(ReadHead(), Hang()))) as server:
        monkeypatch.setenv("https_proxy", f"http://127.0.0.1:{server.port}")
        async with world.make(TOKEN, base_url="https://127.0.0.1:1/v1", timeout=0.4) as cloudware:
            with pytest.raises(APITimeoutError) as caught, within(0.4 + GRACE):
                await cloudware.send(TO, "Hello")
    assert caught.value.may_have_been_sent is False


class Socks:
    """A SOCKS5 proxy, small; every name is this machine. What is asked for is in `asked`."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, int]] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._threads: list[threading.Thread] = []
        self._sockets: list[socket.socket] = [self._listener]
        self.url = f"socks5://127.0.0.1:{self._listener.getsockname()[1]}"
        self._start(self._accept)

    def _start(self, target: Callable[..., None], *arguments: Any) -> None:
        thread = threading.Thread(target=target, args=arguments, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                accepted, _ = self._listener.accept()
                self._sockets.append(accepted)
                self._start(self._serve, accepted)

    def _serve(self, client: socket.socket) -> None:
        with client, contextlib.suppress(OSError), client.makefile("rb") as said:
            said.read(said.read(2)[1])
            client.sendall(b"\x05\x00")
            kind = said.read(4)[3]
            host = said.read(said.read(1)[0]).decode() if kind == 3 else socket.inet_ntoa(said.read(4))
            port = int.from_bytes(said.read(2))
            self.asked.append((host, port))
            with socket.create_connection(("127.0.0.1", port), PATIENCE) as upstream:
                self._sockets.append(upstream)
                client.sendall(b"\x05\x00\x00\x01" + bytes(6))
                sides = {client: upstream, upstream: client}
                while True:
                    for side in select.select(list(sides), [], [])[0]:
                        data = side.recv(65536)
                        if not data:
                            return
                        sides[side].sendall(data)

    def close(self) -> None:
        for opened in self._sockets:
            with contextlib.suppress(OSError):
                opened.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for thread in self._threads:
            thread.join(PATIENCE)


async def test_a_socks_proxy(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Requests go through SOCKS, which is given the name and not an address, over one kept connection."""
    proxy = Socks()
    monkeypatch.setenv("ALL_PROXY", proxy.url)
    with FaultServer() as server, contextlib.closing(proxy):
        async with world.client(base_url=f"http://service.invalid:{server.port}/v1") as cloudware:
            for _ in range(3):
                assert "success" == (await cloudware.send(TO, "Hello")).status
            assert 1 == len(await gather(cloudware.messages()))
        assert [("service.invalid", server.port)] == proxy.asked
        assert 1 == server.connections


async def test_a_socks_proxy_that_hangs(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """It holds a send up no longer than its timeout."""
    with FaultServer(Script(then=(ReadSome(1), Hang()))) as server:
        monkeypatch.setenv("ALL_PROXY", f"socks5://127.0.0.1:{server.port}")
        async with world.make(TOKEN, base_url="http://service.invalid/v1", timeout=0.4) as cloudware:
            with pytest.raises(APITimeoutError) as caught, within(0.4 + GRACE):
                await cloudware.send(TO, "Hello")
    assert caught.value.may_have_been_sent is False


async def test_socks_without_its_package(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """A SOCKS proxy that httpx has no package for is a wrong setting, and is said as one."""
    monkeypatch.setitem(sys.modules, "socksio", None)
    monkeypatch.setenv("ALL_PROXY", "socks5://127.0.0.1:1")
    with pytest.raises(ConfigurationError):
        async with world.make(TOKEN, base_url="http://127.0.0.1:1/v1") as cloudware:
            await cloudware.send(TO, "Hello")


async def test_a_tls_connection_is_kept(world: World, trusted: Certificates) -> None:
    """Over TLS too, calls one after the other share one connection, and a walk reads ahead."""
    listing = Book.of(2, 2, 2)
    script = Script(then=(ReadRequest(), Reply(listing.answer)))
    with FaultServer(script, ssl_context=trusted.server_context()) as server:
        async with world.client(server) as cloudware:
            for _ in range(3):
                await cloudware.send(TO, "Hello")
            async with cloudware.messages().read_ahead() as messages:
                assert ids(6) == numbers(await gather(messages))
        assert (1, 6) == (server.connections, len(server.ledger))


async def test_a_name_with_several_addresses(world: World) -> None:
    """`localhost` is found at whichever of its addresses somebody listens."""
    with FaultServer() as server:
        async with world.client(base_url=f"http://localhost:{server.port}/v1") as cloudware:
            assert "success" == (await cloudware.send(TO, "Hello")).status


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere there is one loopback address")
@pytest.mark.worlds("blocking", reason="on an event loop anyio tries the addresses side by side")
async def test_an_address_that_is_dead(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first of several addresses does not use up what there is for connecting."""
    found = socket.getaddrinfo
    with FaultServer() as server, FaultServer(door="full", host="127.0.0.2", port=server.port):

        def resolve(host: str, *rest: Any, **named: Any) -> Any:
            addresses = ("127.0.0.2", "127.0.0.1") if host == "two.invalid" else (host,)
            return [one for address in addresses for one in found(address, *rest, **named)]

        monkeypatch.setattr(socket, "getaddrinfo", resolve)
        async with world.client(base_url=f"http://two.invalid:{server.port}/v1", connect_timeout=1.0) as cloudware:
            assert "success" == (await cloudware.send(TO, "Hello")).status


async def test_connections_that_nobody_needs(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a burst has opened and nobody needs any more is closed by whatever is sent later."""
    for backend in (_backend_httpx_async, _backend_httpx_blocking):
        monkeypatch.setattr(backend, "KEEP_ALIVE", -1.0)
    with Gate() as gate, held(gate) as server:
        async with world.client(server) as cloudware:
            async with world.crew() as crew:
                for number in range(5):
                    crew.start(lambda number=number: cloudware.send(TO, f"{number}"))
                assert await world.wait(gate.wait_for, 5)
                gate.open()
            await cloudware.send(TO, "later")
            assert await world.wait(server.wait_for_ended, 5)
        assert 6 == server.connections


async def test_a_connection_that_grew_old(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """A connection that was unused for too long is closed and replaced, and none is left."""
    monkeypatch.setattr(_backend_httpx, "KEEP_ALIVE", 0.0)
    with FaultServer() as server:
        async with world.client(server, retry=None) as cloudware:
            for _ in range(4):
                await cloudware.send(TO, "Hello")
            assert await world.wait(server.wait_for_ended, 3)
        assert await world.wait(server.wait_for_ended, 4)
        assert (4, 4) == (server.connections, len(server.ledger))


# A client of the user's own


class Foreign(httpx.AsyncBaseTransport, httpx.BaseTransport):
    """A transport of somebody else's, which hands on URLs as strings and gives whole answers."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        self.asked.append(str(request.url))
        page = {"query": "", "data": [message(1)], "next_page": None}
        answered = {"status": "success"} if request.method == "POST" else page
        return httpx.Response(200, json=answered)

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        return self.handle_request(request)


async def test_a_foreign_transport(world: World) -> None:
    """It gets the URLs as they are, and an answer that is there at once is read."""
    transport = Foreign()
    http_client = world.http_client(transport=transport, params={"key": "of the client's own requests"})
    async with world.client(base_url="http://service.invalid/v1", http_client=http_client) as cloudware:
        assert "success" == (await cloudware.send(TO, "Hello")).status
        assert 1 == len(await gather(cloudware.messages(phone="+40722000000")))
    base = "http://service.invalid/v1/sms"
    assert [f"{base}/send", f"{base}/messages?phone=%2B40722000000"] == transport.asked
    await http_client.aclose()


@pytest.mark.parametrize("library", [httpx, httpx2], ids=["httpx", "httpx2"])
async def test_a_hook_that_reads_the_answer(world: World, library: Any) -> None:
    """What a hook of the client's has read is taken from it, decoded as it is, and capped as ever."""

    async def read(response: Any) -> None:
        await response.aread()

    hook = read if not world.is_blocking else lambda response: response.read()
    receipt_in_gzip = gzip.compress(b'{"status": "success"}')
    acts = (
        (ReadRequest(), Send(answer(receipt_in_gzip, 200, b"Content-Encoding: gzip"))),
        (ReadRequest(), Answer(b'{"status": "success"}' + b" " * (1 << 20))),
    )
    with FaultServer(Script(acts)) as server:
        http_client = world.http_client(library, event_hooks={"response": [hook]}, trust_env=False)
        async with world.client(server, http_client=http_client) as cloudware:
            assert "success" == (await cloudware.send(TO, "Hello")).status
            with pytest.raises(APIResponseError, match="too large"):
                await cloudware.send(TO, "Hello")
        await http_client.aclose()


@pytest.mark.exhaustive
@pytest.mark.worlds("aiohttp", reason="it alone rounds its timers, from five seconds on")
async def test_a_long_wait_for_a_connection_of_aiohttps(world: World) -> None:
    """That no connection was free is known to have sent nothing, however long the wait was."""
    with Gate() as gate, held(gate) as server:
        async with world.client(server, max_connections=1, timeout=60) as cloudware, world.crew() as crew:
            crew.start(lambda: cloudware.send(TO, "first"))
            assert await world.wait(gate.wait_for, 1)
            with pytest.raises(APITimeoutError) as caught:
                await cloudware.with_options(timeout=5.7, retry=None).send(TO, "second")
            gate.open()
        assert caught.value.may_have_been_sent is False
        assert ["first"] == texts(server)


async def test_headers_of_a_client_of_ones_own(world: World) -> None:
    """Its own headers go along, and never take the place of ours."""
    own = {"Authorization": "Basic own", "Content-Type": "text/plain", "X-Own": "1"}
    with FaultServer() as server:
        http_client = world.http_client(trust_env=False, headers=own)
        async with world.client(server, http_client=http_client) as cloudware:
            await cloudware.send(TO, "Hello")
        await http_client.aclose()
        (request,) = server.ledger
    assert [(f"Bearer {TOKEN}",), ("application/json",), ("1",)] == [request.header(name) for name in own]


@pytest.mark.parametrize(
    ("script", "error_class", "may_have_been_sent"),
    [
        (Script(then=(ReadRequest(), Close())), APIConnectionError, True),
        (Script(then=(ReadRequest(), Hang())), APITimeoutError, True),
        (Script(then=(ReadRequest(), Send(answer(receipt("x"))[:-5]), Hang())), APITimeoutError, True),
        (None, APIConnectionError, False),
    ],
    ids=["closed", "hangs", "hangs in the body", "refused"],
)
async def test_failures_of_a_client_of_ones_own(
    world: World, script: Script | None, error_class: type[CloudwareError], may_have_been_sent: bool
) -> None:
    """The kind of the failure alone decides, and the timeout is ours."""
    with FaultServer(script or Script(), door="open" if script else "refused") as server:
        http_client = world.http_client(trust_env=False, timeout=60)
        async with world.client(server, http_client=http_client, timeout=0.4) as cloudware:
            with pytest.raises(error_class) as caught, within(0.4 + GRACE):
                await cloudware.send(TO, "Hello")
        assert not http_client.is_closed
        await http_client.aclose()
    assert may_have_been_sent is caught.value.may_have_been_sent


async def test_leaving_a_read_ahead_of_a_client_of_ones_own(world: World) -> None:
    """Leaving the block does not wait for a server that hangs."""
    listing = Book.of(2, 2)
    first = (ReadRequest(), Reply(listing.answer))
    with FaultServer(Script((first,), then=(ReadRequest(), Hang()))) as server:
        http_client = world.http_client(trust_env=False)
        async with world.client(server, http_client=http_client, timeout=3) as cloudware:
            async with cloudware.messages().read_ahead() as messages:
                async for _ in messages:
                    assert await world.wait(server.wait_for, 2)
                    break
                began = time.monotonic()
            took = time.monotonic() - began
        await http_client.aclose()
    assert took < 1.5
