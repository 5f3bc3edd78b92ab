"""Many texts at once: what is reported, what stops them, and that nothing new starts after that."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import AsyncIterator, Iterator
from typing import Any

import anyio
import pytest
from fault_server import PATIENCE, Answer, FaultServer, Hang, Healthy, Pause, ReadRequest, Reset, Script, answer
from worlds import Gate, Hold, World, client_threads, held, serving, texts, within

from cloudware_async import (
    AsyncCloudware,
    BulkReport,
    ConfigurationError,
    Draft,
    InvalidArgumentError,
    RateLimitError,
    RetryPolicy,
    SendResult,
    UnprocessableEntityError,
)

TO = "2348012345678"


def drafts(count: int) -> list[Draft]:
    return [Draft(TO, f"text {number}") for number in range(count)]


async def test_results_stand_in_the_drafts_order(world: World) -> None:
    """Every draft has its own result, in the drafts' order, however they end."""
    with FaultServer() as server:
        async with world.client(server) as cloudware:
            given = drafts(50)
            report = await cloudware.send_many(given, in_flight=7)
        assert given == [result.draft for result in report.results]
        assert report.results == report.accepted
        assert sorted(texts(server)) == sorted(draft.message for draft in given)
        by_id = {request.receipt_id: request.body for request in server.posts}
        for result in report.results:
            assert result.draft.message.encode() in by_id[result.receipt.id]


async def test_each_result_is_in_one_group(world: World) -> None:
    """Accepted, rejected, unknown and not sent: each result is in exactly one, and no failure stops the others."""
    says = {
        "fine": answer(b'{"status": "success"}'),
        "no": answer(b"{}", 422),
        "fails": answer(b"{}", 500),
        "slow down": answer(b"{}", 429),
    }

    def make(request: Any, base_url: str) -> bytes:
        return next(said for text, said in says.items() if text.encode() in request.body)

    with serving(make) as server:
        async with world.client(server) as cloudware:
            given = [Draft(TO, text) for text in says] + [Draft("12", "wrong number"), Draft(TO, "")]
            report = await cloudware.send_many(given, in_flight=3)
    groups = (report.accepted, report.rejected, report.unknown, report.not_sent)
    assert [["fine"], ["no"], ["fails"], ["slow down", "wrong number", ""]] == [
        [result.draft.message for result in group] for group in groups
    ]
    assert isinstance(report.rejected[0].error, UnprocessableEntityError)
    assert isinstance(report.not_sent[0].error, RateLimitError)
    assert "BulkReport(accepted=1, rejected=1, unknown=1, not_sent=3)" == repr(report)


async def test_queue_instead_of_send(world: World) -> None:
    """`via="queue"` queues them."""
    with FaultServer() as server:
        async with world.client(server) as cloudware:
            await cloudware.send_many(drafts(3), via="queue")
        assert {"/v1/sms/queue"} == {request.path for request in server.posts}


async def test_no_more_in_flight_than_asked_for(world: World) -> None:
    """So many are under way at once, and no more."""
    with Gate() as gate, held(gate) as server:
        async with world.client(server) as cloudware, world.crew() as crew:
            job = crew.start(lambda: cloudware.send_many(drafts(12), in_flight=4))
            assert await world.wait(gate.wait_for, 4)
            gate.let(3)
            assert await world.wait(server.wait_for, 7)
            gate.open()
        assert 12 == len(job.result().accepted)
        assert gate.most <= 4


async def test_drafts_are_read_as_they_are_needed(world: World) -> None:
    """A generator is not read further ahead than texts are under way."""
    read = []

    def generate() -> Iterator[Draft]:
        for draft in drafts(20):
            read.append(draft)
            yield draft

    with Gate() as gate, held(gate) as server:
        async with world.client(server) as cloudware, world.crew() as crew:
            job = crew.start(lambda: cloudware.send_many(generate(), in_flight=3))
            assert await world.wait(gate.wait_for, 3)
            assert len(read) <= 4
            gate.open()
        assert 20 == len(job.result().accepted)


async def test_nothing_to_send(world: World) -> None:
    """No draft is an empty report."""
    async with world.client() as cloudware:
        assert BulkReport(()) == await cloudware.send_many([])


async def test_each_result_is_told_as_it_ends(world: World) -> None:
    """The callback gets every result once, before the report is there, and in the caller's own thread."""
    told: list[SendResult] = []
    threads = set()

    def tell(result: SendResult) -> None:
        told.append(result)
        threads.add(threading.current_thread())

    with FaultServer() as server:
        async with world.client(server) as cloudware:
            report = await cloudware.send_many(drafts(9), in_flight=3, on_result=tell)
    assert 9 == len(told)
    assert {id(result) for result in told} == {id(result) for result in report.results}
    assert {threading.current_thread()} == threads


@pytest.mark.worlds("asyncio", "trio", reason="a blocking caller passes a plain function")
async def test_an_async_callback_is_awaited(world: World) -> None:
    """An async callback has run to its end for each result."""
    told = []

    async def tell(result: SendResult) -> None:
        await anyio.lowlevel.checkpoint()
        told.append(result)

    with FaultServer() as server:
        async with world.client(server) as cloudware:
            await cloudware.send_many(drafts(9), in_flight=3, on_result=tell)
    assert 9 == len(told)


class Mine(Exception):  # noqa: N818
    """What a callback raises."""


@pytest.mark.parametrize("error", [Mine("mine"), KeyboardInterrupt("mine")], ids=["exception", "Ctrl-C"])
async def test_what_the_callback_raises_leaves_as_itself(world: World, error: BaseException) -> None:
    """It is in no group, and nothing new starts."""

    def tell(result: SendResult) -> None:
        raise error

    with FaultServer() as server:
        async with world.client(server) as cloudware:
            with pytest.raises(type(error), match="mine") as caught:
                await cloudware.send_many(drafts(1000), in_flight=3, on_result=tell)
            assert caught.value is error
        assert len(server.posts) <= 12
        assert [] == client_threads()


@pytest.mark.parametrize(
    "error",
    [
        Mine("mine"),
        SystemExit("mine"),
        pytest.param(
            asyncio.CancelledError("mine"),
            marks=pytest.mark.worlds("asyncio", "aiohttp", "blocking", reason="trio's own has no constructor"),
        ),
    ],
    ids=["exception", "exit", "cancellation"],
)
async def test_what_was_under_way_is_told(world: World, error: BaseException) -> None:
    """When the callback raises, what was posted already ends by itself and is told, and what it raises then is dropped."""
    await stopped_by(world, error)


async def test_nothing_starts_after_a_callback_raised(world: World) -> None:
    """A result that comes without a wait may be the first of all; nothing that was not begun by then is."""

    def tell(result: SendResult) -> None:
        raise Mine("mine")

    with FaultServer() as server:
        async with world.client(server) as cloudware:
            with pytest.raises(Mine):
                await cloudware.send_many([Draft("12", "no number"), *drafts(50)], in_flight=20, on_result=tell)
        # threads that were begun already end as they would
        assert 0 == len(server.posts) or world.is_blocking


@pytest.mark.worlds("blocking", reason="on an event loop Ctrl-C cuts off what is under way")
async def test_what_was_under_way_is_told_after_ctrl_c(world: World) -> None:
    """The same where Ctrl-C falls into the callback."""
    await stopped_by(world, KeyboardInterrupt("mine"))


async def stopped_by(world: World, error: BaseException) -> None:
    told: list[SendResult] = []

    def tell(result: SendResult) -> None:
        told.append(result)
        gate.open()
        raise error if len(told) == 1 else Mine("dropped")

    gate = Gate()
    acts = ((ReadRequest(), Healthy()), *[(ReadRequest(), Hold(gate), Healthy())] * 3)
    with FaultServer(Script(acts)) as server, gate:
        async with world.client(server) as cloudware:
            with pytest.raises(type(error), match="mine"):
                await cloudware.send_many(drafts(100), in_flight=3, on_result=tell)
        assert sorted(texts(server)) == sorted(result.draft.message for result in told)
        assert len(told) <= 5


async def test_a_stop_ends_the_pauses(world: World) -> None:
    """No attempt follows a stop: what was waiting for its next one is told with what its last one came to."""
    told: list[SendResult] = []

    def tell(result: SendResult) -> None:
        told.append(result)
        raise Mine("mine")

    acts = ((ReadRequest(), Hold(gate := Gate()), Healthy()), (ReadRequest(), Hold(gate), Answer(b"", 500)))
    policy = RetryPolicy(base_delay=20.0, resend_unknown=True, random=lambda: 1.0)
    with FaultServer(Script(acts, then=(ReadRequest(), Answer(b"", 500)))) as server, gate:
        async with world.client(server, timeout=60, retry=policy) as cloudware:
            with within(PATIENCE):
                async with world.crew() as crew:
                    job = crew.start(lambda: cloudware.send_many(drafts(2), in_flight=2, on_result=tell))
                    assert await world.wait(gate.wait_for, 2)
                    gate.open()
        assert isinstance(job.error, Mine)
        assert 2 == len(server.posts)
    assert [None, True] == [result.error and result.error.may_have_been_sent for result in told]


@pytest.mark.worlds("asyncio", "aiohttp", reason="trio has no task outside a nursery")
async def test_what_a_callback_starts_is_no_part_of_the_bulk(world: World) -> None:
    """When the bulk was stopped, what a task of the callback's sends is still tried again."""
    tasks: list[asyncio.Task[Any]] = []
    stopped = asyncio.Event()

    async def later() -> None:
        await stopped.wait()
        await cloudware.send(TO, "later")

    def tell(_: SendResult) -> None:
        tasks.append(asyncio.create_task(later()))
        raise Mine("mine")

    acts = ((ReadRequest(), Healthy()), (ReadRequest(), Answer(b"{}", 429)))
    with FaultServer(Script(acts)) as server:
        async with world.client(server, retry=RetryPolicy(throttled_delay=0.01)) as cloudware:
            with pytest.raises(Mine):
                await cloudware.send_many(drafts(1), on_result=tell)
            stopped.set()
            await tasks[0]
        assert ["text 0", "later", "later"] == texts(server)


@pytest.mark.worlds("asyncio", "aiohttp", reason="a CancelledError of nobody's is asyncio's")
async def test_a_callback_that_waits_for_what_was_cancelled(world: World) -> None:
    """A CancelledError that the callback raises leaves as itself, and does not end the bulk as if all were done."""

    async def tell(_: SendResult) -> None:
        task = asyncio.create_task(anyio.sleep_forever())
        task.cancel()
        await task

    with FaultServer() as server:
        async with world.client(server) as cloudware:
            with pytest.raises(asyncio.CancelledError):
                await cloudware.send_many(drafts(50), in_flight=2, on_result=tell)


async def test_closed_in_mid_bulk(world: World) -> None:
    """A client that is closed in mid-bulk starts nothing new and says so; what was under way ends and is told."""
    told: list[SendResult] = []
    with Gate() as gate, held(gate) as server:
        async with world.client(server) as cloudware, world.crew() as crew:
            job = crew.start(lambda: cloudware.send_many(drafts(100), in_flight=4, on_result=told.append))
            assert await world.wait(gate.wait_for, 4)
            if world.name != "aiohttp":
                await cloudware.aclose()
            else:
                # closing the session would cut off what is under way
                await AsyncCloudware.aclose(cloudware)
            gate.open()
        assert isinstance(job.error, ConfigurationError)
        assert [None] * 4 == [result.error for result in told]
        assert 4 == len(server.posts)


async def test_what_the_drafts_raise_leaves_as_itself(world: World) -> None:
    """What had begun is ended and told."""
    told = []

    def generate() -> Iterator[Draft]:
        yield from drafts(2)
        raise Mine("mine")

    with FaultServer() as server:
        async with world.client(server) as cloudware:
            with pytest.raises(Mine):
                await cloudware.send_many(generate(), in_flight=1, on_result=told.append)
    assert len(told) <= 2


@pytest.mark.worlds("asyncio", "trio", reason="a blocking call is stopped by Ctrl-C, which test_blocking.py does")
async def test_cancelled_from_outside(world: World) -> None:
    """Nothing new starts, what had ended was told, and the scope's own exception leaves."""
    told: list[SendResult] = []
    acts = tuple((ReadRequest(), Healthy()) for _ in range(5))
    with FaultServer(Script(acts, then=(ReadRequest(), Hang()))) as server:
        async with world.client(server) as cloudware:
            with anyio.CancelScope() as scope:
                async with anyio.create_task_group() as group:

                    async def stop() -> None:
                        await world.wait(server.wait_for, 9)
                        scope.cancel()

                    group.start_soon(stop)
                    await cloudware.send_many(drafts(100), in_flight=4, on_result=told.append)
            assert scope.cancelled_caught
        assert 5 == len(told)
        assert 9 == len(server.posts)


WRONG = {
    "in_flight 0": {"in_flight": 0},
    "in_flight true": {"in_flight": True},
    "in_flight a fraction": {"in_flight": 1.5},
    "via mail": {"via": "mail"},
    "on_result no function": {"on_result": 5},
    "drafts none": {"drafts": None},
    "drafts a string": {"drafts": "text"},
    "drafts a dict": {"drafts": {"to": TO}},
}


@pytest.mark.parametrize("wrong", WRONG.values(), ids=WRONG)
async def test_a_wrong_argument_sends_nothing(world: World, wrong: dict[str, Any]) -> None:
    """It is refused before anything is sent."""
    with FaultServer() as server:
        async with world.client(server) as cloudware:
            with pytest.raises(InvalidArgumentError):
                await cloudware.send_many(**({"drafts": drafts(2)} | wrong))
        assert 0 == server.connections


async def test_what_is_no_draft_is_told_and_stops_nobody(world: World) -> None:
    """It gets a result with an error; the others go out."""
    with FaultServer() as server:
        async with world.client(server) as cloudware:
            report = await cloudware.send_many([Draft(TO, "fine"), {"to": TO}, None, Draft(5, "no")])  # type: ignore[arg-type]
    assert 1 == len(report.accepted)
    assert [InvalidArgumentError] * 3 == [type(result.error) for result in report.not_sent]


async def test_a_closed_client_says_so(world: World) -> None:
    """It is the client's mistake and not each text's."""
    client = world.client()
    await client.aclose()
    with pytest.raises(ConfigurationError, match="closed"):
        await client.send_many(drafts(3))


async def test_a_broken_connection_is_unknown_and_not_repeated(world: World) -> None:
    """Each text that may have gone out is told as unknown, and was posted once."""
    with FaultServer(Script(then=(ReadRequest(), Reset()))) as server:
        async with world.client(server, timeout=PATIENCE) as cloudware:
            report = await cloudware.send_many(drafts(10), in_flight=3)
        assert 10 == len(report.unknown)
        assert 10 == len(server.posts)


async def test_in_flight_costs_nothing_by_itself(world: World) -> None:
    """A large `in_flight` starts no more tasks or threads than there are drafts."""
    before = count_workers(world)
    most = 0

    def generate() -> Iterator[Draft]:
        nonlocal most
        for draft in drafts(3):
            most = max(most, count_workers(world))
            yield draft
        most = max(most, count_workers(world))

    with FaultServer() as server:
        async with world.client(server) as cloudware:
            report = await cloudware.send_many(generate(), in_flight=3000)
    assert 3 == len(report.accepted)
    assert most - before < 50


def count_workers(world: World) -> int:
    return len(client_threads()) if world.is_blocking else len(anyio.get_running_tasks())


@pytest.mark.parametrize("in_flight", [1, 2, 30])
async def test_as_many_in_flight_as_asked_for(world: World, in_flight: int) -> None:
    """So many are really under way at once, if there are drafts and connections."""
    with Gate() as gate, held(gate) as server:
        async with world.client(server) as cloudware, world.crew() as crew:
            job = crew.start(lambda: cloudware.send_many(drafts(60), in_flight=in_flight))
            assert await world.wait(gate.wait_for, in_flight)
            gate.open()
        assert 60 == len(job.result().accepted)
        assert in_flight == gate.most


async def test_connections_limit_what_is_in_flight(world: World) -> None:
    """More texts in flight than connections wait for one, and none is lost."""
    with FaultServer() as server:
        async with world.client(server, max_connections=2) as cloudware:
            report = await cloudware.send_many(drafts(50), in_flight=20)
        assert 50 == len(report.accepted)
        assert server.connections <= 2


async def test_a_view_sends_many(world: World) -> None:
    """The view's token and sender are used; a draft's own sender goes before them."""
    with FaultServer() as server:
        async with world.client(server, from_="Shop") as cloudware:
            view = cloudware.with_options(access_token="other", from_="View")
            await view.send_many([Draft(TO, "1"), Draft(TO, "2", "Own")], in_flight=1)
        assert ["View", "Own"] == [json.loads(request.body)["from"] for request in server.posts]
        assert ["Bearer other"] * 2 == server.authorizations


async def test_each_text_has_its_own_timeout(world: World) -> None:
    """A bulk may last longer than `timeout`; a text that runs out of it stops no other."""
    acts = ((ReadRequest(), Hang()), *((ReadRequest(), Pause(0.25), Healthy()) for _ in range(3)))
    with FaultServer(Script(acts)) as server:
        async with world.client(server, timeout=0.6) as cloudware:
            report = await cloudware.send_many(drafts(4), in_flight=1)
    assert [True, False, False, False] == [result in report.unknown for result in report.results]
    assert 3 == len(report.accepted)


async def test_refusals_are_tried_again_in_a_bulk(world: World) -> None:
    """A text that is refused for now is sent again, and reported once."""
    refusal = (ReadRequest(), Answer(b"", 429, (b"Retry-After: 0",)))
    told: list[SendResult] = []
    with FaultServer(Script((refusal,) * 4)) as server:
        async with world.client(server, retry=RetryPolicy(max_attempts=10, throttled_delay=0.001)) as cloudware:
            report = await cloudware.send_many(drafts(5), in_flight=2, on_result=told.append)
        assert (5, 5, 9) == (len(report.accepted), len(told), len(server.posts))


async def test_drafts_that_cannot_be_iterated(world: World) -> None:
    """What `__iter__` itself raises leaves as itself, and nothing is sent."""

    class Drafts:
        def __iter__(self) -> Iterator[Draft]:
            raise Mine("mine")

    with FaultServer() as server:
        async with world.client(server) as cloudware:
            with pytest.raises(Mine):
                await cloudware.send_many(Drafts())
            with pytest.raises(InvalidArgumentError):
                await cloudware.send_many(Draft(TO, "one alone"))
            with pytest.raises(InvalidArgumentError):
                await cloudware.send_many(agenerate())
        assert 0 == server.connections


async def agenerate() -> AsyncIterator[Draft]:
    for draft in drafts(2):
        yield draft


@pytest.mark.worlds("asyncio", "trio", reason="a blocking caller passes a plain function")
async def test_what_an_async_callback_raises_leaves_as_itself(world: World) -> None:
    """It is in no group, nothing new starts, and what hangs is told when its time is out."""
    told = []

    async def tell(result: SendResult) -> None:
        told.append(result)
        if len(told) == 1:
            assert await world.wait(server.wait_for, 4)
            raise error

    error = Mine("mine")
    before = len(anyio.get_running_tasks())
    with FaultServer(Script(((ReadRequest(), Healthy()),), then=(ReadRequest(), Hang()))) as server:
        async with world.client(server, timeout=1.0) as cloudware:
            with pytest.raises(Mine) as caught, within(PATIENCE):
                await cloudware.send_many(drafts(100), in_flight=4, on_result=tell)
            assert caught.value is error
            assert [False, True, True, True] == [bool(result.error) for result in told]
            assert before == len(anyio.get_running_tasks())
        assert 4 == len(server.posts)


@pytest.mark.worlds("asyncio", reason="a task's own cancel() is asyncio's")
@pytest.mark.parametrize("how", ["timeout", "cancel"])
async def test_cancelled_natively(world: World, how: str) -> None:
    """`asyncio.timeout` and a task's `cancel()` end a bulk as they end anything, and leave no task."""
    told: list[SendResult] = []
    acts = tuple((ReadRequest(), Healthy()) for _ in range(5))
    before = len(asyncio.all_tasks())
    with FaultServer(Script(acts, then=(ReadRequest(), Hang()))) as server:
        async with world.client(server, timeout=60) as cloudware:

            async def work() -> None:
                async with asyncio.timeout(None) as limit:
                    limits.append(limit)
                    await cloudware.send_many(drafts(100), in_flight=4, on_result=told.append)

            limits: list[asyncio.Timeout] = []
            task = asyncio.create_task(work())
            assert await world.wait(server.wait_for, 9)
            if how == "cancel":
                task.cancel()
            else:
                limits[0].reschedule(asyncio.get_running_loop().time())
            await asyncio.wait([task])
            if how == "cancel":
                assert task.cancelled()
            else:
                assert TimeoutError is type(task.exception())
            assert before == len(asyncio.all_tasks())
        assert (5, 9) == (len(told), len(server.posts))


@pytest.mark.worlds("blocking", reason="a generator of drafts is read by several tasks elsewhere")
async def test_drafts_are_read_in_the_callers_thread(world: World) -> None:
    """A generator of drafts needs no lock: one thread reads it, the caller's."""
    threads = set()

    def generate() -> Iterator[Draft]:
        for draft in drafts(9):
            threads.add(threading.current_thread())
            yield draft

    with FaultServer() as server:
        async with world.client(server) as cloudware:
            await cloudware.send_many(generate(), in_flight=3)
    assert {threading.current_thread()} == threads
