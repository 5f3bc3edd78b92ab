"""What intercepts httpx intercepts our clients as made by default: respx in both modes, and pytest-httpx.

Rule 1. A mock has no stream to watch, so the kind of its exception alone decides whether a text may have gone out.
"""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest
import respx
from fault_server import FaultServer
from pytest_httpx import HTTPXMock
from worlds import OWN, TOKEN, World, gather

from cloudware_async import APIConnectionError, APITimeoutError, AuthenticationError, RateLimitError

pytestmark = pytest.mark.worlds(*OWN, reason="what is intercepted is httpx")

BASE = "https://api.cloudware.chat/v1"
TO = "2348012345678"
RECEIPT = {"data": {"id": "12345", "name": "Example Resource"}, "status": "success"}
MESSAGE = {"type": "message_received", "from": "1234567890", "to": "0987654321", "message": "Hello, World!"}

each_mode = pytest.mark.parametrize("mode", ["httpcore", "httpx"])


def client(world: World, **options: Any) -> Any:
    """A client as made by default: to the vendor's own address."""
    return world.make(TOKEN, **options)


@each_mode
async def test_respx_intercepts_a_send(world: World, mode: str) -> None:
    """The request is seen as it would have gone out, and its mocked answer is read."""
    with respx.mock(base_url=BASE, using=mode) as router:
        route = router.post("/sms/send").respond(json=RECEIPT)
        async with client(world) as cloudware:
            receipt = await cloudware.send("+234 801 234 5678", "Hello", from_="Shop")
    assert "12345" == receipt.id
    request = route.calls.last.request
    assert {"to": TO, "message": "Hello", "from": "Shop"} == json.loads(request.content)
    assert [f"Bearer {TOKEN}"] == request.headers.get_list("authorization")
    assert "application/json" == request.headers["content-type"]
    assert "cookie" not in request.headers


@each_mode
async def test_respx_intercepts_a_walk(world: World, mode: str) -> None:
    """Pages are mocked by their query, and followed."""
    with respx.mock(base_url=BASE, using=mode) as router:
        last = {"query": "", "data": [MESSAGE], "next_page": None}
        router.get("/sms/messages", params={"token": "two"}).respond(json=last)
        first = last | {"next_page": f"{BASE}/sms/messages?token=two"}
        router.get("/sms/messages", params={"phone": "+40722000000"}).respond(json=first)
        async with client(world) as cloudware:
            assert 2 == len(await gather(cloudware.messages(phone="+40722000000")))


@each_mode
async def test_respx_answers_in_turn(world: World, mode: str) -> None:
    """A refusal and then a success is a retry."""
    with respx.mock(base_url=BASE, using=mode) as router:
        route = router.post("/sms/send")
        route.side_effect = [httpx.Response(429, headers={"Retry-After": "0"}), httpx.Response(200, json=RECEIPT)]
        async with client(world) as cloudware:
            assert "12345" == (await cloudware.send(TO, "Hello")).id
        assert 2 == route.call_count


@each_mode
@pytest.mark.parametrize(
    ("failure", "error_class", "may_have_been_sent", "calls"),
    [
        (httpx.ConnectError, APIConnectionError, False, 3),
        (httpx.ConnectTimeout, APITimeoutError, False, 3),
        (httpx.PoolTimeout, APITimeoutError, False, 3),
        (httpx.ReadTimeout, APITimeoutError, True, 1),
        (httpx.WriteTimeout, APITimeoutError, True, 1),
        (httpx.ReadError, APIConnectionError, True, 1),
        (httpx.WriteError, APIConnectionError, True, 1),
        (httpx.RemoteProtocolError, APIConnectionError, True, 1),
    ],
)
async def test_the_kind_of_a_mocked_failure_decides(
    world: World,
    mode: str,
    failure: type[Exception],
    error_class: type[Exception],
    *,
    may_have_been_sent: bool,
    calls: int,
) -> None:
    """Only a failure to connect is certain to have sent nothing, and only that is tried again."""
    with respx.mock(base_url=BASE, using=mode) as router:
        route = router.post("/sms/queue").mock(side_effect=failure)
        async with client(world) as cloudware:
            with pytest.raises(error_class) as caught:
                await cloudware.queue(TO, "Hello")
        assert may_have_been_sent is caught.value.may_have_been_sent
        assert calls == route.call_count


@each_mode
async def test_what_respx_does_not_know_is_said_as_itself(world: World, mode: str) -> None:
    """A request without a route is the test's mistake, and is no connection error."""
    with respx.mock(base_url=BASE, using=mode, assert_all_called=False) as router:
        router.get("/elsewhere")
        async with client(world) as cloudware:
            with pytest.raises(AssertionError):
                await cloudware.send(TO, "Hello")


@each_mode
async def test_respx_takes_over_a_client_in_use(world: World, mode: str) -> None:
    """On a client that has a real connection by then, a mock's answers and failures mean what they always do."""
    with FaultServer() as server:
        async with world.client(server) as cloudware:
            await cloudware.send(TO, "opens a connection")
            with respx.mock(base_url=server.base_url, using=mode) as router:
                route = router.post("/sms/send").respond(json=RECEIPT)
                assert "12345" == (await cloudware.send(TO, "Hello")).id
                route.mock(side_effect=httpx.ReadTimeout)
                with pytest.raises(APITimeoutError) as caught:
                    await cloudware.send(TO, "Hello")
                assert caught.value.may_have_been_sent is True
            assert "receipt-2" == (await cloudware.send(TO, "for real again")).id


async def test_pytest_httpx_intercepts(world: World, httpx_mock: HTTPXMock) -> None:
    """A send and a walk are answered by pytest-httpx, and its requests are seen."""
    httpx_mock.add_response(method="POST", url=f"{BASE}/sms/send", json=RECEIPT)
    page = {"query": "", "data": [MESSAGE], "next_page": None}
    httpx_mock.add_response(method="GET", url=f"{BASE}/sms/messages?phone=%2B40722000000", json=page)
    async with client(world) as cloudware:
        assert "12345" == (await cloudware.send(TO, "Hello")).id
        assert 1 == len(await gather(cloudware.messages(phone="+40722000000")))
    request = httpx_mock.get_requests()[0]
    assert {"to": TO, "message": "Hello"} == json.loads(request.content)
    assert f"Bearer {TOKEN}" == request.headers["authorization"]


async def test_pytest_httpx_answers_with_errors(world: World, httpx_mock: HTTPXMock) -> None:
    """A mocked status is its error, and a mocked exception is classified by its kind."""
    httpx_mock.add_response(status_code=401, json={"error": "who?"})
    httpx_mock.add_response(status_code=429, headers={"Retry-After": "3600"})
    httpx_mock.add_exception(httpx.ReadTimeout("slow"))
    async with client(world, retry=None) as cloudware:
        with pytest.raises(AuthenticationError):
            await cloudware.send(TO, "Hello")
        with pytest.raises(RateLimitError) as refused:
            await cloudware.send(TO, "Hello")
        with pytest.raises(APITimeoutError) as unknown:
            await cloudware.send(TO, "Hello")
    assert (False, 3600.0) == (refused.value.may_have_been_sent, refused.value.retry_after)
    assert unknown.value.may_have_been_sent is True
