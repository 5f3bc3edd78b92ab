"""The walk over a listing: messages, pages, limits, cursors, bad pages and links, and reading ahead."""

from __future__ import annotations

import asyncio
import base64
import json
import socket
import threading
import time
from collections.abc import AsyncIterator, Callable
from typing import Any, Self

import anyio
import pytest
from fault_server import (
    HEALTHY,
    Act,
    Answer,
    Close,
    FaultServer,
    Hang,
    ReadRequest,
    Received,
    Repeat,
    Reset,
    Script,
    Send,
    Trickle,
    answer,
    head,
)
from worlds import (
    GRACE,
    PATIENCE,
    QUICK,
    TO,
    TOKEN,
    Book,
    Gate,
    Hold,
    Reply,
    World,
    asked,
    client_threads,
    gather,
    ids,
    message,
    numbers,
    page_of,
    serving,
    within,
)

from cloudware_async import (
    APIConnectionError,
    APIResponseError,
    APITimeoutError,
    CloudwareError,
    ConfigurationError,
    InvalidArgumentError,
    Page,
    PaginationError,
    RateLimitError,
    ServerError,
)

HANG: Act = (ReadRequest(), Hang())
FAIL: Act = (ReadRequest(), Answer(b"{}", 500))
# 7 messages: p0 has 0 and 1, p1 has 2, 3 and 4, p2 has none, p3 has 5, p4 has 6
SIZES = (2, 3, 0, 1, 1)
TOKENS = ["", "p1", "p2", "p3", "p4"]


def book(**options: Any) -> Book:
    return Book.of(*SIZES, **options)


async def take(pager: Any, count: int) -> list[str]:
    """The next so many messages."""
    taken: list[str] = []
    if count:
        async for sms in pager:
            taken.append(sms.message_id)
            if len(taken) == count:
                break
    return taken


async def read(pager: Any, *, ahead: bool = False) -> list[str]:
    """All the rest."""
    if not ahead:
        return numbers(await gather(pager))
    async with pager.read_ahead() as messages:
        return numbers(await gather(messages))


# ----------------------------------------------------------------------------------------------------
# The walk


async def test_walk(world: World) -> None:
    """A walk gives every message of every page in order, with the token on each request, and then it is done."""
    with book().serve() as server:
        async with world.client(server) as cloudware:
            pager = cloudware.messages()
            assert not pager.done
            assert ids(7) == numbers(await gather(pager))
            assert pager.done
            assert [] == await gather(pager)
        assert TOKENS == asked(server)
        assert [f"Bearer {TOKEN}"] * 5 == server.authorizations
        assert {("GET", b"")} == {(request.method, request.body) for request in server.ledger}
        assert "/v1/sms/messages" == server.ledger[0].path
        assert 1 == server.connections


async def test_message(world: World) -> None:
    """A listed message is read field by field, and what is not documented is kept."""
    listed = message(1, type="message_sent", sent_at=None, created_at="2026-11-02T10:00:00+02:00", mood="good")
    with serving(lambda *_: page_of([listed, message(2)])) as server:
        async with world.client(server) as cloudware:
            first, second = await gather(cloudware.messages())
    assert ("message_sent", "1234567890", "0987654321", "text 1", "id-1") == (
        first.type,
        first.from_,
        first.to,
        first.message,
        first.message_id,
    )
    assert ("2026-11-02T10:00:00+02:00", None, {"mood": "good"}) == (
        first.created_at.isoformat(),
        first.sent_at,
        first.extra,
    )
    assert (False, True, {}) == (first.received, second.received, second.extra)


async def test_nothing_is_asked_before(world: World) -> None:
    """A pager asks nothing until it is iterated, and no page before it is needed."""
    with book().serve() as server:
        async with world.client(server) as cloudware:
            pager = cloudware.messages()
            pager.pages()
            pager.read_ahead()
            assert 0 == server.connections
            assert ids(2) == await take(pager, 2)
            assert [""] == asked(server)
            assert ["id-2"] == await take(pager, 1)
            assert ["", "p1"] == asked(server)


@pytest.mark.parametrize("sizes", [(0,), (0, 0, 0), (1,), (0, 1), (1, 0), (3, 0, 0, 2)], ids=str)
@pytest.mark.parametrize("ahead", [False, True])
async def test_small_listings(world: World, sizes: tuple[int, ...], ahead: bool) -> None:
    """Empty pages are walked over, wherever they are."""
    with Book.of(*sizes).serve() as server:
        async with world.client(server) as cloudware:
            assert ids(sum(sizes)) == await read(cloudware.messages(), ahead=ahead)
        assert len(sizes) == len(server.ledger)


async def test_break_and_go_on(world: World) -> None:
    """Iterating a pager again goes on where it stopped."""
    with book().serve() as server:
        async with world.client(server) as cloudware:
            pager = cloudware.messages()
            taken = [await take(pager, count) for count in (1, 2, 1, 3)]
            assert [["id-0"], ["id-1", "id-2"], ["id-3"], ["id-4", "id-5", "id-6"]] == taken
            assert [] == await gather(pager)
        assert TOKENS == asked(server)


async def test_walks_are_independent(world: World) -> None:
    """Two walks of one client, one step each in turn, do not disturb one another."""
    with book().serve() as server:
        async with world.client(server) as cloudware:
            one, other = cloudware.messages(), cloudware.messages()
            both = [(await take(one, 1), await take(other, 1)) for _ in range(7)]
            assert [([number], [number]) for number in ids(7)] == both


async def test_long_walk(world: World) -> None:
    """Hundreds of pages are walked, each asked once."""
    with Book.of(*[3] * 300).serve() as server:
        async with world.client(server) as cloudware:
            assert ids(900) == await read(cloudware.messages())
        assert 300 == len(set(asked(server))) == len(server.ledger)


# Pages


async def test_pages(world: World) -> None:
    """`pages()` gives whole pages: messages, the service's query, and the cursor of the rest."""
    with book(changes={1: {"query": "phone=+40"}, 3: {"query": 5}}).serve() as server:
        async with world.client(server) as cloudware:
            pager = cloudware.messages()
            pages = await gather(pager.pages())
            assert pager.done
            assert all(isinstance(page, Page) for page in pages)
            assert [ids(2), ids(5, 2), [], ["id-5"], ["id-6"]] == [numbers(page.messages) for page in pages]
            assert ["", "phone=+40", "", None, ""] == [page.query for page in pages]
            assert TOKENS == asked(server)
            rests = [await read(cloudware.messages(cursor=page.cursor)) for page in pages]
            assert [ids(7, 2), ids(7, 5), ids(7, 5), ["id-6"], []] == rests
            assert [] == await gather(pager.pages())


async def test_pages_after_messages(world: World) -> None:
    """Going over to pages in the middle of a page loses no message, and so does going back."""
    for count in range(8):
        with book().serve() as server:
            async with world.client(server) as cloudware:
                pager = cloudware.messages()
                seen = await take(pager, count)
                async for page in pager.pages():
                    seen += numbers(page.messages)
                    break
                seen += await read(pager)
                assert set(ids(7)) == set(seen), count
                assert pager.done


# Limit


def needed(limit: int) -> list[str]:
    """The fewest pages that hold so many messages."""
    so_far, tokens = 0, []
    for token, size in zip(TOKENS, SIZES, strict=True):
        if so_far >= limit:
            break
        tokens.append(token)
        so_far += size
    return tokens


@pytest.mark.parametrize("limit", range(10))
@pytest.mark.parametrize("how", ["messages", "pages", "ahead", "pages ahead"])
async def test_limit(world: World, how: str, limit: int) -> None:
    """`limit` is a total over all pages, and no page is asked that it does not need, ahead or not."""
    with book().serve() as server:
        async with world.client(server) as cloudware:
            pager = cloudware.messages(limit=limit)
            if "pages" not in how:
                seen = await read(pager, ahead="ahead" in how)
            elif how == "pages":
                seen = [number async for page in pager.pages() for number in numbers(page.messages)]
            else:
                async with pager.read_ahead() as ahead:
                    seen = [number async for page in ahead.pages() for number in numbers(page.messages)]
            assert ids(min(limit, 7)) == seen
            assert [] == await gather(pager)
            assert [] == await gather(pager.pages())
            assert needed(limit) == asked(server)
            # a limit is no end: what it left out is listed by the cursor
            rest = await read(cloudware.messages(cursor=pager.cursor))
            assert set(ids(7)) == {*seen, *rest}
            if limit < 7:
                assert not pager.done


async def test_limit_over_several_loops(world: World) -> None:
    """`limit` is the walk's, however often it is taken up again."""
    with book().serve() as server:
        async with world.client(server) as cloudware:
            pager = cloudware.messages(limit=4)
            assert [["id-0"], ["id-1", "id-2"], ["id-3"]] == [await take(pager, count) for count in (1, 2, 5)]
            assert [] == await gather(pager)


async def test_pages_under_a_limit_have_a_cursor(world: World) -> None:
    """The cursor of a page that `limit` cut lists it again: nothing is skipped."""
    with book().serve() as server:
        async with world.client(server) as cloudware:
            first, second = await gather(cloudware.messages(limit=3).pages())
            assert [ids(2), ["id-2"]] == [numbers(first.messages), numbers(second.messages)]
            assert ids(7, 2) == await read(cloudware.messages(cursor=second.cursor))


@pytest.mark.parametrize("limit", [-1, 1.0, 1.5, True, False, "5", b"5", [5], float("inf")], ids=repr)
async def test_bad_limit(world: World, limit: Any) -> None:
    """A limit that is no whole number from 0 is refused at once."""
    with FaultServer() as server:
        async with world.client(server) as cloudware:
            with pytest.raises(InvalidArgumentError, match="limit"):
                cloudware.messages(limit=limit)
        assert 0 == server.connections


# Cursors


@pytest.mark.parametrize("ahead", [False, True])
async def test_resume_from_everywhere(world: World, ahead: bool) -> None:
    """A walk left after any number of messages goes on by its cursor, from the page not wholly handed out: no gap."""
    page_starts = [0, 0, 0, 2, 2, 2, 5, 6]
    with book().serve() as server:
        async with world.client(server) as cloudware:
            for count in range(8):
                pager = cloudware.messages()
                if ahead:
                    async with pager.read_ahead() as messages:
                        seen = await take(messages, count)
                        inside = pager.cursor
                    assert inside == pager.cursor
                else:
                    seen = await take(pager, count)
                assert not pager.done
                rest = await read(cloudware.messages(cursor=pager.cursor))
                assert (ids(count), ids(7, page_starts[count])) == (seen, rest)
                assert set(ids(7)) == {*seen, *rest}


async def test_resume_of_a_resumed_walk(world: World) -> None:
    """A walk may be broken and resumed again and again, each time in a client of its own, and ends with every message."""
    with Book.of(*[2] * 10).serve() as server:
        seen: list[str] = []
        cursor = None
        for _ in range(100):
            async with world.client(server) as cloudware:
                pager = cloudware.messages(cursor=cursor)
                seen += await take(pager, 3)
                cursor = pager.cursor
            if pager.done:
                break
        assert ids(20) == list(dict.fromkeys(seen))


async def test_resume_elsewhere(world: World) -> None:
    """A cursor keeps no origin and no base path: it goes on at whatever base URL the client has then."""

    def relayed(request: Received, base_url: str) -> bytes:
        return book().answer(request, base_url.replace("/v1", "/a/relay/v1"))

    with book().serve() as first, book().serve() as second, serving(relayed) as third:
        async with world.client(first) as cloudware:
            pager = cloudware.messages()
            await take(pager, 3)
            cursor = pager.cursor
        padded = cursor + "=" * (-len(cursor) % 4)
        assert f"{first.port}" not in base64.urlsafe_b64decode(padded).decode()
        async with world.client(second) as cloudware:
            assert ids(7, 2) == await read(cloudware.messages(cursor=cursor))
        async with world.client(base_url=f"http://127.0.0.1:{third.port}/a/relay/v1") as cloudware:
            assert ids(7, 2) == await read(cloudware.messages(cursor=cursor))
        assert ["", "p1"] == asked(first)
        assert TOKENS[1:] == asked(second) == asked(third)
        assert "/a/relay/v1/sms/messages?token=p1" == third.ledger[0].path


async def test_cursor_is_plain(world: World) -> None:
    """A cursor is a short text of URL-safe characters, and a fresh walk has one too."""
    with book().serve() as server:
        async with world.client(server) as cloudware:
            pager = cloudware.messages(phone="+40 & more", message="🎉")
            assert pager.cursor.replace("-", "").replace("_", "").isalnum()
            assert pager.cursor.isascii()
            assert ids(7) == await read(cloudware.messages(cursor=pager.cursor))
        assert "/v1/sms/messages?phone=%2B40%20%26%20more&message=%F0%9F%8E%89" == server.ledger[0].path


async def test_last_cursor(world: World) -> None:
    """The cursor of a walk that is done lists nothing and asks nothing."""
    with book().serve() as server:
        async with world.client(server) as cloudware:
            pager = cloudware.messages()
            await gather(pager)
            before = len(server.ledger)
            for resumed in (cloudware.messages(cursor=pager.cursor), cloudware.messages(cursor=pager.cursor, limit=5)):
                assert resumed.done
                assert [] == await gather(resumed)
                assert [] == await gather(resumed.pages())
                assert [] == await read(resumed, ahead=True)
                assert pager.cursor == resumed.cursor
        assert before == len(server.ledger)


async def test_limit_and_cursor(world: World) -> None:
    """`limit` counts what the resumed walk gives, and the repeated messages with it."""
    with book().serve() as server:
        async with world.client(server) as cloudware:
            pager = cloudware.messages()
            await take(pager, 3)
            assert ["id-2", "id-3"] == await read(cloudware.messages(cursor=pager.cursor, limit=2))


async def test_filters(world: World) -> None:
    """Each filter goes into the query under the wire's name, percent-encoded and nothing else."""
    with book().serve() as server:
        async with world.client(server) as cloudware:
            filters = {
                "device_id": "2254",
                "phone": "+40722000000",
                "to": "a b",
                "from_": "é",
                "message": "50% & = ?#/+",
            }
            assert ids(7) == await read(cloudware.messages(**filters))
            await read(cloudware.messages(phone=""))
        assert (
            "/v1/sms/messages?device_id=2254&phone=%2B40722000000&to=a%20b&from=%C3%A9"
            "&message=50%25%20%26%20%3D%20%3F%23%2F%2B"
        ) == server.ledger[0].path
        assert "/v1/sms/messages?token=p1" == server.ledger[1].path
        assert "/v1/sms/messages?phone=" == server.ledger[5].path


@pytest.mark.parametrize("name", ["device_id", "phone", "to", "from_", "message"])
@pytest.mark.parametrize("value", [5, b"5", True, ["5"], "half \ud83d"], ids=ascii)
async def test_bad_filter(world: World, name: str, value: Any) -> None:
    """A filter that is no text is refused at once, by its name."""
    with FaultServer() as server:
        async with world.client(server) as cloudware:
            with pytest.raises(InvalidArgumentError, match=name):
                cloudware.messages(**{name: value})
        assert 0 == server.connections


async def test_arguments_go_by_name(world: World) -> None:
    """No filter goes by position, and an unknown one is refused."""
    cloudware = world.make(TOKEN)
    with pytest.raises(TypeError):
        cloudware.messages("+40722000000")
    with pytest.raises(TypeError):
        cloudware.messages(sender="+40722000000")


async def test_cursor_and_filters(world: World) -> None:
    """A cursor keeps its filters: they may be left out or given again, and other ones are refused."""
    with book().serve() as server:
        async with world.client(server) as cloudware:
            pager = cloudware.messages(phone="+40", to="1")
            fresh = pager.cursor
            await take(pager, 3)
            for cursor in (fresh, pager.cursor):
                expected = ids(7) if cursor == fresh else ids(7, 2)
                assert expected == await read(cloudware.messages(cursor=cursor))
                assert expected == await read(cloudware.messages(cursor=cursor, to="1", phone="+40"))
                before = len(server.ledger)
                for filters in (
                    {"phone": "+41", "to": "1"},
                    {"phone": "+40"},
                    {"phone": "+40", "to": "1", "from_": "x"},
                ):
                    with pytest.raises(InvalidArgumentError, match="filters") as caught:
                        cloudware.messages(cursor=cursor, **filters)
                    assert not caught.value.may_have_been_sent
                assert before == len(server.ledger)


def encoded(fields: object) -> str:
    return base64.urlsafe_b64encode(json.dumps(fields).encode()).decode().rstrip("=")


@pytest.mark.parametrize(
    "cursor",
    [
        "",
        "garbage",
        "p1",
        "http://127.0.0.1/v1/sms/messages?token=p1",
        "é",
        "a\nb",
        "====",
        "e30",
        encoded(None),
        encoded([]),
        encoded("text"),
        encoded({"query": "token=p1"}),
        encoded({"v": 2, "query": "token=p1"}),
        encoded({"v": 1, "query": 5}),
        encoded({"v": 1, "query": "token=p1", "origin": "http://elsewhere.invalid"}),
        encoded({"v": 1, "query": "token=p1 HTTP/1.1\r\nHost: elsewhere.invalid\r\n\r\n"}),
        encoded({"v": 1, "query": "token=p1#part"}),
        encoded({"v": 1, "path": "//elsewhere.invalid/v1"}),
        encoded({"v": 1, "path": "http://elsewhere.invalid/v1"}),
        encoded({"v": 1, "path": "@elsewhere.invalid/v1"}),
        encoded({"v": 1, "path": "/\\elsewhere.invalid/v1"}),
        encoded({"v": 1, "path": "/a?b"}),
        encoded({"v": 1, "path": ""}),
        encoded({"v": 1, "path": 5}),
        encoded({"v": 1, "filters": []}),
        encoded({"v": 1, "filters": {"phone": 5}}),
        encoded({"v": 1, "filters": {"other": "x"}}),
        encoded({"v": 1, "filters": {"phone": "\ud83d"}}),
        encoded({"v": 1, "is_end": 1}),
        "A" * 100_000,
    ],
    ids=lambda cursor: repr(cursor)[:24],
)
async def test_foreign_cursor(world: World, cursor: str) -> None:
    """A cursor that this package did not write is a `PaginationError` at once; nothing is asked."""
    with FaultServer() as server:
        async with world.client(server) as cloudware:
            with pytest.raises(PaginationError) as caught:
                cloudware.messages(cursor=cursor)
        assert 0 == server.connections
    assert (cursor, False, 0) == (caught.value.cursor, caught.value.may_have_been_sent, caught.value.attempts)


async def test_damaged_cursor(world: World) -> None:
    """A cursor that was cut is refused, or is one of fewer messages; it never asks another origin."""
    with book().serve() as server:
        async with world.client(server) as cloudware:
            pager = cloudware.messages(phone="+40")
            await take(pager, 3)
            for length in range(len(pager.cursor)):
                with pytest.raises(PaginationError):
                    cloudware.messages(cursor=pager.cursor[:length])


@pytest.mark.parametrize("cursor", [5, b"e30", True, ["e30"]], ids=repr)
async def test_cursor_of_a_wrong_type(world: World, cursor: Any) -> None:
    """A cursor that is no string is a wrong argument."""
    with pytest.raises(InvalidArgumentError, match="cursor"):
        world.make(TOKEN).messages(cursor=cursor)


# ----------------------------------------------------------------------------------------------------
# Links


@pytest.mark.parametrize("ahead", [False, True])
@pytest.mark.parametrize("next_page", ["absent", None, ""])
async def test_last_page(world: World, next_page: str | None, ahead: bool) -> None:
    """A `next_page` that is absent, null or empty ends the walk."""
    last = {"data": [message(1)]} | ({} if next_page == "absent" else {"next_page": next_page})
    with serving(lambda *_: answer(json.dumps(last).encode())) as server:
        async with world.client(server) as cloudware:
            pager = cloudware.messages()
            assert ["id-1"] == await read(pager, ahead=ahead)
            assert pager.done
        assert 1 == len(server.ledger)


@pytest.mark.parametrize(
    ("link", "path"),
    [
        ("{base_url}/sms/messages?token=a%2Bb%2f==&x=%C3%A9", "/v1/sms/messages?token=a%2Bb%2f==&x=%C3%A9"),
        ("{base_url}/sms/messages?token=a+b&token=c", "/v1/sms/messages?token=a+b&token=c"),
        ("{base_url}/sms/messages?token=p1#part", "/v1/sms/messages?token=p1"),
        ("{base_url}/sms/messages/", "/v1/sms/messages/"),
        ("{origin}/other/list?p=1", "/other/list?p=1"),
        ("{origin}?p=1", "/?p=1"),
        ("{origin}/", "/"),
    ],
)
@pytest.mark.parametrize("is_resumed", [False, True])
async def test_link_is_followed_as_it_is(world: World, link: str, path: str, is_resumed: bool) -> None:
    """A link on the base URL's origin is asked for exactly as it stands there, at once and from a cursor."""

    def make(request: Received, base_url: str) -> bytes:
        if request.path != "/v1/sms/messages":
            return page_of([message(1)])
        return page_of([message(0)], link.format(base_url=base_url, origin=base_url.removesuffix("/v1")))

    with serving(make) as server:
        async with world.client(server) as cloudware:
            pager = cloudware.messages()
            if is_resumed:
                async for page in pager.pages():
                    break
                assert ["id-1"] == await read(cloudware.messages(cursor=page.cursor))
            else:
                assert ids(2) == await read(pager)
        assert ["/v1/sms/messages", path] == [request.path for request in server.ledger]


FOREIGN = [
    "http://127.0.0.1:{stranger}/v1/sms/messages?token=p1",
    "http://localhost:{port}/v1/sms/messages?token=p1",
    "http://127.0.0.1/v1/sms/messages?token=p1",
    "https://127.0.0.1:{port}/v1/sms/messages?token=p1",
    "ftp://127.0.0.1:{port}/v1/sms/messages?token=p1",
    "http://127.0.0.1:{port}@127.0.0.1:{stranger}/v1/sms/messages",
    "http://user@127.0.0.1:{port}/v1/sms/messages",
    "http://127.0.0.1:{stranger}\\@127.0.0.1:{port}/v1/sms/messages",
    "http://127.0.0.1.elsewhere.invalid:{port}/v1/sms/messages",
    "http://127.0.0.1:{port}//127.0.0.1:{stranger}/v1/sms/messages",
    "//127.0.0.1:{port}/v1/sms/messages?token=p1",
    "/v1/sms/messages?token=p1",
    "?token=p1",
    "p1",
    " http://127.0.0.1:{port}/v1/sms/messages?token=p1",
    "http://127.0.0.1:{port}/v1/sms/messages?token=p 1",
    "http://127.0.0.1:{port}/v1/sms/messages?token=\r\nHost: elsewhere.invalid",
    "http://127.0.0.1:{port}/v1/sms/messages?token=é",
    "http://127.0.0.1:99999/v1/sms/messages",
    "http://[::1/v1",
    5,
    0,
    False,
    True,
    [],
    {},
    ["http://127.0.0.1:{port}/v1/sms/messages?token=p1"],
]


@pytest.mark.parametrize("link", FOREIGN, ids=lambda link: repr(link)[:40])
@pytest.mark.parametrize("how", ["messages", "pages", "ahead"])
async def test_foreign_link(world: World, how: str, link: object) -> None:
    """A link off the base URL's origin is not followed: the page's messages, then a `PaginationError`, again and again."""

    def make(request: Received, base_url: str) -> bytes:
        there = link
        if isinstance(link, str):
            there = link.replace("{port}", f"{server.port}").replace("{stranger}", f"{stranger.port}")
        return page_of([message(0), message(1)], there)

    with FaultServer() as stranger, serving(make) as server:
        async with world.client(server) as cloudware:
            pager = cloudware.messages()
            seen: list[str] = []
            with pytest.raises(PaginationError, match="origin") as caught:
                if how == "pages":
                    async for page in pager.pages():
                        seen += numbers(page.messages)
                elif how == "messages":
                    async for sms in pager:
                        seen.append(sms.message_id)
                else:
                    async with pager.read_ahead() as messages:
                        async for sms in messages:
                            seen.append(sms.message_id)
            assert ids(2) == seen
            assert (False, pager.cursor) == (caught.value.may_have_been_sent, caught.value.cursor)
            assert not pager.done
            with pytest.raises(PaginationError):
                await gather(pager)
            assert 1 == len(server.ledger)
            resumed = cloudware.messages(cursor=caught.value.cursor)
            assert ids(2) == await take(resumed, 2)
            with pytest.raises(PaginationError):
                await gather(resumed)
        assert (0, 2) == (stranger.connections, len(server.ledger))


async def test_foreign_link_under_a_limit(world: World) -> None:
    """A bad link after the last message that `limit` allows is nobody's business."""
    with serving(lambda *_: page_of([message(0), message(1)], "http://elsewhere.invalid/")) as server:
        async with world.client(server) as cloudware:
            assert ids(2) == await read(cloudware.messages(limit=2))
            assert ids(2) == await read(cloudware.messages(limit=2), ahead=True)
            (page,) = await gather(cloudware.messages(limit=2).pages())
            assert ids(2) == numbers(page.messages)


LOOPS = {
    "a page to itself": {"p1": "p1"},
    "the first page to itself": {"": ""},
    "back to the first": {"p1": "p2", "p2": ""},
    "a ring": {"p1": "p2", "p2": "p3", "p3": "p1"},
}


@pytest.mark.parametrize("links", LOOPS.values(), ids=LOOPS)
@pytest.mark.parametrize("how", ["messages", "pages", "ahead"])
async def test_loop(world: World, how: str, links: dict[str, str]) -> None:
    """A listing that leads in a circle is walked once round, and then it is a `PaginationError`."""

    def make(request: Received, base_url: str) -> bytes:
        token = request.path.partition("token=")[2]
        there = links.get(token, "p1")
        return page_of(
            [message(0, message_id=token)], f"{base_url}/sms/messages" + (f"?token={there}" if there else "")
        )

    with serving(make) as server:
        async with world.client(server) as cloudware:
            pager = cloudware.messages()
            seen: list[str] = []
            with pytest.raises(PaginationError, match="circle") as caught:
                if how == "pages":
                    async for page in pager.pages():
                        seen += numbers(page.messages)
                elif how == "messages":
                    async for sms in pager:
                        seen.append(sms.message_id)
                else:
                    async with pager.read_ahead() as messages:
                        async for sms in messages:
                            seen.append(sms.message_id)
            assert len(seen) == len(set(seen)) == len(server.ledger)
            assert seen == asked(server)
            assert {"", *links} == set(seen)
            assert (pager.cursor, False) == (caught.value.cursor, caught.value.may_have_been_sent)
            with pytest.raises(PaginationError, match="circle"):
                await gather(pager)
            assert len(seen) == len(server.ledger)


async def test_same_filters_in_the_link_are_a_loop(world: World) -> None:
    """A link to the first page, filters and all, is known as that page."""
    with serving(lambda request, base_url: page_of([message(0)], f"{base_url}/sms/messages?phone=%2B40")) as server:
        async with world.client(server) as cloudware:
            with pytest.raises(PaginationError, match="circle"):
                await gather(cloudware.messages(phone="+40"))
        assert 1 == len(server.ledger)


# ----------------------------------------------------------------------------------------------------
# Bad pages

BAD_MESSAGES = [
    ({"to": 5}, ".to"),
    ({"to": None}, ".to"),
    ({"from": None}, ".from"),
    ({"message": None}, ".message"),
    ({"message": ["text"]}, ".message"),
    ({"type": None}, ".type"),
    ({"message_id": 1.5}, ".message_id"),
    ({"message_id": True}, ".message_id"),
    ({"created_at": "yesterday"}, ".created_at"),
    ({"created_at": 1700000000}, ".created_at"),
    ({"sent_at": "2020-02-30T00:00:00Z"}, ".sent_at"),
]


@pytest.mark.parametrize("ahead", [False, True])
@pytest.mark.parametrize(("change", "place"), BAD_MESSAGES, ids=repr)
async def test_malformed_message(world: World, change: dict[str, object], place: str, ahead: bool) -> None:
    """The readable messages of a page with a malformed one are handed out; then the error names the place, and the
    walk goes on behind it.
    """
    bad = [message(2), message(3), message(4), message(99, **change), message(5)]
    listing = Book([[message(0), message(1)], bad, [message(6)]])
    with listing.serve() as server:
        async with world.client(server) as cloudware:
            pager = cloudware.messages()
            seen: list[str] = []

            async def walk() -> None:
                async for sms in pager:
                    seen.append(sms.message_id)

            with pytest.raises(APIResponseError) as caught:
                if ahead:
                    async with pager.read_ahead():
                        await walk()
                else:
                    await walk()
            error = caught.value
            assert ids(6) == seen
            assert f"data[3]{place}" == error.place
            assert f"data[3]{place}" in str(error)
            assert not error.may_have_been_sent
            assert [ids(6, 2), error.cursor] == [numbers(error.page.messages), error.page.cursor]
            assert pager.cursor == error.cursor != error.page_cursor
            # behind it, in a walk of its own and in this one
            assert ["id-6"] == await read(cloudware.messages(cursor=error.cursor))
            assert ["id-6"] == await read(pager)
            # before it
            again = cloudware.messages(cursor=error.page_cursor)
            assert ids(6, 2) == await take(again, 4)
            with pytest.raises(APIResponseError, match=r"data\[3\]"):
                await gather(again)
        assert ["", "p1"] == asked(server)[:2]


@pytest.mark.parametrize("item", [None, 5, "text", [], True], ids=repr)
async def test_message_that_is_none(world: World, item: object) -> None:
    """An item that is no object at all is named too."""
    with serving(lambda *_: page_of([message(0), item, message(1)])) as server:
        async with world.client(server) as cloudware:
            pager = cloudware.messages()
            assert ids(2) == await take(pager, 2)
            with pytest.raises(APIResponseError, match=r"data\[1\] is not an object") as caught:
                await gather(pager)
            assert "data[1]" == caught.value.place
            assert pager.done
            assert [] == await read(cloudware.messages(cursor=caught.value.cursor))


@pytest.mark.parametrize("name", ["type", "from", "to", "message"])
async def test_missing_field(world: World, name: str) -> None:
    """A required field that is missing is named by the wire's name."""
    bad = message(1)
    del bad[name]
    with serving(lambda *_: page_of([message(0), bad])) as server:
        async with world.client(server) as cloudware:
            with pytest.raises(APIResponseError, match=rf"data\[1\]\.{name} is missing"):
                await gather(cloudware.messages())


async def test_malformed_message_among_pages(world: World) -> None:
    """`pages()` raises for a page with a malformed message at once, hands out what could be read, and goes on."""
    listing = Book([[message(0)], [message(1), message(99, to=5), message(2)], [message(3)]])
    with listing.serve() as server:
        async with world.client(server) as cloudware:
            pager = cloudware.messages()
            pages: list[Page] = []
            with pytest.raises(APIResponseError) as caught:
                async for page in pager.pages():
                    pages.append(page)
            assert [["id-0"]] == [numbers(page.messages) for page in pages]
            assert ids(3, 1) == numbers(caught.value.page.messages)
            assert [["id-3"]] == [numbers(page.messages) for page in await gather(pager.pages())]
            assert ["id-3"] == await read(cloudware.messages(cursor=caught.value.cursor))
            assert pager.done
        assert ["", "p1", "p2", "p2"] == asked(server)


async def test_several_malformed_messages(world: World) -> None:
    """The first malformed message is named; the others do not block the walk either."""
    listing = Book([[message(99, to=5), message(0), message(98, type=None)], [message(97, to=None)], [message(1)]])
    with listing.serve() as server:
        async with world.client(server) as cloudware:
            pager = cloudware.messages()
            seen: list[str] = []
            places: list[str] = []
            while not pager.done:
                try:
                    async for sms in pager:
                        seen.append(sms.message_id)
                except APIResponseError as error:
                    places.append(error.place)
            assert (ids(2), ["data[0].to", "data[0].to"]) == (seen, places)


async def test_an_error_of_a_page_tells_of_the_attempts(world: World) -> None:
    """What is wrong with a page that came, or with its link, tells how many attempts that took."""
    gone = (ReadRequest(), Send(answer(b"", 503)))
    for page in (b'{"data": [1]}', b'{"data": [], "next_page": "https://elsewhere.invalid/"}'):
        with FaultServer(Script((gone,), then=(ReadRequest(), Send(answer(page))))) as server:
            async with world.client(server, retry=QUICK) as cloudware:
                with pytest.raises(CloudwareError) as caught:
                    await gather(cloudware.messages())
        assert 2 == caught.value.attempts


BAD_PAGES: dict[str, bytes] = {
    "empty": answer(b""),
    "HTML": answer(b"<html></html>", 200),
    "cut": answer(b'{"data": [{"type": "message_rec'),
    "null": answer(b"null"),
    "a list": answer(b"[]"),
    "no data": answer(b"{}"),
    "data null": answer(b'{"data": null}'),
    "data an object": answer(b'{"data": {}}'),
    "an error in a 200": answer(b'{"status": "error"}'),
    "not a number": answer(b'{"data": [NaN]}'),
    "no UTF-8": answer(b'{"data": ["\xff"]}'),
    "too deep": answer(b"[" * 200_000),
    "an unknown coding": answer(b'{"data": []}', 200, b"Content-Encoding: br"),
    "a broken coding": answer(b'{"data": []}', 200, b"Content-Encoding: gzip"),
}


@pytest.mark.parametrize("page", BAD_PAGES.values(), ids=BAD_PAGES)
@pytest.mark.parametrize("how", ["messages", "pages", "ahead"])
async def test_unreadable_page(world: World, how: str, page: bytes) -> None:
    """A page that cannot be read at all is an `APIResponseError`, is not repeated, and the cursor stays before it."""
    listing = book(changes={1: page})
    with listing.serve() as server:
        async with world.client(server) as cloudware:
            pager = cloudware.messages()
            seen: list[str] = []
            with pytest.raises(APIResponseError) as caught:
                if how == "pages":
                    async for whole in pager.pages():
                        seen += numbers(whole.messages)
                elif how == "messages":
                    async for sms in pager:
                        seen.append(sms.message_id)
                else:
                    async with pager.read_ahead() as messages:
                        async for sms in messages:
                            seen.append(sms.message_id)
            assert ids(2) == seen
            assert caught.value.place in (None, "data")
            assert (pager.cursor, None, None) == (caught.value.cursor, caught.value.page, caught.value.page_cursor)
            assert ["", "p1"] == asked(server)
            # once the service is well again, this walk and another one go on there
            listing.changes.clear()
            assert ids(7, 2) == await read(cloudware.messages(cursor=caught.value.cursor))
            assert ids(7, 2) == await read(pager)


# ----------------------------------------------------------------------------------------------------
# Walks that break

CLOSED: Act = (ReadRequest(), Close())
BREAKS: dict[str, tuple[Act, type[CloudwareError]]] = {
    "closed": (CLOSED, APIConnectionError),
    "reset in the body": ((ReadRequest(), Send(page_of([message(1)])[:-5]), Reset()), APIConnectionError),
    "hang": (HANG, APITimeoutError),
    "500": (FAIL, ServerError),
    "429": ((ReadRequest(), Answer(b"", 429)), RateLimitError),
}


@pytest.mark.parametrize("how", ["messages", "pages", "ahead"])
@pytest.mark.parametrize("broken", range(5))
@pytest.mark.parametrize(("act", "kind"), BREAKS.values(), ids=BREAKS)
async def test_broken_walk(world: World, act: Act, kind: type[CloudwareError], broken: int, how: str) -> None:
    """A walk that breaks at any page has handed out all before it, and goes on by the error's cursor without a gap."""
    acts = tuple((ReadRequest(), Reply(book().answer)) for _ in range(broken))
    # aiohttp asks once more by itself
    strikes = 2 if world.name == "aiohttp" and act == CLOSED else 1
    with book().serve(*acts, *[act] * strikes) as server:
        # long enough for the pages that do come, on a machine that is busy
        timeout = 1.0 if kind is APITimeoutError else PATIENCE
        async with world.client(server, retry=None, timeout=timeout) as cloudware:
            pager = cloudware.messages()
            seen: list[str] = []
            with pytest.raises(kind) as caught:
                if how == "pages":
                    async for page in pager.pages():
                        seen += numbers(page.messages)
                elif how == "messages":
                    async for sms in pager:
                        seen.append(sms.message_id)
                else:
                    async with pager.read_ahead() as messages:
                        async for sms in messages:
                            seen.append(sms.message_id)
            assert ids(sum(SIZES[:broken])) == seen
            assert (pager.cursor, False) == (caught.value.cursor, caught.value.may_have_been_sent)
            assert not pager.done
            patient = cloudware.with_options(timeout=PATIENCE)
            assert ids(7, sum(SIZES[:broken])) == await read(patient.messages(cursor=caught.value.cursor))
            # the walk itself goes on, too
            assert ids(7, sum(SIZES[:broken])) == await read(pager)
            assert pager.done


async def test_broken_again_and_again(world: World) -> None:
    """A walk whose every second request fails gets to its end, and no message is given twice."""
    reply: Act = (ReadRequest(), Reply(book().answer))
    with book().serve(*[FAIL, reply] * 5) as server:
        async with world.client(server, retry=None) as cloudware:
            pager = cloudware.messages()
            seen: list[str] = []
            while not pager.done:
                try:
                    async with pager.read_ahead() as messages:
                        async for sms in messages:
                            seen.append(sms.message_id)
                except ServerError as error:
                    assert pager.cursor == error.cursor
            assert ids(7) == seen


# ----------------------------------------------------------------------------------------------------
# Reading ahead


async def test_read_ahead_gives_the_same(world: World) -> None:
    """Reading ahead gives the same messages, pages and requests, over one connection at a time."""
    with book().serve() as server:
        async with world.client(server) as cloudware:
            assert ids(7) == await read(cloudware.messages(), ahead=True)
            assert TOKENS == asked(server)
            async with cloudware.messages().read_ahead() as messages:
                pages = await gather(messages.pages())
            assert [ids(2), ids(5, 2), [], ["id-5"], ["id-6"]] == [numbers(page.messages) for page in pages]
            assert TOKENS * 2 == asked(server)
        assert 1 == server.connections


async def test_read_ahead_is_ahead(world: World) -> None:
    """While the first message of a page is held, the next page is asked for; the one after that is not."""
    with Book.of(2, 2, 2, 2).serve() as server:
        async with world.client(server) as cloudware, cloudware.messages().read_ahead() as messages:
            count = 0
            async for _ in messages:
                expected = min(count // 2 + 2, 4)
                assert await world.wait(server.wait_for, expected + count)
                await cloudware.with_options(from_="Shop").send(TO, "a round trip")
                assert expected == len(asked(server))
                count += 1
        assert 8 == count


async def test_read_ahead_hides_the_wait(world: World) -> None:
    """Nothing is handed out late: the next page may hang while this one is worked on."""
    gate = Gate()
    answers = Book.of(2, 2).answer
    script = Script(((ReadRequest(), Reply(answers)), (ReadRequest(), Hold(gate), Reply(answers))))
    with FaultServer(script) as server, gate:
        async with world.client(server) as cloudware, cloudware.messages().read_ahead() as messages:
            assert ids(2) == await take(messages, 2)
            assert await world.wait(gate.wait_for, 1)
            gate.open()
            assert ids(4, 2) == await read(messages)


@pytest.mark.worlds("asyncio", "aiohttp", reason="a task's own cancel() is asyncio's")
@pytest.mark.parametrize("when", ["before its first step", "under way"])
async def test_read_ahead_whose_task_is_cancelled(world: World, when: str) -> None:
    """Whoever cancels every task there is cancels the fetch too: the walk asks again, and the block can be left."""
    with Book.of(2, 2, 2).serve() as server:
        async with world.client(server) as cloudware:
            async with cloudware.messages().read_ahead() as messages:
                assert ids(1) == await take(messages, 1)
                if when == "under way":
                    await asyncio.sleep(0)
                (fetch,) = [task for task in asyncio.all_tasks() if task.get_name() == "cloudware-read-ahead"]
                fetch.cancel()
                assert ids(6, 1) == await read(messages)
            async with cloudware.messages().read_ahead() as messages:
                await take(messages, 1)
                for task in asyncio.all_tasks() - {asyncio.current_task()}:
                    if task.get_name() == "cloudware-read-ahead":
                        task.cancel()


async def test_read_ahead_without_reading(world: World) -> None:
    """A block in which nothing is read asks nothing; nor does one over a walk that is done."""
    with book().serve() as server:
        async with world.client(server) as cloudware:
            async with cloudware.messages().read_ahead():
                pass
            async with cloudware.messages(limit=0).read_ahead() as messages:
                assert [] == await gather(messages)
            assert 0 == server.connections
            pager = cloudware.messages()
            await gather(pager)
            assert [] == await read(pager, ahead=True)
        assert TOKENS == asked(server)


async def test_read_ahead_in_turns(world: World) -> None:
    """A walk may read ahead, go on without, and read ahead again; it gives each message once."""
    with book().serve() as server:
        async with world.client(server) as cloudware:
            pager = cloudware.messages()
            seen: list[str] = []
            for count in (1, 2, 1):
                async with pager.read_ahead() as messages:
                    assert await world.wait(server.wait_for, 1) if seen else True
                    seen += await take(messages, count)
                seen += await take(pager, 1)
            assert ids(7) == seen
            assert [] == await gather(pager)


async def test_read_ahead_within_itself(world: World) -> None:
    """Reading ahead twice at once is once, or is refused; it never loses a message or leaves a task."""
    with book().serve() as server:
        async with world.client(server) as cloudware:
            pager = cloudware.messages()
            async with pager.read_ahead() as outer:
                seen = await take(outer, 1)
                try:
                    async with pager.read_ahead() as inner:
                        seen += await take(inner, 2)
                except (CloudwareError, RuntimeError):
                    pass
                seen += await read(outer)
            assert ids(7) == seen


BODIES: list[Callable[[], BaseException]] = [
    lambda: LookupError("mine"),
    lambda: StopIteration("mine"),
    lambda: StopAsyncIteration("mine"),
    lambda: ExceptionGroup("mine", [LookupError()]),
    lambda: TimeoutError("mine"),
    lambda: GeneratorExit("mine"),
    lambda: KeyboardInterrupt("mine"),
    lambda: SystemExit("mine"),
]


@pytest.mark.parametrize("make", BODIES, ids=lambda make: type(make()).__name__)
@pytest.mark.parametrize("act", [HANG, FAIL, HEALTHY], ids=["hangs", "failed", "done"])
async def test_exception_of_the_body(world: World, act: Act, make: Callable[[], BaseException]) -> None:
    """What the body raises leaves as itself, at once, whatever the fetch in the background does."""
    mine = make()
    first: Act = (ReadRequest(), Reply(book().answer))
    with book().serve(first, act) as server:
        async with world.client(server, retry=None, timeout=60) as cloudware:
            caught: BaseException | None = None
            pager = cloudware.messages()
            with within(PATIENCE):
                try:
                    async with pager.read_ahead() as messages:
                        async for _ in messages:
                            assert await world.wait(server.wait_for, 2)
                            raise mine
                except BaseException as error:  # noqa: BLE001 (every kind is tried)
                    caught = error
            if world.is_blocking and isinstance(mine, (StopIteration, StopAsyncIteration)):
                # the adapter of this world is a generator, which may not let them through: the client's own blocks do
                assert caught is not None
                assert mine is (caught if caught is mine else caught.__cause__)
            else:
                assert mine is caught
            assert [] == client_threads()
            assert ids(7, 1) == await read(pager)


async def test_failure_in_the_background(world: World) -> None:
    """A failed fetch is raised as itself once the messages before it were handed out, and the block may go on."""
    first: Act = (ReadRequest(), Reply(book().answer))
    with book().serve(first, FAIL) as server:
        async with world.client(server, retry=None) as cloudware:
            pager = cloudware.messages()
            async with pager.read_ahead() as messages:
                seen = await take(messages, 1)
                assert await world.wait(server.wait_for, 2)
                seen += await take(messages, 1)
                assert ids(2) == seen
                with pytest.raises(ServerError) as caught:
                    await take(messages, 1)
                assert (pager.cursor, False) == (caught.value.cursor, caught.value.may_have_been_sent)
                assert ids(7, 2) == await read(messages)
        assert ["", "p1", *TOKENS[1:]] == asked(server)


async def test_failure_that_leaves_the_block(world: World) -> None:
    """So too where the block does not catch it: no group, and the pager goes on after it."""
    first: Act = (ReadRequest(), Reply(book().answer))
    with book().serve(first, FAIL) as server:
        async with world.client(server, retry=None) as cloudware:
            pager = cloudware.messages()
            with pytest.raises(ServerError):
                await read(pager, ahead=True)
            assert ids(7, 2) == await read(pager)


async def test_failure_that_nobody_asks_for(world: World) -> None:
    """A failed fetch whose page is not asked for is nobody's business."""
    first: Act = (ReadRequest(), Reply(book().answer))
    with book().serve(first, FAIL) as server:
        async with world.client(server, retry=None) as cloudware:
            pager = cloudware.messages()
            async with pager.read_ahead() as messages:
                await take(messages, 1)
                assert await world.wait(server.wait_for, 2)
            assert ids(7, 1) == await read(pager)


LEAVING: dict[str, Act] = {
    "hangs": HANG,
    "hangs in the body": (ReadRequest(), Send(page_of([message(1)])[:-5]), Hang()),
    "trickles": (ReadRequest(), Trickle(b"HTTP/1.1 200 OK\r\n" + b"X: 1\r\n" * 10_000)),
}


@pytest.mark.parametrize("act", LEAVING.values(), ids=LEAVING)
async def test_leaving_early(world: World, act: Act) -> None:
    """Leaving the block ends the fetch at once, its connection and its thread, though the server would hang for long."""
    first: Act = (ReadRequest(), Reply(book().answer))
    with book().serve(first, act) as server:
        async with world.client(server, timeout=60) as cloudware:
            pager = cloudware.messages()
            async with pager.read_ahead() as messages:
                await take(messages, 1)
                assert await world.wait(server.wait_for, 2)
                if world.is_blocking:
                    assert 1 == len(client_threads())
                began = anyio.current_time() if not world.is_blocking else None
            assert began is None or anyio.current_time() - began < PATIENCE
            assert [] == client_threads()
            assert await world.wait(server.wait_for_ended, 1)
            with within(PATIENCE):
                assert ids(7, 1) == await read(pager)


async def leave(world: World, server: FaultServer, cloudware: Any) -> None:
    """Enter, read one message, wait for the second request, and leave, in a moment."""
    async with cloudware.messages().read_ahead() as messages:
        await take(messages, 1)
        assert await world.wait(server.wait_for, 2)
        left = threading.Event()
        watch = threading.Timer(PATIENCE, left.set)
        watch.start()
    watch.cancel()
    assert not left.is_set(), "leaving took too long"
    assert [] == client_threads()


async def test_leaving_before_a_retry(world: World) -> None:
    """Leaving does not wait for the pause before a retry."""
    first: Act = (ReadRequest(), Reply(book().answer))
    with book().serve(first, (ReadRequest(), Answer(b"", 429, (b"Retry-After: 30",)))) as server:
        async with world.client(server, timeout=60) as cloudware:
            await leave(world, server, cloudware)
        assert 2 == len(server.ledger)


async def test_leaving_while_no_connection_is_free(world: World) -> None:
    """Leaving does not wait for a connection that others hold."""
    first: Act = (ReadRequest(), Reply(book().answer))
    with book().serve(first, first, HANG) as server:
        async with world.client(server, timeout=2 * PATIENCE, max_connections=1, retry=None) as cloudware:
            async with world.crew() as crew:
                async with cloudware.messages().read_ahead() as messages:
                    await take(messages, 2)
                    assert await world.wait(server.wait_for, 2)
                    view = cloudware.with_options(timeout=1.5)
                    job = crew.start(lambda: view.send(TO, "holds the only connection"))
                    assert await world.wait(server.wait_for, 3)
                    # the next fetch has to wait for it
                    await take(messages, 1)
                    left = threading.Event()
                    watch = threading.Timer(1.0, left.set)
                    watch.start()
                watch.cancel()
                assert not left.is_set(), "leaving took too long"
            assert isinstance(job.error, APITimeoutError)


async def test_closed_client(world: World) -> None:
    """A client that is closed in mid-walk says so, as itself."""
    with book().serve() as server:
        async with world.client(server) as cloudware:
            pager = cloudware.messages()
            with pytest.raises(ConfigurationError, match="closed"):
                async with pager.read_ahead() as messages:
                    await take(messages, 2)
                    assert await world.wait(server.wait_for, 2)
                    await take(messages, 1)
                    await cloudware.aclose()
                    await gather(messages)


@pytest.mark.worlds("blocking", reason="there only, reading ahead takes a thread")
async def test_one_thread(world: World) -> None:
    """Reading ahead takes one thread, whatever the number of pages, and it ends with the block."""
    with Book.of(*[1] * 20).serve() as server:
        async with world.client(server) as cloudware:
            async with cloudware.messages().read_ahead() as messages:
                assert [] == client_threads()
                alive = {thread.ident async for _ in messages for thread in client_threads()}
            assert 1 == len(alive)
            assert [] == client_threads()


# Cancellation


def tasks() -> int:
    return len(anyio.get_running_tasks())


@pytest.mark.worlds("asyncio", "trio", reason="nothing cancels a blocking call")
@pytest.mark.parametrize("where", ["waiting for the page", "working"])
async def test_cancelled_block(world: World, where: str) -> None:
    """A block that is cancelled from outside leaves with the loop's own exception, and leaves no task behind."""
    first: Act = (ReadRequest(), Reply(book().answer))
    with book().serve(first, HANG) as server:
        async with world.client(server, timeout=60) as cloudware:
            pager = cloudware.messages()
            before = tasks()
            seen: list[str] = []
            with within(GRACE + 0.3), pytest.raises(TimeoutError) as caught, anyio.fail_after(0.3):
                async with pager.read_ahead() as messages:
                    async for sms in messages:
                        seen.append(sms.message_id)
                        if where == "working":
                            await anyio.sleep_forever()
            assert not isinstance(caught.value, CloudwareError)
            assert ids(1 if where == "working" else 2) == seen
            assert before == tasks()
            assert await world.wait(server.wait_for_ended, 1)
            assert ids(7, len(seen)) == await read(pager)


@pytest.mark.worlds("asyncio", reason="a task's own cancel() is asyncio's")
@pytest.mark.parametrize("where", ["waiting for the page", "working"])
async def test_native_cancellation_of_a_block(world: World, where: str) -> None:
    """`asyncio.timeout` and a task's `cancel()` end a block as they end anything."""
    first: Act = (ReadRequest(), Reply(book().answer))
    for how in ("timeout", "cancel"):
        with book().serve(first, HANG) as server:
            async with world.client(server, timeout=60) as cloudware:
                pager = cloudware.messages()
                reached = asyncio.Event()

                async def work() -> None:
                    async with pager.read_ahead() as messages:  # noqa: B023 (run in this turn)
                        async for _ in messages:
                            reached.set()  # noqa: B023 (the same)
                            if where == "working":
                                await anyio.sleep_forever()

                before = tasks()
                with within(GRACE + 0.3):
                    if how == "timeout":
                        with pytest.raises(TimeoutError):
                            async with asyncio.timeout(0.3):
                                await work()
                    else:
                        task = asyncio.create_task(work())
                        await reached.wait()
                        task.cancel()
                        with pytest.raises(asyncio.CancelledError):
                            await task
                        assert task.cancelled()
                assert before == tasks()
                current = asyncio.current_task()
                assert current is not None
                assert 0 == current.cancelling()


@pytest.mark.worlds("asyncio", "trio", reason="nothing cancels a blocking call")
async def test_block_in_a_cancelled_scope(world: World) -> None:
    """What the body raises while its scope is cancelled is not swallowed by the end of the block."""
    with book().serve() as server:
        async with world.client(server) as cloudware:
            with pytest.raises(LookupError, match="mine"), anyio.CancelScope() as scope:
                async with cloudware.messages().read_ahead() as messages:
                    await take(messages, 1)
                    scope.cancel()
                    raise LookupError("mine")


@pytest.mark.worlds("asyncio", "trio", reason="nothing cancels a blocking call")
async def test_break_out_of_a_block(world: World) -> None:
    """Returning out of the block, with the next page on its way, ends all and cancels nobody else."""

    async def first_of(cloudware: Any) -> str:
        async with cloudware.messages().read_ahead() as messages:
            async for sms in messages:
                return sms.message_id
        raise AssertionError

    with book().serve() as server:
        async with world.client(server) as cloudware:
            before = tasks()
            for _ in range(20):
                assert "id-0" == await first_of(cloudware)
            assert before == tasks()
            await anyio.lowlevel.checkpoint()


@pytest.mark.worlds("asyncio", "trio", "aiohttp", reason="nothing cancels a blocking call")
async def test_an_interrupted_wait_is_taken_up_again(world: World) -> None:
    """A wait for the page that is fetched ahead may be cut short, and the walk goes on where it was."""
    with Gate() as gate:
        first: Act = (ReadRequest(), Reply(book().answer))
        with book().serve(first, (ReadRequest(), Hold(gate), Reply(book().answer))) as server:
            async with world.client(server) as cloudware:
                pager = cloudware.messages()
                async with pager.read_ahead() as messages:
                    seen = await take(messages, SIZES[0])
                    with anyio.move_on_after(0.05) as scope:
                        await anext(messages)
                    assert scope.cancelled_caught
                    gate.open()
                    seen += numbers(await gather(messages))
            assert ids(7) == seen
            assert sorted({*asked(server)}) == sorted(asked(server))


@pytest.mark.worlds("asyncio", "trio", "aiohttp", reason="a blocking generator is closed where it is")
async def test_a_generator_that_reads_ahead(world: World) -> None:
    """Whoever leaves a generator that reads ahead is not cancelled when its end comes, in whatever task."""

    async def stream(cloudware: Any) -> AsyncIterator[str]:
        async with cloudware.messages().read_ahead() as messages:
            async for sms in messages:
                yield sms.message_id

    with book().serve() as server:
        async with world.client(server) as cloudware:
            before = tasks()
            generator = stream(cloudware)
            assert "id-0" == await anext(generator)
            async with anyio.create_task_group() as group:
                group.start_soon(generator.aclose)
            await anyio.lowlevel.checkpoint()
            assert before == tasks()


async def test_a_walk_in_two_hands(world: World) -> None:
    """A walk that is used by two at once says so, and neither gets what is the other's."""
    script = Script(then=(ReadRequest(), Hold(gate := Gate()), Reply(book().answer)))
    with gate, FaultServer(script) as server:
        async with world.client(server) as cloudware:
            pager = cloudware.messages()
            async with world.crew() as crew:
                job = crew.start(lambda: take(pager, 1))
                assert await world.wait(gate.wait_for, 1)
                with pytest.raises(InvalidArgumentError, match="in use by another"):
                    await take(pager, 1)
                gate.open()
            assert ids(1) == job.result()
            assert ids(7, 1) == await read(pager)


@pytest.mark.parametrize("how", ["messages", "pages"])
@pytest.mark.parametrize("limit", [1, 2])
async def test_a_limit_before_a_malformed_message(world: World, how: str, limit: int) -> None:
    """What is wrong with a page beyond the limit is nobody's business, however it is walked."""
    listing = Book.of(3, 1)
    listing.pages[0][2]["to"] = None
    with listing.serve() as server:
        async with world.client(server) as cloudware:
            pager = cloudware.messages(limit=limit)
            if how == "messages":
                seen = await gather(pager)
                cursor = pager.cursor
            else:
                [page] = await gather(pager.pages())
                seen, cursor = page.messages, page.cursor
                assert cursor == pager.cursor
            assert ids(limit) == numbers(seen)
            # the page is not over, and its cursor leads there
            with pytest.raises(APIResponseError):
                await gather(cloudware.messages(cursor=cursor))


@pytest.mark.parametrize("how", ["messages", "pages"])
@pytest.mark.parametrize("bad", [0, 1])
async def test_a_limit_behind_a_malformed_message(world: World, how: str, bad: int) -> None:
    """What is wrong with a page before its last message that `limit` takes is told, and no cursor skips it."""
    listing = Book.of(3, 1)
    listing.pages[0][bad]["to"] = None
    with listing.serve() as server:
        async with world.client(server) as cloudware:
            pager = cloudware.messages(limit=2)
            seen: list[str] = []
            with pytest.raises(APIResponseError) as caught:
                if how == "messages":
                    async for sms in pager:
                        seen.append(sms.message_id)
                else:
                    await gather(pager.pages())
            assert f"data[{bad}].to" == caught.value.place
            assert caught.value.page is not None
            readable = [name for name in ids(3) if name != f"id-{bad}"]
            assert readable == numbers(caught.value.page.messages)
            assert how == "pages" or readable == seen
            assert ids(4, 3) == await read(cloudware.messages(cursor=caught.value.cursor))
            # which is all that was asked for
            assert [] == await gather(pager)


async def test_many_walks_at_once(world: World) -> None:
    """Ten walks that read ahead side by side, on three connections, each give every message once."""
    with book().serve() as server:
        async with world.client(server, max_connections=3) as cloudware:
            walks = [lambda: read(cloudware.messages(), ahead=True) for _ in range(10)]
            assert [ids(7)] * 10 == await world.together(*walks)
        assert server.connections <= 3
        assert sorted(TOKENS * 10) == sorted(asked(server))


class Vanishing:
    """A server that hands out one page, closes, and then completes no further connection."""

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=0)
        self._fillers: list[socket.socket] = []
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self.base_url = f"http://127.0.0.1:{self._listener.getsockname()[1]}/v1"

    def _serve(self) -> None:
        client, _ = self._listener.accept()
        with client:
            client.recv(65536)
            for _ in range(32):
                filler = socket.socket()
                filler.settimeout(0.2)
                self._fillers.append(filler)
                try:
                    filler.connect(self._listener.getsockname())
                except TimeoutError:
                    break
            page = page_of([message(0), message(1)], f"{self.base_url}/sms/messages?token=p1")
            client.sendall(page.replace(b"\r\n", b"\r\nConnection: close\r\n", 1))

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._thread.join(4 * PATIENCE)
        for filler in self._fillers:
            filler.close()
        self._listener.close()


async def test_leaving_while_connecting(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Leaving does not wait for a connection that is still being made."""
    connecting = threading.Event()
    create_connection = socket.create_connection

    def connect(*arguments: Any, **named: Any) -> socket.socket:
        if threading.current_thread() is not threading.main_thread():
            connecting.set()
        return create_connection(*arguments, **named)

    monkeypatch.setattr(socket, "create_connection", connect)
    with Vanishing() as server:
        async with world.client(base_url=server.base_url, timeout=6, connect_timeout=6) as cloudware:
            async with cloudware.messages().read_ahead() as messages:
                assert ["id-0"] == await take(messages, 1)
                if world.is_blocking:
                    assert connecting.wait(PATIENCE)
                began = time.monotonic()
            assert time.monotonic() - began < 1.5


async def test_read_ahead_follows_no_bad_link(world: World) -> None:
    """While the first page is worked on, a link that may not be followed is not followed in the background either."""
    with FaultServer() as stranger:
        link = f"{stranger.base_url}/sms/messages?token=p1"
        with serving(lambda *_: page_of([message(0), message(1)], link)) as server:
            async with world.client(server) as cloudware:
                pager = cloudware.messages()
                async with pager.read_ahead() as messages:
                    assert ids(2) == await take(messages, 2)
                with pytest.raises(PaginationError):
                    await take(pager, 1)
            assert (0, 1) == (stranger.connections, len(server.ledger))


async def test_pages_and_messages_while_reading_ahead(world: World) -> None:
    """Going over from messages to pages and back loses nothing while a page is fetched ahead."""
    for count in range(1, 7):
        with book().serve() as server:
            async with world.client(server) as cloudware, cloudware.messages().read_ahead() as messages:
                seen = await take(messages, count)
                async for page in messages.pages():
                    seen += numbers(page.messages)
                    break
                seen += numbers(await gather(messages))
            assert ids(7) == seen
            assert TOKENS == asked(server)


async def test_a_view_walks(world: World) -> None:
    """A view's walk bears the view's token on every page, and the client's walk its own."""
    with book().serve() as server:
        async with world.client(server) as cloudware:
            pager = cloudware.with_options(access_token="other").messages()
            await take(pager, 3)
            rest = await read(cloudware.messages(cursor=pager.cursor))
            assert ids(7, 2) == rest
        assert ["Bearer other"] * 2 + [f"Bearer {TOKEN}"] * 4 == server.authorizations


async def test_a_page_over_its_cap(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """A page that never ends is cut off, and is an error like any page that cannot be read."""
    endless = (ReadRequest(), Send(head(200)), Repeat(b" " * 65536))
    first: Act = (ReadRequest(), Reply(book().answer))
    with book().serve(first, endless) as server, within(4 * PATIENCE):
        async with world.client(server, timeout=4 * PATIENCE) as cloudware:
            pager = cloudware.messages()
            assert ids(2) == await take(pager, 2)
            with pytest.raises(APIResponseError, match="too large") as caught:
                await take(pager, 1)
            assert pager.cursor == caught.value.cursor
            assert ids(7, 2) == await read(pager)
