"""Canaries: one token, one number and one text are planted, and then everything that may be seen is searched.

Rule 1. The server says all that it received back at us, in bodies and in headers.
Rule 2. Every logger is at DEBUG, httpx's and httpcore's among them.
Rule 3. The token must be nowhere; the number and the text nowhere but in a model's own fields.
"""

from __future__ import annotations

import copy
import json
import logging
import pickle
import traceback
from typing import Any

import httpx
import httpx2
import pytest
from fault_server import FaultServer, ReadRequest, Received, Reset, Script, Send, answer
from worlds import World, gather, serving

from cloudware_async import CloudwareError, Draft

TOKEN = "canary-token-7f3a9c51"
NUMBER = "2348098765432"
TEXT = 'the cänary "sings" / at dawn'
CANARIES = (TOKEN, NUMBER, "sings", "at dawn", "at%20dawn", "at+dawn")


def echo(status: int) -> FaultServer:
    """A server that says back what it received."""

    def make(request: Received, base_url: str) -> bytes:
        heard = json.dumps({"error": request.body.decode(), "path": request.path, "headers": dict(request.headers)})
        said = f"{request.path} {request.body.decode()} {request.header('authorization')}".replace("\n", " ").encode()
        return answer(heard.encode(), status, b"X-Request-Id: " + said, reason=said)

    return serving(make)


def breaking() -> FaultServer:
    return FaultServer(Script(then=(ReadRequest(), Send(b"HTTP/1.1 200 OK\r\nContent-Le"), Reset())))


def seen_of(error: BaseException) -> list[str]:
    """All that is seen of an error without looking inside on purpose."""
    found = [repr(error), str(error), "".join(traceback.format_exception(error))]
    link: BaseException | None = error
    while link is not None:
        found += [repr(link.args), repr(link.__cause__), repr(link.__context__)]
        link = link.__cause__ or link.__context__
    found += [pickle.dumps(error, protocol).decode("latin-1") for protocol in range(pickle.HIGHEST_PROTOCOL + 1)]
    # a pickle's strings are UTF-8, or escaped in the oldest protocol
    return [*found, repr(vars(error)), repr(vars(copy.copy(error)))]


def assert_silent(*found: str) -> None:
    for text in found:
        for canary in CANARIES:
            assert canary not in text, text


@pytest.mark.parametrize("library", [None, httpx, httpx2], ids=["own", "httpx", "httpx2"])
@pytest.mark.parametrize("status", [101, 200, 302, 400, 401, 409, 429, 500, 503, None])
async def test_nothing_private_is_seen(
    world: World, library: Any, status: int | None, caplog: pytest.LogCaptureFixture
) -> None:
    """No log record, no error and no repr shows the token, the number or the text, whatever the server says back."""
    caplog.set_level(logging.DEBUG)
    http_client = None if library is None else world.http_client(library, trust_env=False)
    with breaking() if status is None else echo(status) as there:
        client = world.client(there, access_token=TOKEN, from_=NUMBER, http_client=http_client, retry=None)
        async with client as cloudware:
            errors: list[CloudwareError] = []
            for call in (
                lambda: cloudware.send(NUMBER, TEXT),
                lambda: cloudware.queue(f"+{NUMBER}", TEXT),
                lambda: gather(cloudware.messages(phone=NUMBER, message=TEXT)),
            ):
                with pytest.raises(CloudwareError) as caught:
                    await call()
                errors.append(caught.value)
            report = await cloudware.send_many([Draft(NUMBER, TEXT)])
            assert_silent(repr(cloudware), repr(report), repr(report.results), repr(cloudware.messages(to=NUMBER)))
            errors += [result.error for result in report.results if result.error is not None]
            for error in errors:
                assert_silent(*seen_of(error))
        if http_client is not None:
            await http_client.aclose()
    logged = [record.getMessage() for record in caplog.records]
    assert world.name == "aiohttp" or logged
    assert_silent(*logged)


@pytest.mark.parametrize("library", [None, httpx, httpx2], ids=["own", "httpx", "httpx2"])
async def test_the_path_of_a_page_is_not_logged(world: World, library: Any, caplog: pytest.LogCaptureFixture) -> None:
    """A page may link to any path of its origin; it is followed, and of it no more is logged than of a query."""
    caplog.set_level(logging.DEBUG)
    http_client = None if library is None else world.http_client(library, trust_env=False)

    def make(request: Any, base_url: str) -> bytes:
        is_first = request.path == "/v1/sms/messages"
        return answer(
            json.dumps({"data": [], "next_page": f"{base_url}/{NUMBER}/sings" if is_first else None}).encode()
        )

    with serving(make) as server:
        async with world.client(server, http_client=http_client) as cloudware:
            assert [] == await gather(cloudware.messages())
        assert 2 == len(server.ledger)
        if http_client is not None:
            await http_client.aclose()
    assert_silent(*[record.getMessage() for record in caplog.records])


async def test_the_models_own_fields_show_it_on_purpose(world: World) -> None:
    """What was listed is in the message's fields, and in no repr."""
    listed = {"type": "message_received", "from": NUMBER, "to": NUMBER, "message": TEXT, "later": TEXT}
    page = {"query": f"phone={NUMBER}", "data": [listed], "next_page": None}
    with serving(lambda request, base_url: answer(json.dumps(page).encode())) as server:
        async with world.client(server, access_token=TOKEN) as cloudware:
            async for found in cloudware.messages(phone=NUMBER).pages():
                assert TEXT == found.messages[0].message
                assert NUMBER == found.messages[0].to
                assert_silent(repr(found), str(found), repr(found.messages))


@pytest.mark.worlds("blocking", reason="nothing is sent")
async def test_nobody_carries_the_token_away(world: World) -> None:
    """A client is neither copied nor pickled, so the token is in no file by accident."""
    async with world.client(access_token=TOKEN) as client:
        for carry in (pickle.dumps, copy.copy, copy.deepcopy):
            with pytest.raises(TypeError) as caught:
                carry(client.cloudware._driven._token)
            assert_silent(str(caught.value))
        with pytest.raises(TypeError):
            pickle.dumps(client.cloudware)


@pytest.mark.parametrize(
    "arguments",
    [
        {"to": TEXT, "message": TEXT},
        {"to": NUMBER, "message": TEXT + "\ud800"},
        {"to": NUMBER + "0000", "message": TEXT},
    ],
    ids=["no number", "half a surrogate pair", "too long a number"],
)
async def test_a_wrong_argument_is_not_said_back(world: World, arguments: dict[str, str]) -> None:
    """An error about an argument names the argument and not its value."""
    async with world.client(access_token=TOKEN) as cloudware:
        with pytest.raises(CloudwareError) as caught:
            await cloudware.send(**arguments)
        assert_silent(*seen_of(caught.value))
