"""Blocking is plain: inside a running loop, from many threads, after a fork, under gevent, on Ctrl-C and at exit.

Rule 1. What would end or change the test's own process runs in a script of its own, with warnings as errors.
Rule 2. A script says where it is on its standard output, and is told to go on by the server, not by the clock.
"""

from __future__ import annotations

import asyncio
import importlib.util
import signal
import subprocess
import sys
import textwrap
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import trio
from fault_server import PATIENCE, Certificates, FaultServer, Hang, Healthy, ReadRequest, Script
from worlds import Book, Gate, Hold, Reply, held, ids

from cloudware_async import Cloudware, Draft

TO = "2348012345678"
# seconds for an interpreter to start and to do something, on a machine that is busy
START = 4 * PATIENCE

started: list[subprocess.Popen[str]] = []


@pytest.fixture(autouse=True)
def nothing_runs_on() -> Iterator[None]:
    """A script ends with its test, also where that failed."""
    yield
    while started:
        with started.pop() as process:
            process.kill()


def start(server: FaultServer, script: str) -> subprocess.Popen[str]:
    """Start a script that finds a client's options in `OPTIONS`."""
    head = f"from cloudware_async import *\nOPTIONS = dict(access_token='token', base_url={server.base_url!r})\n"
    return interpret("-X", "dev", "-W", "error", "-c", head + textwrap.dedent(script))


def interpret(*arguments: str) -> subprocess.Popen[str]:
    """Start an interpreter that waits where it reads its standard input."""
    process = subprocess.Popen(
        [sys.executable, *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    started.append(process)
    return process


def finish(process: subprocess.Popen[str]) -> tuple[str, str, int]:
    """End its standard input, and give its output, its errors and its exit status."""
    try:
        output, errors = process.communicate(timeout=START)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
        raise
    return output, errors, process.returncode


def test_inside_a_running_event_loop():
    """A blocking call works where an event loop runs, as in a notebook."""

    async def main(server: FaultServer) -> None:
        with Cloudware("token", base_url=server.base_url) as cloudware:
            assert "success" == cloudware.send(TO, "Hello").status
            assert 1 == len(list(cloudware.messages()))
            with cloudware.messages().read_ahead() as messages:
                assert 1 == len(list(messages))
        await asyncio.sleep(0)

    with FaultServer() as server:
        asyncio.run(main(server))


def test_sixteen_threads_share_a_client():
    """None of 1,600 texts is lost or sent twice, and no more connections are opened than threads."""
    with FaultServer() as server:
        with Cloudware("token", base_url=server.base_url) as cloudware:

            def send(thread: int) -> list[str | None]:
                return [cloudware.send(TO, f"{thread}-{number}").id for number in range(100)]

            with ThreadPoolExecutor(16) as executor:
                receipts = [receipt for found in executor.map(send, range(16)) for receipt in found]
        assert 1600 == len(set(receipts))
        assert 1600 == len({request.body for request in server.posts})
        assert server.connections <= 16


def test_fewer_connections_than_threads():
    """Threads wait for a connection, and each gets one."""
    with FaultServer() as server:
        with (
            Cloudware("token", base_url=server.base_url, max_connections=2) as cloudware,
            ThreadPoolExecutor(8) as executor,
        ):
            receipts = list(executor.map(lambda number: cloudware.send(TO, f"{number}"), range(200)))
        assert 200 == len(receipts)
        assert server.connections <= 2


def test_after_a_fork():
    """Parent and child go on, each over connections of its own."""
    with FaultServer() as server:
        process = start(
            server,
            """
            import os
            cloudware = Cloudware(**OPTIONS)
            def send(name):
                # in one write, so that two processes do not write into each other's line
                os.write(1, f"{name} {cloudware.send('2348012345678', name).status}\\n".encode())
            send("before")
            child = os.fork()
            name = "parent" if child else "child"
            send(name)
            if child:
                assert os.waitpid(child, 0)[1] == 0
                send(name)
            cloudware.close()
            """,
        )
        output, errors, status = finish(process)
        assert ("", 0) == (errors, status)
        assert ["before success", "child success", "parent success", "parent success"] == sorted(output.splitlines())
        connections = {request.body: request.connection for request in server.posts}
        assert 2 == len(set(connections.values()))


def test_an_async_client_after_a_fork():
    """The child's own event loop gets connections of its own."""
    with FaultServer() as server:
        process = start(
            server,
            """
            import asyncio, os
            cloudware = AsyncCloudware(**OPTIONS)
            async def main():
                await cloudware.send("2348012345678", "before")
                return os.fork()
            async def after():
                os.write(1, f"{(await cloudware.send('2348012345678', 'after')).status}\\n".encode())
                await cloudware.aclose()
            loop = asyncio.new_event_loop()
            child = loop.run_until_complete(main())
            if child:
                loop.run_until_complete(after())
                loop.close()
                assert os.waitpid(child, 0)[1] == 0
            else:
                import warnings
                # the loop of the parent dies with the child's copy of it
                warnings.simplefilter("ignore", ResourceWarning)
                asyncio.run(after())
                os._exit(0)
            """,
        )
        output, errors, status = finish(process)
        assert (["success", "success"], 0) == (output.split(), status), errors
        assert 2 == len({request.connection for request in server.posts})


def test_under_gevent():
    """Green threads send at once over a patched standard library."""
    pytest.importorskip("gevent")
    with FaultServer() as server:
        process = start(
            server,
            """
            import warnings
            warnings.simplefilter("ignore")
            from gevent import monkey
            monkey.patch_all()
            import gevent
            with Cloudware(**OPTIONS) as cloudware:
                jobs = [gevent.spawn(cloudware.send, "2348012345678", f"{n}") for n in range(20)]
                gevent.joinall(jobs, raise_error=True)
                report = cloudware.send_many([Draft("2348012345678", f"bulk {n}") for n in range(20)], in_flight=5)
                with cloudware.messages().read_ahead() as messages:
                    print(len(jobs), len(report.accepted), len(list(messages)))
            """,
        )
        output, errors, status = finish(process)
        assert ("20 20 1\n", 0) == (output, status), errors


@pytest.mark.parametrize(
    "use",
    [
        "cloudware.send('2348012345678', 'Hello')",
        "cloudware.send_many([Draft('2348012345678', 'Hello')] * 5)",
        "next(cloudware.messages())",
        "messages = cloudware.messages().read_ahead().__enter__(); next(messages)",
    ],
    ids=["send", "send_many", "messages", "read_ahead"],
)
def test_at_exit_without_close(use):
    """An interpreter that ends with an open client ends at once and without a word."""
    with FaultServer() as server:
        head = f"from cloudware_async import *\ncloudware = Cloudware('token', base_url={server.base_url!r})\n"
        process = interpret("-W", "error", "-c", head + use)
        assert ("", "", 0) == finish(process)


def test_ctrl_c_in_mid_bulk():
    """Nothing new starts, what ended was told, and KeyboardInterrupt leaves as itself."""
    acts = tuple((ReadRequest(), Healthy()) for _ in range(10))
    with FaultServer(Script(acts, then=(ReadRequest(), Hang()))) as server:
        process = start(
            server,
            """
            told = []
            cloudware = Cloudware(**OPTIONS, timeout=1.0)
            try:
                texts = [Draft("2348012345678", f"{n}") for n in range(1000)]
                cloudware.send_many(texts, in_flight=4, on_result=told.append)
            except KeyboardInterrupt as error:
                print(type(error).__name__, sum(result.error is None for result in told))
                print(sum(result.error is not None and result.error.may_have_been_sent for result in told))
            cloudware.close()
            """,
        )
        assert server.wait_for(14, START)
        process.send_signal(signal.SIGINT)
        output, errors, status = finish(process)
        assert ("", 0) == (errors, status)
        # the four that hung ended as unknown, and were told too
        assert ["KeyboardInterrupt 10", "4"] == output.splitlines()
        assert 14 == len(server.posts)


def test_ctrl_c_twice_in_mid_bulk():
    """A second Ctrl-C does not wait for what is under way."""
    with FaultServer(Script(then=(ReadRequest(), Hang()))) as server:
        process = start(
            server,
            """
            import signal
            cloudware = Cloudware(**OPTIONS, timeout=60.0)
            try:
                cloudware.send_many([Draft("2348012345678", f"{n}") for n in range(1000)], in_flight=4)
            except KeyboardInterrupt:
                print("left", flush=True)
            """,
        )
        assert server.wait_for(4, START)
        for _ in range(2):
            process.send_signal(signal.SIGINT)
            threading.Event().wait(0.3)  # two signals that come at once are one
        output, _, status = finish(process)
        assert ("left\n", 0) == (output, status)
        assert 4 == len(server.posts)


def test_ctrl_c_twice_tells_what_had_ended():
    """After a second Ctrl-C too it is told how those ended that had, while others hang."""
    gate = Gate()
    acts = ((ReadRequest(), Hold(gate), Healthy()),) * 3
    with FaultServer(Script(acts, then=(ReadRequest(), Hang()))) as server, gate:
        process = start(
            server,
            """
            import threading, time
            cloudware = Cloudware(**OPTIONS, timeout=60.0)
            told = []
            def watch():
                while sum(thread.name.startswith("ThreadPool") for thread in threading.enumerate()) != 4:
                    time.sleep(0.01)
                print("begun", flush=True)
                # a thread of the bulk that is stopped ends with its text
                while sum(thread.name.startswith("ThreadPool") for thread in threading.enumerate()) > 1:
                    time.sleep(0.01)
                print("ended", flush=True)
            threading.Thread(target=watch, daemon=True).start()
            try:
                drafts = [Draft("2348012345678", f"{n}") for n in range(4)]
                cloudware.send_many(drafts, in_flight=4, on_result=told.append)
            except KeyboardInterrupt:
                print(sum(result.error is None for result in told), flush=True)
            """,
        )
        assert server.wait_for(4, START)
        assert "begun\n" == process.stdout.readline()
        process.send_signal(signal.SIGINT)
        gate.open()
        assert "ended\n" == process.stdout.readline()
        process.send_signal(signal.SIGINT)
        output, _, status = finish(process)
        assert ("3\n", 0) == (output, status)


def test_ctrl_c_as_a_text_ends():
    """A text that ends in the same moment is told: the interrupt does not come between its end and its result."""
    with FaultServer() as server:
        process = start(
            server,
            """
            import _thread, httpx
            def answered(_):
                _thread.interrupt_main()  # seen by the main thread when the result wakes it
            told = []
            with httpx.Client(event_hooks={"response": [answered]}) as client:
                for n in range(20):
                    try:
                        cloudware = Cloudware(**OPTIONS, http_client=client)
                        cloudware.send_many([Draft("2348012345678", f"{n}")], on_result=told.append)
                    except KeyboardInterrupt:
                        pass
            print(len(told))
            """,
        )
        output, errors, status = finish(process)
        assert ("20\n", "", 0) == (output, errors, status)


def test_ctrl_c_in_a_send():
    """A send to a server that hangs ends at once, and the client can be used again."""
    with FaultServer(Script(((ReadRequest(), Hang()),))) as server:
        process = start(
            server,
            """
            cloudware = Cloudware(**OPTIONS, timeout=60.0)
            try:
                cloudware.send("2348012345678", "first")
            except KeyboardInterrupt:
                print("stopped", cloudware.send("2348012345678", "second").status)
            cloudware.close()
            """,
        )
        assert server.wait_for(1, START)
        process.send_signal(signal.SIGINT)
        assert ("stopped success\n", "", 0) == finish(process)


def test_ctrl_c_at_any_moment_of_a_send():
    """Wherever it falls, the call ends at once, nothing is held for ever, and the client can be used again."""
    with FaultServer() as server:
        process = start(
            server,
            """
            import random, signal
            signal.signal(signal.SIGALRM, signal.default_int_handler)
            moments = random.Random(1)
            cloudware = Cloudware(**OPTIONS, timeout=600.0, max_connections=1, retry=None)
            cloudware.send("2348012345678", "first")
            for _ in range(2000):
                try:
                    signal.setitimer(signal.ITIMER_REAL, moments.uniform(0.00001, 0.003))
                    cloudware.send("2348012345678", "again")
                    signal.setitimer(signal.ITIMER_REAL, 0)
                except KeyboardInterrupt:
                    pass
            print(cloudware._driven._calling.backend._limiter.free, cloudware.send("2348012345678", "last").status)
            """,
        )
        output, errors, status = finish(process)
        assert ("1 success\n", 0) == (output, status), errors


def test_ctrl_c_in_a_pause():
    """A pause between two attempts ends at once."""
    with FaultServer() as server:
        process = start(
            server,
            """
            import signal, threading
            class Slow(RetryPolicy):
                def delay(self, attempt, failure, elapsed):
                    print("pausing", flush=True)
                    return 30.0
            cloudware = Cloudware("token", base_url="http://127.0.0.1:1/v1", timeout=60.0, retry=Slow())
            try:
                cloudware.send("2348012345678", "first")
            except KeyboardInterrupt:
                print("stopped")
            """,
        )
        assert process.stdout is not None
        assert "pausing\n" == process.stdout.readline()
        process.send_signal(signal.SIGINT)
        assert ("stopped\n", "", 0) == finish(process)


def test_inside_a_running_trio_loop() -> None:
    """So it does where trio runs."""

    async def main() -> None:
        with FaultServer() as server, Cloudware("token", base_url=server.base_url) as cloudware:
            assert "success" == cloudware.send(TO, "Hello").status
            assert 5 == len(cloudware.send_many([Draft(TO, "Hello")] * 5).accepted)
            with cloudware.messages().read_ahead() as messages:
                assert 1 == len(list(messages))

    trio.run(main)


def test_plain_loops() -> None:
    """`for`, `with`, `list` and `next` do what they do elsewhere."""
    with Book.of(2, 1).serve() as server, Cloudware("token", base_url=server.base_url) as cloudware:
        assert ids(3) == [sms.message_id for sms in cloudware.messages()]
        assert [2, 1] == [len(page.messages) for page in cloudware.messages().pages()]
        pager = cloudware.messages()
        assert "id-0" == next(pager).message_id
        assert ids(3, 1) == [sms.message_id for sms in pager]
        with pytest.raises(StopIteration):
            next(pager)
        assert "none" == next(pager, "none")
        for mine in (StopIteration("mine"), StopAsyncIteration("mine"), LookupError("mine")):
            with pytest.raises(type(mine)) as caught, cloudware.messages().read_ahead() as messages:
                next(messages)
                raise mine
            assert caught.value is mine


def test_threads_that_change_at_every_turn() -> None:
    """Sixteen threads that take turns as often as Python lets them lose no text and no connection."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with FaultServer() as server:
            with Cloudware("token", base_url=server.base_url, max_connections=5) as cloudware:

                def send(thread: int) -> list[str | None]:
                    return [cloudware.send(TO, f"{thread}-{number}").id for number in range(60)]

                with ThreadPoolExecutor(16) as executor:
                    receipts = [receipt for found in executor.map(send, range(16)) for receipt in found]
            assert 960 == len(set(receipts)) == len(server.posts)
            assert server.connections <= 5
            assert server.wait_for_ended(server.connections)
    finally:
        sys.setswitchinterval(interval)


def test_a_fork_over_tls(certificates: Certificates, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The child says no word on the parent's connection, not even a farewell: the parent goes on over it."""
    certificates.authority.cert_pem.write_to_path(str(tmp_path / "authority.pem"))
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "authority.pem"))
    with FaultServer(ssl_context=certificates.server_context()) as server:
        process = start(
            server,
            """
            import os
            cloudware = Cloudware(**OPTIONS)
            cloudware.send("2348012345678", "before")
            child = os.fork()
            if not child:
                cloudware.send("2348012345678", "child")
                cloudware.close()
                os._exit(0)
            assert os.waitpid(child, 0)[1] == 0
            cloudware.send("2348012345678", "parent")
            cloudware.close()
            """,
        )
        assert ("", "", 0) == finish(process)
        assert [1, 2, 1] == [request.connection for request in server.posts]


def test_a_fork_while_reading_ahead() -> None:
    """A child that goes on with a walk whose fetch stayed with the parent's thread comes to an end."""
    with Book.of(*[1] * 5).serve() as server:
        process = start(
            server,
            """
            import os, signal, warnings
            # from 3.12 on Python warns of any fork beside a thread
            warnings.simplefilter("ignore", DeprecationWarning)
            cloudware = Cloudware(**OPTIONS, timeout=2.0)
            with cloudware.messages().read_ahead() as messages:
                next(messages)
                child = os.fork()
                if not child:
                    signal.alarm(5)
                    try:
                        list(messages)
                    except CloudwareError:
                        pass
                    os._exit(0)
                print(len(list(messages)), os.waitpid(child, 0)[1])
            cloudware.close()
            """,
        )
        assert ("4 0\n", "", 0) == finish(process)


def test_green_threads_run_at_once() -> None:
    """Under gevent ten sends, and ten of a bulk, are under way together."""
    if importlib.util.find_spec("gevent") is None:
        pytest.skip("gevent is not installed")
    gate = Gate()
    with held(gate) as server, gate:
        process = start(
            server,
            """
            import warnings
            warnings.simplefilter("ignore")
            from gevent import monkey
            monkey.patch_all()
            import gevent
            with Cloudware(**OPTIONS) as cloudware:
                jobs = [gevent.spawn(cloudware.send, "2348012345678", f"{n}") for n in range(10)]
                gevent.joinall(jobs, raise_error=True)
                report = cloudware.send_many([Draft("2348012345678", f"{n}") for n in range(10)], in_flight=10)
                print(len(report.accepted))
            """,
        )
        assert gate.wait_for(10, START)
        gate.let(10)
        assert server.wait_for(20, START)
        assert gate.wait_for(10, START)
        gate.open()
        output, errors, status = finish(process)
    assert ("10\n", 0) == (output, status), errors


@pytest.mark.parametrize(
    "use",
    [
        "messages = cloudware.messages().read_ahead().__enter__(); next(messages); sys.stdin.read()",
        "threading.Thread(target=cloudware.send, args=('2348012345678', 'Hello'), daemon=True).start(); sys.stdin.read()",
        "next(cloudware.messages()); atexit.register(lambda: cloudware.send('2348012345678', 'Hello'))",
    ],
    ids=["a fetch hangs", "a thread hangs", "a send at exit"],
)
def test_at_exit_in_the_middle(use: str) -> None:
    """An interpreter that ends while something is under way ends at once and without a word."""
    first = (ReadRequest(), Reply(Book.of(2, 2).answer))
    hang = (ReadRequest(), Healthy() if "atexit" in use else Hang())
    acts = () if "Thread" in use else (first,)
    with FaultServer(Script(acts, then=hang)) as server:
        head = f"import atexit, sys, threading\nfrom cloudware_async import *\nurl = {server.base_url!r}\n"
        made = "cloudware = Cloudware('token', base_url=url, timeout=60)\n"
        process = interpret("-W", "error", "-c", head + made + use)
        assert server.wait_for(1 if "Thread" in use else 2, START)
        assert ("", "", 0) == finish(process)


def test_ctrl_c_while_waiting_for_a_page() -> None:
    """A walk that reads ahead and waits for a page that hangs ends at once, and its thread with it."""
    first = (ReadRequest(), Reply(Book.of(1, 2).answer))
    with FaultServer(Script((first,), then=(ReadRequest(), Hang()))) as server:
        process = start(
            server,
            """
            cloudware = Cloudware(**OPTIONS, timeout=60.0)
            try:
                with cloudware.messages().read_ahead() as messages:
                    for sms in messages:
                        print(sms.message_id)
            except KeyboardInterrupt:
                print("stopped")
            cloudware.close()
            """,
        )
        assert server.wait_for(2, START)
        process.send_signal(signal.SIGINT)
        assert ("id-0\nstopped\n", "", 0) == finish(process)


def test_ctrl_c_and_on() -> None:
    """A walk whose wait for the next page was interrupted goes on there: nothing is skipped and nothing comes twice."""
    gate = Gate()
    acts = (
        (ReadRequest(), Reply(Book.of(1, 2, 1).answer)),
        (ReadRequest(), Hold(gate), Reply(Book.of(1, 2, 1).answer)),
    )
    with FaultServer(Script(acts, then=(ReadRequest(), Reply(Book.of(1, 2, 1).answer)))) as server, gate:
        process = start(
            server,
            """
            cloudware = Cloudware(**OPTIONS, timeout=60.0)
            with cloudware.messages().read_ahead() as messages:
                try:
                    for sms in messages:
                        print(sms.message_id)
                except KeyboardInterrupt:
                    print("interrupted", flush=True)
                for sms in messages:
                    print(sms.message_id)
            cloudware.close()
            """,
        )
        assert gate.wait_for(1, START)
        process.send_signal(signal.SIGINT)
        assert process.stdout is not None
        assert ["id-0\n", "interrupted\n"] == [process.stdout.readline() for _ in range(2)]
        gate.open()
        assert ("id-1\nid-2\nid-3\n", "", 0) == finish(process)
        assert 3 == len(server.ledger)


def test_a_bulk_at_exit() -> None:
    """Texts can be sent when the interpreter ends, though no thread can be started any more: each goes out once."""
    with FaultServer() as server:
        process = start(
            server,
            """
            import atexit
            cloudware = Cloudware(**OPTIONS)
            def last_words():
                report = cloudware.send_many([Draft("2348012345678", f"{n}") for n in range(9)], in_flight=3)
                print(report)
            atexit.register(last_words)
            """,
        )
        assert ("BulkReport(accepted=9, rejected=0, unknown=0, not_sent=0)\n", "", 0) == finish(process)
        assert 9 == len(server.posts)


@pytest.mark.parametrize("run", ["asyncio.run(main())", "trio.run(main)"], ids=["asyncio", "trio"])
def test_ctrl_c_in_an_async_bulk(run: str) -> None:
    """The async client's bulk is stopped by Ctrl-C too: KeyboardInterrupt leaves as itself and in no group."""
    acts = tuple((ReadRequest(), Healthy()) for _ in range(10))
    with FaultServer(Script(acts, then=(ReadRequest(), Hang()))) as server:
        process = start(
            server,
            f"""
            import asyncio, trio
            told = []
            async def main():
                texts = [Draft("2348012345678", f"{{n}}") for n in range(1000)]
                async with AsyncCloudware(**OPTIONS, timeout=60.0) as cloudware:
                    await cloudware.send_many(texts, in_flight=4, on_result=told.append)
            try:
                {run}
            except BaseException as error:
                print(type(error).__name__, len(told))
            """,
        )
        assert server.wait_for(14, START)
        process.send_signal(signal.SIGINT)
        output, errors, status = finish(process)
        assert ("KeyboardInterrupt 10\n", 0) == (output, status), errors
        assert 14 == len(server.posts)


# what falls into a task of trio's own is the main task's, which waits for the bulk's others
@pytest.mark.parametrize("do", ["interrupt()", "trio.lowlevel.spawn_system_task(aside)"], ids=["its own", "another"])
def test_ctrl_c_in_a_task(do: str) -> None:
    """Whichever task of trio's Ctrl-C falls into, it ends the bulk and leaves as itself."""
    with FaultServer(Script(((ReadRequest(), Healthy()),), then=(ReadRequest(), Hang()))) as server:
        process = start(
            server,
            f"""
            import signal, trio
            told = []
            def interrupt():
                signal.raise_signal(signal.SIGINT)
            async def aside():
                interrupt()
            def tell(result):
                told.append(result)
                {do}
            async def main():
                texts = [Draft("2348012345678", f"{{n}}") for n in range(9)]
                async with AsyncCloudware(**OPTIONS, timeout=60.0) as cloudware:
                    await cloudware.send_many(texts, in_flight=4, on_result=tell)
            try:
                trio.run(main)
            except BaseException as error:
                print(type(error).__name__, len(told))
            """,
        )
        output, errors, status = finish(process)
        assert ("KeyboardInterrupt 1\n", 0) == (output, status), errors


@pytest.mark.parametrize(
    ("waits", "do"),
    [
        ("report_all", "bulk"),
        ("result", "walk"),
        ("_receive", "answer"),
        ("sleep", "pause"),
        ("take", "connection"),
    ],
)
def test_ctrl_c_just_before_a_wait(waits: str, do: str) -> None:
    """A Ctrl-C that comes as the main thread begins to wait, and so wakes nobody, is seen all the same."""
    first = (ReadRequest(), Reply(Book.of(1, 2).answer))
    with FaultServer(Script((first,), then=(ReadRequest(), Hang()))) as server:
        process = start(
            server,
            f"""
            import _thread, sys, threading, time
            main = threading.get_ident()
            def until_in(name):
                while name not in names():
                    time.sleep(0.01)
            def names():
                frame = sys._current_frames()[main]
                while frame is not None:
                    yield frame.f_code.co_name
                    frame = frame.f_back
            def press():
                until_in({waits!r})
                # it is noted, and wakes nobody
                _thread.interrupt_main()
                # a bulk waits then for what is under way
                until_in("_finish")
                _thread.interrupt_main()
            def bulk():
                cloudware.send_many([Draft("2348012345678", "Hello")])
            def walk():
                list(messages)
            def answer():
                cloudware.send("2348012345678", "Hello")
            def pause():
                retry = RetryPolicy(base_delay=50.0, max_delay=50.0, random=lambda: 0.9)
                Cloudware("token", base_url="http://127.0.0.1:1/v1", timeout=60.0, retry=retry).send("2348012345678", "Hello")
            def connection():
                narrow = Cloudware(**OPTIONS, timeout=60.0, max_connections=1)
                # it ends with its connection, when Python does
                threading.excepthook = lambda _: None
                threading.Thread(target=narrow.send, args=("2348012345678", "Hello"), daemon=True).start()
                while narrow._driven._calling.backend._limiter.free:
                    time.sleep(0.01)
                narrow.send("2348012345678", "Hello")
            cloudware = Cloudware(**OPTIONS, timeout=60.0)
            with cloudware.messages().read_ahead() as messages:
                next(messages)
                threading.Thread(target=press, daemon=True).start()
                try:
                    {do}()
                except KeyboardInterrupt:
                    print("stopped", flush=True)
            """,
        )
        output, errors, _ = finish(process)
        assert ("stopped\n", "") == (output, errors)


def test_a_child_that_is_forked_within_a_bulk() -> None:
    """The bulk goes on in the parent; the child, which has none of its threads, is told so."""
    with FaultServer() as server:
        process = start(
            server,
            """
            import os
            def tell(result):
                if not children:
                    children.append(os.fork())
            children = []
            drafts = [Draft("2348012345678", f"{n}") for n in range(20)]
            cloudware = Cloudware(**OPTIONS)
            try:
                print(len(cloudware.send_many(drafts, in_flight=20, on_result=tell).accepted))
            except ConfigurationError as error:
                print("forked" in str(error), flush=True)
                os._exit(0)
            print(os.waitpid(children[0], 0)[1])
            cloudware.close()
            """,
        )
        output, errors, status = finish(process)
        assert ({"20", "True", "0"}, 0) == (set(output.split()), status), errors
        assert 20 == len(server.posts)


def test_a_child_has_none_of_its_parents_connections() -> None:
    """They are dropped in the fork itself, before the child has a second thread that could take one."""
    with FaultServer() as server:
        process = start(
            server,
            """
            import os
            cloudware = Cloudware(**OPTIONS)
            cloudware.send("2348012345678", "Hello")
            backend = cloudware._driven._calling.backend
            print(len(backend._free), flush=True)
            child = os.fork()
            if not child:
                os._exit(len(backend._free))
            print(os.waitpid(child, 0)[1], len(backend._free))
            cloudware.close()
            """,
        )
        assert ("1\n0 1\n", "", 0) == finish(process)


def test_a_fork_while_a_backend_is_opened() -> None:
    """It waits for that, so that the child finds it opened and waits for nobody."""
    process = interpret(
        "-c",
        textwrap.dedent(
            """
            import os, signal, threading, warnings
            from cloudware_async._backend_opening import Opening
            # from 3.12 on Python warns of any fork beside a thread
            warnings.simplefilter("ignore", DeprecationWarning)
            begun, go_on = threading.Event(), threading.Event()
            def open_backend():
                begun.set()
                assert go_on.wait(10)
                return "backend"
            opening = Opening(open_backend)
            thread = threading.Thread(target=lambda: opening.backend)
            thread.start()
            assert begun.wait(10)
            threading.Timer(0.1, go_on.set).start()
            child = os.fork()
            if not child:
                signal.alarm(10)
                os._exit(opening.backend != "backend")
            print(os.waitpid(child, 0)[1])
            thread.join()
            """
        ),
    )
    assert ("0\n", "", 0) == finish(process)
