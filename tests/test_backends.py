"""The backends' seams: moments between two steps, which no server can bring about on purpose."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import socket
import ssl
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from typing import Any

import aiohttp
import httpx
import pytest
import respx
from fault_server import (
    Close,
    FaultServer,
    Healthy,
    ReadHead,
    ReadRequest,
    Repeat,
    Script,
    Send,
    answer,
    head,
    receipt,
)
from worlds import GRACE, OWN, TO, TOKEN, Book, Gate, Hold, World, gather, texts, within

from cloudware_async import (
    APIConnectionError,
    APIResponseError,
    APITimeoutError,
    AuthenticationError,
    Cloudware,
    CloudwareError,
    ConfigurationError,
    Draft,
    RateLimitError,
    RetryPolicy,
)
from cloudware_async._backend import drive
from cloudware_async._backend_blocking import BlockingEffects, Limiter, Turn, Work, _AheadThread, _Bulk, current_work
from cloudware_async._backend_httpx_async import _AsyncStream, _has_tls_rest
from cloudware_async._backend_httpx_blocking import _NETWORK, _BlockingStream
from cloudware_async._backend_logs import our_request
from cloudware_async._backend_opening import Opening
from cloudware_async._wire import Place

TEXT = "Hello"


def test_a_blocking_coroutine_that_suspends() -> None:
    """What waits for an event loop is told where it waits that there is none, and cannot wait all the same."""
    with pytest.raises(ConfigurationError, match="no event loop"):
        drive(asyncio.sleep(0))

    async def insist() -> None:
        with contextlib.suppress(ConfigurationError):
            await asyncio.sleep(0)
        await asyncio.sleep(0)

    with pytest.raises(ConfigurationError, match="goes on waiting"):
        drive(insist())

    async def give_in() -> str:
        with contextlib.suppress(ConfigurationError):
            await asyncio.sleep(0)
        return "done"

    assert "done" == drive(give_in())


# Bulks


def test_an_item_that_is_not_begun_in_time() -> None:
    """An item that nobody has begun when the bulk is stopped is begun no more."""

    async def work(item: str) -> None:
        raise AssertionError(item)

    bulk = _Bulk(work, work)  # type: ignore[arg-type]
    bulk.ask(0, "stopped")
    bulk.work.stopping.set()
    bulk._run()


def test_a_bulk_in_a_child() -> None:
    """A child neither begins what its parent will send nor waits for threads that it does not have."""

    async def work(item: str) -> None:
        raise AssertionError(item)

    bulk = _Bulk(work, work)  # type: ignore[arg-type]
    bulk.ask(0, "asked by the parent")
    bulk._process = 0
    for go_on in (lambda: bulk.ask(1, "asked by the child"), lambda: drive(bulk.report_all(0))):
        with pytest.raises(ConfigurationError, match="forked"):
            go_on()
    assert 1 == bulk.running


def test_what_failed_is_not_reported_at_the_end() -> None:
    """Of what ended after the end, what has no result is passed over."""
    reported: list[Any] = []

    async def report(_: int, result: Any) -> None:
        reported.append(result)

    async def work(item: Exception | str) -> str:
        if isinstance(item, Exception):
            raise item
        return item

    bulk = _Bulk(work, report)
    for item in (ValueError(), "done"):
        bulk.ask(0, item)
        copy_context().run(bulk._run_next)
    drive(bulk.report_ended())
    assert ["done"] == reported


def test_one_more_interrupt_keeps_nothing_untold() -> None:
    """A Ctrl-C in the telling of one result does not keep the others untold; one more does."""

    async def work(item: int) -> int:
        return item

    for presses, told in ((1, [0, 1, 2]), (2, [0])):
        reported: list[int] = []
        left = presses

        async def report(index: int, _: Any) -> None:
            nonlocal left
            if index and left:
                left -= 1
                raise KeyboardInterrupt
            reported.append(index)  # noqa: B023

        bulk = _Bulk(work, report)
        for item in range(4):
            bulk.ask(item, item)
            copy_context().run(bulk._run_next)
        if presses == 1:
            drive(bulk.report_ended())
            assert [0, 2, 3] == reported
        else:
            with pytest.raises(KeyboardInterrupt):
                drive(bulk.report_ended())
            assert told == reported


def test_a_long_pause_is_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the operating system cannot wait for in one go is waited for piece by piece."""
    waited: list[float] = []
    monkeypatch.setattr(
        "cloudware_async._backend_blocking.threading.Event.wait", lambda _, seconds: waited.append(seconds) or True
    )
    assert not drive(BlockingEffects().sleep(1e300))
    assert [0.5] == waited


@pytest.mark.worlds("blocking", reason="on an event loop there is no thread")
async def test_a_bulk_whose_second_thread_cannot_be_started(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """The texts go out through the thread that there is."""
    submit = ThreadPoolExecutor.submit

    def submit_one(executor: ThreadPoolExecutor, work: Any) -> Any:
        if executor._threads:
            raise RuntimeError("can't start new thread")
        return submit(executor, work)

    monkeypatch.setattr(ThreadPoolExecutor, "submit", submit_one)
    with FaultServer() as server:
        async with world.client(server) as cloudware:
            report = await cloudware.send_many([Draft(TO, str(number)) for number in range(8)], in_flight=4)
        assert 8 == len(report.accepted)
        assert sorted(map(str, range(8))) == sorted(texts(server))


# Walks


@pytest.mark.worlds("blocking", reason="on an event loop there is no thread")
async def test_a_walk_whose_thread_cannot_be_started(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pages are fetched when they are asked for, until there is a thread again."""
    start = _AheadThread.start

    def fail_once(thread: _AheadThread) -> None:
        monkeypatch.setattr(_AheadThread, "start", start)
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(_AheadThread, "start", fail_once)
    with Book.of(2, 2, 2).serve() as server:
        async with world.client(server) as cloudware, cloudware.messages().read_ahead() as messages:
            assert 6 == len(await gather(messages))


@pytest.mark.worlds("blocking", reason="an event loop is woken by a signal")
async def test_a_walk_that_waits_looks_up(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """A wait for a page is made of short ones, between which Ctrl-C is seen."""
    monkeypatch.setattr("cloudware_async._backend_blocking.LONGEST_WAIT", 0)
    with Book.of(2, 2, 2).serve() as server:
        async with world.client(server) as cloudware, cloudware.messages().read_ahead() as messages:
            assert 6 == len(await gather(messages))


async def test_going_on_after_an_interrupt_skips_no_page(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """A page in whose making a Ctrl-C falls is given by the next step."""
    cursor = Place.cursor

    def press(place: Place) -> str:
        monkeypatch.setattr(Place, "cursor", cursor)
        raise KeyboardInterrupt

    with Book.of(2, 2).serve() as server:
        async with world.client(server) as cloudware:
            pages = cloudware.messages().pages()
            monkeypatch.setattr(Place, "cursor", press)
            with pytest.raises(KeyboardInterrupt):
                await anext(pages)
            assert [2, 2] == [len(page.messages) for page in await gather(pages)]


# Opening


@pytest.mark.parametrize("error", [ImportError("no such library"), OSError(24, "Too many open files")])
def test_a_backend_that_cannot_be_opened(error: Exception) -> None:
    """It is a setting's fault, and says which; another try may open it. To close it opens nothing."""
    opened: list[Any] = [error]

    def open_backend() -> Any:
        if opened:
            raise opened.pop()
        return "backend"

    opening = Opening(open_backend)
    with pytest.raises(ConfigurationError, match="cannot be loaded") as caught:
        _ = opening.backend
    assert None is caught.value.__context__
    assert "backend" == opening.backend
    unused = Opening(open_backend)
    drive(unused.close())
    with pytest.raises(ConfigurationError, match=r"^this client is closed"):
        _ = unused.backend


# Connections


def send_for(work: Work, cloudware: Cloudware) -> None:
    current_work.set(work)
    cloudware.send(TO, TEXT)


@pytest.mark.worlds("blocking", reason="only threads are cut off by a flag")
async def test_cut_off_while_connecting(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """A connection that is made for somebody who was told to stop meanwhile carries nothing."""
    work = Work()
    connect = _NETWORK.connect_tcp

    def connect_and_stop(*arguments: Any, **options: Any) -> Any:
        stream = connect(*arguments, **options)
        work.cut_off()
        return stream

    monkeypatch.setattr(_NETWORK, "connect_tcp", connect_and_stop)
    with FaultServer() as server, Cloudware(TOKEN, base_url=server.base_url) as cloudware:
        with pytest.raises(APIConnectionError) as caught:
            copy_context().run(send_for, work, cloudware)
        assert not caught.value.may_have_been_sent
        assert 0 == len(server.ledger)


@pytest.mark.worlds("blocking", reason="only threads are cut off by a flag")
async def test_cut_off_before_a_kept_connection(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """A connection that is there already carries nothing for somebody who was told to stop just before it was taken."""
    work = Work()
    take = Turn.take

    def take_and_stop(turn: Turn, timeout: float, given: Work | None) -> bool:
        is_taken = take(turn, timeout, given)
        work.cut_off()
        return is_taken

    with FaultServer() as server, Cloudware(TOKEN, base_url=server.base_url) as cloudware:
        cloudware.send(TO, "opens a connection")
        monkeypatch.setattr(Turn, "take", take_and_stop)

        with pytest.raises(APIConnectionError) as caught:
            copy_context().run(send_for, work, cloudware)
        assert not caught.value.may_have_been_sent
        assert ["opens a connection"] == texts(server)


@pytest.mark.worlds("blocking", reason="on an event loop anyio's semaphore sees to it")
async def test_whoever_waits_for_a_connection_gets_it_in_turn(world: World) -> None:
    """A connection that is free again goes to whoever has waited longest, and not to whoever gave it back."""
    with FaultServer(Script(then=(ReadRequest(), Hold(gate := Gate()), Healthy()))) as server, gate:
        async with world.client(server, max_connections=1) as cloudware, world.crew() as crew:

            async def twice() -> None:
                await cloudware.send(TO, "first")
                await cloudware.send(TO, "last")

            crew.start(twice)
            assert gate.wait_for(1)
            waiting = cloudware.cloudware._driven._calling.backend._limiter.waiting
            for number, text in enumerate(("second", "third"), 1):
                crew.start(functools.partial(cloudware.send, TO, text))
                while len(waiting) < number:
                    pass
            gate.open()
        assert ["first", "second", "third", "last"] == texts(server)


def test_a_turn_that_is_lost() -> None:
    """A Ctrl-C may keep a turn from being given back, or one that was handed on from leaving the queue."""
    limiter = Limiter(1)
    lost = Turn(limiter)
    assert lost.take(0, None)
    del lost
    assert 1 == limiter.free

    holder, handed, next_one = Turn(limiter), Turn(limiter), Turn(limiter)
    assert holder.take(0, None)
    limiter.waiting.extend((handed, next_one))
    handed.is_held = True
    holder.give_back()
    assert [0, False, True] == [limiter.free, holder.is_held, next_one.is_held]
    assert not limiter.waiting


def test_what_was_given_back_is_not_shut_down() -> None:
    """A connection may be somebody else's as soon as it was given back."""

    class Slot:
        downs = 0

        def shut_down(self) -> None:
            self.downs += 1

    work, kept, given_back, late = Work(), Slot(), Slot(), Slot()
    assert work.hold(kept)
    assert work.hold(given_back)
    work.give_back(given_back)
    work.cut_off()
    assert not work.hold(late)
    assert (1, 0, 0) == (kept.downs, given_back.downs, late.downs)


@pytest.mark.worlds(*OWN, reason="of a client of the user's the headers are its own")
async def test_many_tokens(world: World) -> None:
    """A client of which there are views with a hundred tokens sends each its own."""
    with FaultServer() as server:
        async with world.client(server) as cloudware:
            for number in range(100):
                await cloudware.with_options(access_token=f"token-{number}").send(TO, TEXT)
        tokens = [request.header("authorization") for request in server.posts]
    assert [(f"Bearer token-{number}",) for number in range(100)] == tokens


@pytest.mark.worlds(*OWN, reason="how a session of aiohttp's connects is its user's affair")
async def test_a_handshake_that_hangs(world: World) -> None:
    """A TLS handshake is a part of connecting, and ends with `connect_timeout`: nothing was sent."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        options = {"base_url": f"https://127.0.0.1:{listener.getsockname()[1]}/v1", "timeout": 60.0}
        async with world.make(TOKEN, **options, connect_timeout=0.3, retry=None) as cloudware:
            with pytest.raises(APITimeoutError, match="connect_timeout") as caught, within(0.3 + GRACE):
                await cloudware.send(TO, TEXT)
    assert not caught.value.may_have_been_sent


@pytest.mark.worlds("asyncio", "trio", reason="elsewhere nothing closes a connection by itself")
async def test_a_kept_connection_that_the_loop_has_closed(world: World) -> None:
    """The event loop may close a kept connection before it is asked for again: another one is made."""
    with FaultServer() as server:
        async with world.client(server) as cloudware:
            await cloudware.send(TO, "first")
            (slot,) = cloudware._calling.backend._free
            await slot.stream.aclose()
            assert slot.stream._socket.fileno() < 0
            await cloudware.send(TO, "second")
        assert [1, 2] == [request.connection for request in server.posts]


def test_what_is_no_tls_is_a_rest() -> None:
    """What nobody asked for may be no TLS record at all: then too the connection is not kept."""

    class Stream:
        def get_extra_info(self, _: str) -> ssl.SSLObject:
            incoming = ssl.MemoryBIO()
            incoming.write(b"no TLS at all")
            return ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).wrap_bio(incoming, ssl.MemoryBIO(), server_side=True)

    assert _has_tls_rest(Stream())  # type: ignore[arg-type]


@pytest.mark.worlds(*OWN, reason="aiohttp's look has a test of its own")
@pytest.mark.parametrize("status", [200, 400, 429])
async def test_a_stray_answer_after_the_look(world: World, status: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """What comes between the first look at a kept connection and the write is no answer to what is written."""
    stream: Any = _BlockingStream if world.is_blocking else _AsyncStream
    flush = stream._flush

    def flush_too_late(self: Any) -> Any:
        if server.posts:
            gate.open()
            assert server.wait_until_settled()
        return flush(self)

    monkeypatch.setattr(stream, "_flush", flush_too_late)
    first = (ReadRequest(), Healthy(), Hold(gate := Gate()), Send(answer(receipt("stray"), status)))
    with FaultServer(Script((first,))) as server, gate:
        async with world.client(server, retry=RetryPolicy(base_delay=0.001)) as cloudware:
            receipts = [(await cloudware.send(TO, text)).id for text in ("first", "second")]
        assert ["first", "second"] == texts(server)
        assert receipts == [request.receipt_id for request in server.posts]


# Clients that are not ours


@pytest.mark.worlds("aiohttp", reason="aiohttp itself would take it for the answer to the next request")
@pytest.mark.parametrize("status", [200, 400, 429])
async def test_a_stray_answer_on_a_kept_connection(world: World, status: int) -> None:
    """What the server says unasked on a kept connection is no answer to the next text, which goes over another one."""
    with FaultServer(Script(((ReadRequest(), Healthy(), Send(answer(receipt("stray"), status))),))) as server:
        async with world.client(server, retry=RetryPolicy(base_delay=0.001)) as cloudware:
            receipts = []
            for text in ("first", "second"):
                receipts.append((await cloudware.send(TO, text)).id)
                server.wait_until_settled()
        assert ["first", "second"] == texts(server)
        assert receipts == [request.receipt_id for request in server.posts]


@pytest.mark.worlds("asyncio", reason="aiohttp runs on asyncio only")
@pytest.mark.parametrize(
    ("status", "expected"), [(200, APIConnectionError), (401, AuthenticationError), (429, RateLimitError)]
)
async def test_an_answer_to_a_head_that_waits(world: World, status: int, expected: type[CloudwareError]) -> None:
    """Where a session asks before it sends a body, a refusal is believed, and a receipt for what never went is not."""
    early = (ReadHead(), Send(answer(receipt("early"), status)), Close())
    with FaultServer(Script((early,))) as server:
        async with (
            aiohttp.ClientSession(headers={"Expect": "100-continue"}) as session,
            world.client(server, http_client=session, retry=None) as cloudware,
        ):
            with pytest.raises(expected) as caught:
                await cloudware.send(TO, "Hello")
        assert [] == texts(server)
    assert not caught.value.may_have_been_sent


@pytest.mark.worlds("asyncio", "blocking", reason="trio complains of the mock's own generator")
async def test_a_mocked_answer_over_its_cap(world: World) -> None:
    """What a mock answers is capped as ever."""
    with respx.mock(base_url="https://api.cloudware.chat/v1") as router:
        router.post("/sms/send").respond(content=b" " * ((1 << 20) + 1))
        async with world.make(TOKEN) as cloudware:
            with pytest.raises(APIResponseError, match="too large"):
                await cloudware.send(TO, TEXT)


@pytest.mark.worlds("blocking", reason="on an event loop one scope bounds it all")
async def test_a_users_client_is_bounded_between_reads(world: World) -> None:
    """Through a blocking client of the user's a body that never ends is left when the time is over."""
    with FaultServer(Script(then=(ReadRequest(), Send(head(200)), Repeat(b" ", pause=0.01)))) as server:
        http_client = world.http_client(trust_env=False)
        async with world.client(server, http_client=http_client, timeout=0.3) as cloudware:
            with within(0.3 + GRACE), pytest.raises(APITimeoutError) as caught:
                await cloudware.send(TO, TEXT)
        await http_client.aclose()
    assert caught.value.may_have_been_sent


@pytest.mark.worlds("asyncio", "trio", "blocking", reason="aiohttp has no such hooks")
async def test_a_hook_whose_error_belongs_to_no_request(world: World) -> None:
    """What a hook raises that belongs to no request says nothing of the text, which went out."""

    def fail(_: Any) -> None:
        raise httpx.ConnectError("mine")

    async def fail_asynchronously(_: Any) -> None:
        fail(_)

    with FaultServer() as server:
        hook = fail if world.is_blocking else fail_asynchronously
        http_client = world.http_client(event_hooks={"response": [hook]}, trust_env=False)
        async with world.client(server, http_client=http_client) as cloudware:
            with pytest.raises(APIConnectionError) as caught:
                await cloudware.send(TO, TEXT)
        await http_client.aclose()
        assert 1 == len(server.posts)
    assert caught.value.may_have_been_sent


def test_log_records_with_named_arguments(caplog: pytest.LogCaptureFixture) -> None:
    """What a library logs with named arguments is left as it is."""
    caplog.set_level(logging.DEBUG)
    with our_request():
        logging.getLogger("httpcore.http11").debug("%(event)s", {"event": "started"})
    assert ["started"] == [record.getMessage() for record in caplog.records]
