"""The clients that send: this package, its peers and the floors, each at the best that its own documentation knows.

    python benchmarks/speed/senders.py async|blocking NAME PORT IN_FLIGHT

Rule 1. One client, used for every send; connections are kept alive; everything else is at its defaults. Where a peer
        offers several ways, the fastest is here too. Only the address is changed.
Rule 2. A peer's answer is the one it expects, and it makes of it what it makes. A floor only reads it: what an SDK does
        besides (checks, models, errors) is no part of a floor.
Rule 3. The process reads a number of sends a line, makes them, and writes the CPU and the wall time a send took. Before
        it looks at the clock it warms up, so that no connection that idled in between is made anew in a measurement.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import http.client
import json
import os
import socket
import sys
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from typing import Any

from cores import MEASURED, pin
from gateway import HOST, NUMBER, PLIVO_ACCOUNT, TWILIO_ACCOUNT

TO = NUMBER[1:]
SENDER = "+2348012345679"
TOKEN = "token"  # noqa: S105  (invented)
PATH = "/v1/sms/send"
HEADERS = {"Authorization": f"Bearer {TOKEN}"}

AsyncSend = Callable[[str], Awaitable[object]]
BlockingSend = Callable[[str], object]


def address(port: int) -> str:
    """Where the gateway is."""
    return f"http://{HOST}:{port}"


# ----------------------------------------------------------------------------------------------------
# async


@contextlib.asynccontextmanager
async def cloudware_async(port: int) -> AsyncIterator[AsyncSend]:
    """This package, as it comes."""
    from cloudware_async import AsyncCloudware

    async with AsyncCloudware(TOKEN, base_url=f"{address(port)}/v1") as client:
        yield lambda text: client.send(TO, text)


@contextlib.asynccontextmanager
async def cloudware_aiohttp(port: int) -> AsyncIterator[AsyncSend]:
    """This package through a session of aiohttp."""
    import aiohttp

    from cloudware_async import AsyncCloudware

    async with (
        aiohttp.ClientSession() as session,
        AsyncCloudware(TOKEN, base_url=f"{address(port)}/v1", http_client=session) as client,
    ):
        yield lambda text: client.send(TO, text)


@contextlib.asynccontextmanager
async def httpx_async(port: int) -> AsyncIterator[AsyncSend]:
    """A floor: httpx at its defaults."""
    import httpx

    url = f"{address(port)}{PATH}"
    async with httpx.AsyncClient(headers=HEADERS) as client:
        yield lambda text: client.post(url, json={"to": TO, "message": text})


@contextlib.asynccontextmanager
async def httpx_async_kept(port: int) -> AsyncIterator[AsyncSend]:
    """The same, told to keep as many connections alive as it may open: by default it keeps 20."""
    import httpx

    url = f"{address(port)}{PATH}"
    limits = httpx.Limits(max_connections=100, max_keepalive_connections=100)
    async with httpx.AsyncClient(headers=HEADERS, limits=limits) as client:
        yield lambda text: client.post(url, json={"to": TO, "message": text})


@contextlib.asynccontextmanager
async def aiohttp_async(port: int) -> AsyncIterator[AsyncSend]:
    """A floor: aiohttp at its defaults."""
    import aiohttp

    url = f"{address(port)}{PATH}"
    async with aiohttp.ClientSession(headers=HEADERS) as session:

        async def send(text: str) -> bytes:
            async with session.post(url, json={"to": TO, "message": text}) as response:
                return await response.read()

        yield send


@contextlib.asynccontextmanager
async def twilio_async(port: int) -> AsyncIterator[AsyncSend]:
    """The async client of twilio, over aiohttp."""
    from twilio.http.async_http_client import AsyncTwilioHttpClient
    from twilio.rest import Client

    async with AsyncTwilioHttpClient() as http_client:
        client = Client(TWILIO_ACCOUNT, TOKEN, http_client=http_client)
        client.api.base_url = address(port)
        yield lambda text: client.messages.create_async(to=NUMBER, from_=SENDER, body=text)


@contextlib.asynccontextmanager
async def telnyx_async(port: int) -> AsyncIterator[AsyncSend]:
    """The async client of telnyx, over httpx."""
    from telnyx import AsyncTelnyx

    async with AsyncTelnyx(api_key=TOKEN, base_url=address(port)) as client:
        yield lambda text: client.messages.send(to=NUMBER, from_=SENDER, text=text)


@contextlib.asynccontextmanager
async def telnyx_aiohttp(port: int) -> AsyncIterator[AsyncSend]:
    """The same over aiohttp, which telnyx recommends for concurrency."""
    from telnyx import AsyncTelnyx, DefaultAioHttpClient

    async with AsyncTelnyx(api_key=TOKEN, base_url=address(port), http_client=DefaultAioHttpClient()) as client:
        yield lambda text: client.messages.send(to=NUMBER, from_=SENDER, text=text)


@contextlib.asynccontextmanager
async def android_async(port: int) -> AsyncIterator[AsyncSend]:
    """The async client of android-sms-gateway, over aiohttp (its other choice, httpx, is slower)."""
    from android_sms_gateway import AsyncAPIClient
    from android_sms_gateway.ahttp import AiohttpAsyncHttpClient
    from android_sms_gateway.domain import Message, TextMessage

    async with AiohttpAsyncHttpClient() as http_client:
        client = AsyncAPIClient("login", TOKEN, base_url=f"{address(port)}/android", http_client=http_client)
        yield lambda text: client.send(Message(phone_numbers=[NUMBER], text_message=TextMessage(text=text)))


class Plain(asyncio.Protocol):
    """A connection that does what cannot be left out: writes a request, and reads an answer to its end."""

    def __init__(self) -> None:
        self.received = b""
        self.transport: Any = None
        self.answer: asyncio.Future[bytes] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep what is written to."""
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        """Read the answer."""
        self.received += data
        if self.answer is not None and is_whole(self.received):
            self.answer.set_result(self.received)
            self.received = b""

    def ask(self, request: bytes) -> asyncio.Future[bytes]:
        """Write the request."""
        self.answer = asyncio.get_running_loop().create_future()
        self.transport.write(request)
        return self.answer


def is_whole(answer: bytes) -> bool:
    """Say whether an answer has come to its end."""
    head, _, body = answer.partition(b"\r\n\r\n")
    return len(body) == int(head.rpartition(b": ")[2] or -1)


def request(text: str) -> bytes:
    """Write a send as it goes over the wire."""
    body = json.dumps({"to": TO, "message": text})
    return (
        f"POST {PATH} HTTP/1.1\r\nHost: {HOST}\r\nAuthorization: Bearer {TOKEN}\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(body)}\r\n\r\n{body}"
    ).encode()


@contextlib.asynccontextmanager
async def socket_async(port: int) -> AsyncIterator[AsyncSend]:
    """The floor beneath all: connections of asyncio's own, and no HTTP library."""
    free: list[Plain] = []
    every: list[Plain] = []

    async def send(text: str) -> bytes:
        if free:
            connection = free.pop()
        else:
            _, connection = await asyncio.get_running_loop().create_connection(Plain, HOST, port)
            every.append(connection)
        answer = await connection.ask(request(text))
        free.append(connection)
        return answer

    yield send
    for connection in every:
        connection.transport.close()


ASYNC: dict[str, Callable[[int], AbstractAsyncContextManager[AsyncSend]]] = {
    "cloudware-async": cloudware_async,
    "cloudware-async over aiohttp": cloudware_aiohttp,
    "httpx": httpx_async,
    "httpx, 100 kept alive": httpx_async_kept,
    "aiohttp": aiohttp_async,
    "twilio": twilio_async,
    "telnyx": telnyx_async,
    "telnyx over aiohttp": telnyx_aiohttp,
    "android-sms-gateway": android_async,
    "plain socket": socket_async,
}


# ----------------------------------------------------------------------------------------------------
# blocking


@contextlib.contextmanager
def cloudware_blocking(port: int) -> Iterator[BlockingSend]:
    """This package, as it comes."""
    from cloudware_async import Cloudware

    with Cloudware(TOKEN, base_url=f"{address(port)}/v1") as client:
        yield lambda text: client.send(TO, text)


@contextlib.contextmanager
def httpx_blocking(port: int) -> Iterator[BlockingSend]:
    """A floor: httpx at its defaults."""
    import httpx

    url = f"{address(port)}{PATH}"
    with httpx.Client(headers=HEADERS) as client:
        yield lambda text: client.post(url, json={"to": TO, "message": text})


@contextlib.contextmanager
def requests_blocking(port: int) -> Iterator[BlockingSend]:
    """A floor: requests at its defaults, with a session."""
    import requests

    url = f"{address(port)}{PATH}"
    with requests.Session() as session:
        session.headers.update(HEADERS)
        yield lambda text: session.post(url, json={"to": TO, "message": text})


@contextlib.contextmanager
def http_client_blocking(port: int) -> Iterator[BlockingSend]:
    """A floor: the standard library's client, a connection to a thread."""
    local = threading.local()
    headers = {**HEADERS, "Content-Type": "application/json"}

    def send(text: str) -> bytes:
        if not hasattr(local, "connection"):
            local.connection = http.client.HTTPConnection(HOST, port, timeout=30)
        local.connection.request("POST", PATH, json.dumps({"to": TO, "message": text}), headers)
        answer: bytes = local.connection.getresponse().read()
        return answer

    yield send


@contextlib.contextmanager
def twilio_blocking(port: int) -> Iterator[BlockingSend]:
    """The blocking client of twilio, over requests."""
    from twilio.rest import Client

    client = Client(TWILIO_ACCOUNT, TOKEN)
    client.api.base_url = address(port)
    yield lambda text: client.messages.create(to=NUMBER, from_=SENDER, body=text)


@contextlib.contextmanager
def telnyx_blocking(port: int) -> Iterator[BlockingSend]:
    """The blocking client of telnyx, over httpx."""
    from telnyx import Telnyx

    with Telnyx(api_key=TOKEN, base_url=address(port)) as client:
        yield lambda text: client.messages.send(to=NUMBER, from_=SENDER, text=text)


@contextlib.contextmanager
def vonage_blocking(port: int) -> Iterator[BlockingSend]:
    """The client of vonage, over requests; it knows `https` only, which its session is told not to use."""
    import requests
    from vonage import Auth, HttpClientOptions, Vonage
    from vonage_sms import SmsMessage

    class Unencrypted(requests.Session):
        def request(self, method: str, url: str, **options: Any) -> requests.Response:  # type: ignore[override]
            return super().request(method, url.replace("https://", "http://", 1), **options)

    host = f"{HOST}:{port}"
    client = Vonage(Auth(api_key="key", api_secret=TOKEN), HttpClientOptions(api_host=host, rest_host=host))
    client.sms.http_client._session = Unencrypted()  # noqa: SLF001  (no setting)
    yield lambda text: client.sms.send(SmsMessage(to=TO, from_=SENDER[1:], text=text))


@contextlib.contextmanager
def plivo_blocking(port: int) -> Iterator[BlockingSend]:
    """The client of plivo, over requests; its address is a constant."""
    import plivo

    plivo.rest.client.PLIVO_API_BASE_URI = f"{address(port)}/v1/Account"
    with plivo.RestClient(PLIVO_ACCOUNT, TOKEN) as client:
        yield lambda text: client.messages.create(src=SENDER, dst=NUMBER, text=text)


@contextlib.contextmanager
def android_blocking(port: int) -> Iterator[BlockingSend]:
    """The blocking client of android-sms-gateway, over httpx, its default."""
    from android_sms_gateway import APIClient
    from android_sms_gateway.domain import Message, TextMessage

    with APIClient("login", TOKEN, base_url=f"{address(port)}/android") as client:
        yield lambda text: client.send(Message(phone_numbers=[NUMBER], text_message=TextMessage(text=text)))


@contextlib.contextmanager
def android_requests(port: int) -> Iterator[BlockingSend]:
    """The same over requests, its other choice."""
    from android_sms_gateway import APIClient
    from android_sms_gateway.domain import Message, TextMessage
    from android_sms_gateway.http import RequestsHttpClient

    with RequestsHttpClient() as http_client:
        client = APIClient("login", TOKEN, base_url=f"{address(port)}/android", http=http_client)
        yield lambda text: client.send(Message(phone_numbers=[NUMBER], text_message=TextMessage(text=text)))


@contextlib.contextmanager
def socket_blocking(port: int) -> Iterator[BlockingSend]:
    """The floor beneath all: a socket to a thread, and no HTTP library."""
    local = threading.local()

    def send(text: str) -> bytes:
        if not hasattr(local, "socket"):
            local.socket = socket.create_connection((HOST, port), timeout=30)
        local.socket.sendall(request(text))
        answer: bytes = local.socket.recv(65536)
        while not is_whole(answer):
            answer += local.socket.recv(65536)
        return answer

    yield send


BLOCKING: dict[str, Callable[[int], AbstractContextManager[BlockingSend]]] = {
    "cloudware-async": cloudware_blocking,
    "httpx": httpx_blocking,
    "requests": requests_blocking,
    "http.client": http_client_blocking,
    "twilio": twilio_blocking,
    "telnyx": telnyx_blocking,
    "vonage": vonage_blocking,
    "plivo": plivo_blocking,
    "android-sms-gateway": android_blocking,
    "android-sms-gateway over requests": android_requests,
    "plain socket": socket_blocking,
}


# ----------------------------------------------------------------------------------------------------
# the process


def report(count: int, began: tuple[float, float]) -> None:
    """Write what a send took, in seconds of CPU and of wall time."""
    cpu, wall = time.process_time() - began[0], time.perf_counter() - began[1]
    print(json.dumps({"cpu": cpu / count, "wall": wall / count}), flush=True)


def clocks() -> tuple[float, float]:
    """Look at both clocks, with no rubbish left over from before."""
    gc.collect()
    return time.process_time(), time.perf_counter()


def serve_async(name: str, port: int, in_flight: int) -> None:
    """Send as often as is asked for, from one event loop."""

    async def run(send: AsyncSend, count: int) -> None:
        async def work() -> None:
            for number in range(count // in_flight):
                await send(f"Your code is {number}")

        await asyncio.gather(*(work() for _ in range(in_flight)))

    with asyncio.Runner() as runner:
        client = ASYNC[name](port)
        send = runner.run(client.__aenter__())
        for line in sys.stdin:
            runner.run(run(send, 2 * in_flight))
            began = clocks()
            runner.run(run(send, int(line)))
            report(int(line), began)
        runner.run(client.__aexit__(None, None, None))


def serve_blocking(name: str, port: int, in_flight: int) -> None:
    """Send as often as is asked for, from so many threads."""

    def run(count: int) -> None:
        def work() -> None:
            for number in range(count // in_flight):
                send(f"Your code is {number}")

        if in_flight == 1:
            work()
        else:
            for future in [threads.submit(work) for _ in range(in_flight)]:
                future.result()

    with BLOCKING[name](port) as send, ThreadPoolExecutor(in_flight) as threads:
        for line in sys.stdin:
            run(2 * in_flight)
            began = clocks()
            run(int(line))
            report(int(line), began)


if __name__ == "__main__":
    pin(MEASURED)
    os.environ["NO_PROXY"] = HOST
    serve = serve_async if sys.argv[1] == "async" else serve_blocking
    serve(sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
