"""The stores keep their promise: of several who want a message one gets it, and nothing recorded is lost."""

from __future__ import annotations

import concurrent.futures
import contextlib
import itertools
import os
import signal
import socket
import sqlite3
import stat
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from webhook_postgresql import Cluster, cluster

from cloudware_async import ConfigurationError
from cloudware_async.webhooks import (
    DurableStore,
    MemoryStore,
    PostgreSQLStore,
    SQLiteStore,
    Standing,
    Store,
    _postgresql,
    _sqlite,
    _store,
)

KEY = b"k" * 32
OTHER = b"o" * 32
BODY = b'{"a text"}'

Make = Callable[..., Any]


@pytest.fixture(scope="session")
def postgresql() -> Iterator[Cluster]:
    with cluster() as running:
        yield running


@pytest.fixture
def database(postgresql: Cluster) -> Iterator[str]:
    with postgresql.database() as connection:
        yield connection


@pytest.fixture(params=["SQLite", "PostgreSQL"])
def make(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Make]:
    """Makes durable stores over the same data, and closes them."""
    with contextlib.ExitStack() as closing:
        if request.param == "SQLite":
            where: Any = tmp_path / "texts.db"
            kind: Any = SQLiteStore
        else:
            where = request.getfixturevalue("database")
            kind = PostgreSQLStore

        def make_one(**options: Any) -> DurableStore:
            store: DurableStore = kind(where, **options)
            closing.callback(store.close)
            return store

        make_one.where = where  # type: ignore[attr-defined]
        yield make_one


@pytest.fixture(params=["memory", "SQLite", "PostgreSQL"])
def any_store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    if request.param == "memory":
        store: Store = MemoryStore()
    elif request.param == "SQLite":
        store = SQLiteStore(tmp_path / "texts.db")
    else:
        store = PostgreSQLStore(request.getfixturevalue("database"))
    yield store
    store.close()


def look_for_dead(store: Any) -> None:
    """Have the store look for dead receivers at its next call, and not within five seconds."""
    store._next_look_for_dead = 0.0


@contextlib.contextmanager
def at(monkeypatch: pytest.MonkeyPatch, seconds: float) -> Iterator[None]:
    """Move the clocks of this process."""
    with monkeypatch.context() as patch:
        for module in (_store, _sqlite, _postgresql):
            real = module.time

            class Clock:
                monotonic = staticmethod(lambda real=real: real.monotonic() + seconds)
                time = staticmethod(lambda real=real: real.time() + seconds)

            patch.setattr(module, "time", Clock)
        yield


def test_stores_are_stores(make: Make) -> None:
    """Every store is one to a type checker and to `isinstance`, and only the durable ones are durable."""
    assert isinstance(MemoryStore(), Store)
    assert not isinstance(MemoryStore(), DurableStore)
    assert isinstance(make(), DurableStore)


def test_claim_finish(any_store: Store) -> None:
    """A message is claimed once at a time, and once it was handled it stays so."""
    assert Standing.CLAIMED == any_store.claim(KEY)
    assert Standing.BUSY == any_store.claim(KEY)
    assert Standing.CLAIMED == any_store.claim(OTHER)
    any_store.finish(KEY)
    assert Standing.HANDLED == any_store.claim(KEY)
    assert Standing.BUSY == any_store.claim(OTHER)


def test_claim_release(any_store: Store) -> None:
    """A message that was released is as unseen."""
    assert Standing.CLAIMED == any_store.claim(KEY)
    any_store.release(KEY, 0)
    assert Standing.CLAIMED == any_store.claim(KEY)


def test_claim_from_many_threads(any_store: Store) -> None:
    """Of sixteen threads that claim the same twenty messages, each message is given to one."""
    keys = [bytes([number]) * 32 for number in range(20)]
    barrier = threading.Barrier(16)

    def claim_all(_: int) -> list[bytes]:
        barrier.wait()
        return [key for key in keys if any_store.claim(key) is Standing.CLAIMED]

    with concurrent.futures.ThreadPoolExecutor(16) as threads:
        claimed = [key for keys in threads.map(claim_all, range(16)) for key in keys]
    assert Counter(keys) == Counter(claimed)


def test_claim_across_stores(make: Make) -> None:
    """A claim holds against the store of another process, and what one has handled the other knows."""
    one, other = make(), make()
    assert Standing.CLAIMED == one.claim(KEY)
    assert Standing.BUSY == other.claim(KEY)
    one.finish(KEY)
    assert Standing.HANDLED == other.claim(KEY)


def test_claims_end_with_the_store(make: Make) -> None:
    """What a closed store had claimed is free for the others."""
    one, other = make(), make()
    assert Standing.CLAIMED == one.claim(KEY)
    one.close()
    assert Standing.CLAIMED == other.claim(KEY)


def test_horizon(any_store: Store, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    """By default a handled message is known for seven days; in memory also less, never longer."""
    any_store.claim(KEY)
    any_store.finish(KEY)
    assert _store.HORIZON == 7 * 24 * 60 * 60
    if isinstance(any_store, PostgreSQLStore):
        move = "UPDATE cloudware_webhooks SET handled_at = handled_at - make_interval(secs => %s)"

        def shift(seconds: float) -> contextlib.AbstractContextManager[None]:
            with psycopg.connect(request.getfixturevalue("database")) as connection:
                connection.execute(move, (seconds,))
            return contextlib.nullcontext()
    else:
        shift = lambda seconds: at(monkeypatch, seconds)  # noqa: E731
    with shift(_store.HORIZON - 1000):
        assert Standing.HANDLED == any_store.claim(KEY)
    with shift(_store.HORIZON + 1000):
        assert Standing.CLAIMED == any_store.claim(KEY)


def test_memory_is_bounded() -> None:
    """In memory the latest million messages are known, and no more."""
    store = MemoryStore()
    assert 1_000_000 == store._most
    store._most = 3
    for number in range(5):
        store.finish(bytes([number]))
    assert [0, 1] == [number for number in range(5) if store.claim(bytes([number])) is Standing.CLAIMED]


def test_record_and_take(make: Make) -> None:
    """What is recorded is taken once, with its body, until it is finished; then its text is gone."""
    store = make()
    store.record(KEY, BODY)
    (taken,) = store.take(5)
    assert (KEY, BODY, 1) == (taken.key, taken.body, taken.attempts)
    assert [] == list(store.take(5))
    store.finish(KEY)
    store.record(KEY, BODY)
    assert [] == list(store.take(5))
    assert [(None,)] == rows(make, "SELECT body FROM {table}")


def rows(make: Any, query: str) -> list[Any]:
    if isinstance(make.where, Path):
        with contextlib.closing(sqlite3.connect(make.where)) as connection:
            return connection.execute(query.format(table="webhooks")).fetchall()
    with psycopg.connect(make.where) as connection:
        return connection.execute(query.format(table="cloudware_webhooks")).fetchall()


def test_deleted_texts_leave_no_trace(tmp_path: Path) -> None:
    """After a message was handled its text is in no file of SQLite's."""
    store = SQLiteStore(tmp_path / "texts.db")
    store.record(KEY, b"a very private text")
    store.take(1)
    assert any(b"very private" in file.read_bytes() for file in tmp_path.iterdir())
    store.finish(KEY)
    store.close()
    assert not any(b"very private" in file.read_bytes() for file in tmp_path.iterdir())


def test_take_oldest_first(make: Make) -> None:
    """Messages are taken in the order in which they came, at most so many."""
    store = make()
    for number in range(5):
        store.record(bytes([number]), BODY)
    assert {b"\0", b"\1", b"\2"} == {each.key for each in store.take(3)}
    assert {b"\3", b"\4"} == {each.key for each in store.take(3)}


def test_a_new_file_that_others_open_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who comes in the moment in which another process makes the file waits for it."""
    path = tmp_path / "texts.db"
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        waited: list[float] = []

        def sleep(seconds: float) -> None:
            waited.append(seconds)
            if len(waited) == 3:
                other.execute("ROLLBACK")

        with at(monkeypatch, 0):
            _sqlite.time.sleep = sleep  # type: ignore[attr-defined]
            store = SQLiteStore(path)
            store.record(KEY, BODY)
        assert 3 == len(waited)
    assert [KEY] == [taken.key for taken in store.take(5)]
    store.close()


def test_a_new_file_that_another_never_lets_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The wait for it has an end."""
    path = tmp_path / "texts.db"
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with at(monkeypatch, 0):
            clock = itertools.count(0.0, 20.0)
            _sqlite.time.monotonic = lambda: next(clock)  # type: ignore[attr-defined]
            _sqlite.time.sleep = [].append  # type: ignore[attr-defined]
            with pytest.raises(sqlite3.OperationalError, match="locked"):
                SQLiteStore(path).record(KEY, BODY)


def test_a_clock_that_is_set_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A message that was recorded before the clock was set back does not wait until that time comes again."""
    store = SQLiteStore(tmp_path / "texts.db")
    with at(monkeypatch, 3600):
        store.record(KEY, BODY)
    assert [KEY] == [taken.key for taken in store.take(5)]
    store.close()


def test_release_later(make: Make) -> None:
    """A message that failed is due after its pause, no sooner, and counts its attempts."""
    store = make()
    store.record(KEY, BODY)
    store.take(1)
    store.release(KEY, 3600)
    assert [] == list(store.take(1))
    store.record(OTHER, BODY)
    store.take(1)
    store.release(OTHER, 0)
    (taken,) = store.take(5)
    assert (OTHER, 2) == (taken.key, taken.attempts)


def test_repeat_of_unhandled_is_due_now(make: Make) -> None:
    """A message that waits for its next attempt is due at once when it is posted again; its first body counts."""
    store = make()
    store.record(KEY, BODY)
    store.take(1)
    store.release(KEY, 3600)
    store.record(KEY, b"other")
    (taken,) = store.take(1)
    assert (BODY, 2) == (taken.body, taken.attempts)


def test_repeat_of_one_under_way(make: Make) -> None:
    """A repeat does not take a message from whoever is at it, in this process or another."""
    store, other = make(), make()
    store.record(KEY, BODY)
    store.take(1)
    other.record(KEY, BODY)
    assert [] == [*store.take(1), *other.take(1)]


def test_recorded_while_claimed(make: Make) -> None:
    """A message that is recorded while somebody has only claimed it is kept, and handed out when that comes to nothing."""
    store, other = make(), make()
    assert Standing.CLAIMED == store.claim(KEY)
    other.record(KEY, BODY)
    assert [] == [*store.take(1), *other.take(1)]
    store.release(KEY, 0)
    assert [BODY] == [each.body for each in other.take(1)]


def test_death_is_no_way_to_come_again_at_once(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a store died of twice waits, so that one message cannot keep a receiver from all the others."""
    for attempts in (1, 2):
        store = make()
        store.record(KEY, BODY)
        assert [attempts] == [each.attempts for each in store.take(1)]
        store.close()
    store = make()
    assert [] == list(store.take(1))
    set_due_at(make, seconds=-1.5)
    assert [3] == [each.attempts for each in store.take(1)]
    store.close()
    set_due_at(make, seconds=-1.5)
    assert [] == list(make().take(1))


def set_due_at(make: Any, *, seconds: float) -> None:
    """Move when every message is due."""
    if isinstance(make.where, Path):
        with contextlib.closing(sqlite3.connect(make.where)) as connection, connection:
            connection.execute("UPDATE webhooks SET due_at = due_at + ?", (seconds,))
    else:
        with psycopg.connect(make.where) as session:
            session.execute("UPDATE cloudware_webhooks SET due_at = due_at + make_interval(secs => %s)", (seconds,))


def test_finish_after_close(make: Make) -> None:
    """What was handled is marked even if the store was closed meanwhile."""
    store = make()
    assert Standing.CLAIMED == store.claim(KEY)
    store.close()
    store.finish(KEY)
    assert Standing.HANDLED == make().claim(KEY)


def test_recorded_beyond_the_horizon(make: Make) -> None:
    """A message that was handled longer ago than the horizon is recorded as new."""
    store = make(horizon=1e-9)
    store.record(KEY, BODY)
    store.take(1)
    store.finish(KEY)
    store.record(KEY, BODY)
    assert [KEY] == [each.key for each in store.take(1)]


def test_purge(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was handled longer ago than the horizon is deleted within a minute of use; what was not handled is kept."""
    store = make(horizon=1e-9)
    for key in (KEY, OTHER):
        store.record(key, BODY)
    store.take(1)
    store.finish(KEY)
    with at(monkeypatch, 61):
        store.record(b"third", BODY)
    assert {OTHER, b"third"} == {bytes(key) for (key,) in rows(make, "SELECT key FROM {table}")}


def test_close_frees_what_was_taken(make: Make) -> None:
    """What a closed store had taken, the others get; and the closed one opens again when it is asked."""
    one, other = make(), make()
    one.record(KEY, BODY)
    one.take(1)
    one.close()
    look_for_dead(other)
    assert [KEY] == [each.key for each in other.take(1)]
    assert [] == list(one.take(1))


def test_others_look_for_the_dead_within_seconds(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """A running receiver notices within five seconds that another one is dead."""
    one, other = make(), make()
    one.record(KEY, BODY)
    assert [KEY] == [each.key for each in one.take(1)]
    assert [] == list(other.take(1))
    one.close()
    with at(monkeypatch, 5.1):
        assert [KEY] == [each.key for each in other.take(1)]


DYING = """
import os, signal, sys
from pathlib import Path
from cloudware_async.webhooks import PostgreSQLStore, SQLiteStore
kind, where = sys.argv[1:]
store = {"SQLite": SQLiteStore, "PostgreSQL": PostgreSQLStore}[kind](where)
store.record(b"recorded", b"body")
assert len(store.take(1)) == 1
store.claim(b"claimed")
print("ready", flush=True)
signal.pause()
"""


def test_claims_end_with_the_process(make: Any) -> None:
    """What a process had claimed and taken when it was killed is free at once; while it lived it was not."""
    kind = "SQLite" if isinstance(make.where, Path) else "PostgreSQL"
    command = [sys.executable, "-c", DYING, kind, str(make.where)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        assert "ready\n" == child.stdout.readline()
        store = make()
        assert Standing.BUSY == store.claim(b"claimed")
        look_for_dead(store)
        assert [] == list(store.take(5))
        child.send_signal(signal.SIGKILL)
    assert Standing.CLAIMED == poll(lambda: store.claim(b"claimed"), Standing.CLAIMED)
    look_for_dead(store)
    assert [b"recorded"] == [each.key for each in store.take(5)]


def poll(ask: Callable[[], Any], wanted: Any) -> Any:
    """Ask until the answer is the wanted one, at most ten seconds: PostgreSQL notices a closed connection soon."""
    for _ in range(1000):
        answer = ask()
        if answer == wanted:
            break
        threading.Event().wait(0.01)
    return answer


def test_restart_takes_its_old_seat(make: Make) -> None:
    """A store that is opened where another was killed frees at once what that one left behind."""
    one = make()
    one.record(KEY, BODY)
    one.take(1)
    # nothing is let go of but what the system lets go of
    if isinstance(one, SQLiteStore):
        one._seat_lock.close()
    else:
        session = one._connection.info.backend_pid
        one._connection.close()
        with psycopg.connect(make.where, autocommit=True) as other:
            count = "SELECT count(*) FROM pg_stat_activity WHERE pid = %s"
            assert (0,) == poll(lambda: other.execute(count, (session,)).fetchone(), (0,))
    assert [KEY] == [each.key for each in make().take(1)]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_fork(make: Make) -> None:
    """A child has a seat and a connection of its own, and leaves its parent's alone."""
    store = make()
    assert Standing.CLAIMED == store.claim(KEY)
    child = os.fork()
    if child == 0:  # pragma: no cover (nobody watches the child)
        try:
            is_well = store.claim(KEY) is Standing.BUSY and store.claim(OTHER) is Standing.CLAIMED
        except BaseException:  # noqa: BLE001 (pytest must not go on in the child)
            is_well = False
        os._exit(0 if is_well else 1)
    assert 0 == os.waitpid(child, 0)[1]
    store.finish(KEY)
    assert Standing.HANDLED == store.claim(KEY)
    assert Standing.CLAIMED == poll(lambda: store.claim(OTHER), Standing.CLAIMED)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_fork_loses_nothing(make: Make) -> None:
    """What a child records is kept, though its parent closes the store and others open it meanwhile."""
    store = make()
    store.record(b"of the parent", BODY)
    to_child, to_parent = os.pipe(), os.pipe()
    child = os.fork()
    if child == 0:  # pragma: no cover (nobody watches the child)
        try:
            store.record(b"one", BODY)
            os.write(to_parent[1], b"1")
            os.read(to_child[0], 1)
            store.record(b"two", BODY)
            store.close()
            os._exit(0)
        except BaseException:  # noqa: BLE001 (pytest must not go on in the child)
            os._exit(1)
    assert b"1" == os.read(to_parent[0], 1)
    store.record(b"three", BODY)
    store.close()
    # as another process would
    make().close()
    os.write(to_child[1], b"1")
    assert 0 == os.waitpid(child, 0)[1]
    for end in (*to_child, *to_parent):
        os.close(end)
    assert {b"of the parent", b"one", b"two", b"three"} == {each.key for each in make().take(9)}


LEAVING_A_CHILD = """
import os, signal, sys
from cloudware_async.webhooks import PostgreSQLStore, SQLiteStore
kind, where = sys.argv[1:]
store = {"SQLite": SQLiteStore, "PostgreSQL": PostgreSQLStore}[kind](where)
store.record(b"taken", b"body")
assert len(store.take(1)) == 1
child = os.fork()
if child == 0:
    for line in sys.stdin:
        store._next_look_for_dead = 0.0
        print(len(store.take(1)), flush=True)
        # the test asks again
        store.close()
    os._exit(0)
print(child, flush=True)
signal.pause()
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
@pytest.mark.parametrize("who", ["its child", "another process"])
def test_claims_end_with_the_process_whose_child_lives_on(make: Any, who: str) -> None:
    """What a process had taken when it was killed is free, though a child that it forked lives on."""
    kind = "SQLite" if isinstance(make.where, Path) else "PostgreSQL"
    command = [sys.executable, "-c", LEAVING_A_CHILD, kind, str(make.where)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdin is not None
        assert parent.stdout is not None
        stdin, stdout = parent.stdin, parent.stdout
        stdout.readline()
        parent.send_signal(signal.SIGKILL)
        parent.wait()
        store = make()

        def ask() -> int:
            if who == "another process":
                look_for_dead(store)
                return len(store.take(1))
            stdin.write("take\n")
            stdin.flush()
            return int(stdout.readline())

        assert 1 == poll(ask, 1)


OPENING = """
import sys
from cloudware_async.webhooks import PostgreSQLStore, SQLiteStore
kind, where, number = sys.argv[1:]
sys.stdin.readline()
store = {"SQLite": SQLiteStore, "PostgreSQL": PostgreSQLStore}[kind](where)
for count in range(20):
    store.record(f"{number} {count}".encode(), b"body")
taken = []
while True:
    more = store.take(3)
    if not more:
        break
    taken += [each.key.decode() for each in more]
    for each in more:
        store.finish(each.key)
for key in taken:
    print(key)
"""


def test_processes_that_start_together(make: Any) -> None:
    """Four processes that make the same new store at the same moment all can, and share the work, each message once."""
    kind = "SQLite" if isinstance(make.where, Path) else "PostgreSQL"
    with contextlib.ExitStack() as stack:
        children = [
            stack.enter_context(
                subprocess.Popen(
                    [sys.executable, "-c", OPENING, kind, str(make.where), str(number)],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    text=True,
                )
            )
            for number in range(4)
        ]
        for child in children:
            assert child.stdin is not None
            child.stdin.write("go\n")
            child.stdin.flush()
        outputs = [child.communicate()[0] for child in children]
    assert [0] * 4 == [child.returncode for child in children]
    names = [line for output in outputs for line in output.splitlines()]
    assert Counter(f"{number} {count}" for number in range(4) for count in range(20)) == Counter(names)


def test_broken_connection(database: str) -> None:
    """A connection that the server ended is made again within the call, and the claims are kept."""
    store, other = PostgreSQLStore(database), PostgreSQLStore(database)
    assert Standing.CLAIMED == store.claim(KEY)
    store.record(OTHER, BODY)
    store.take(1)
    with psycopg.connect(database, autocommit=True) as connection:
        end = "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE datname = %s AND pid <> %s"
        connection.execute(end, (connection.info.dbname, connection.info.backend_pid))
    assert Standing.BUSY == store.claim(KEY)
    assert [] == list(store.take(1))
    look_for_dead(other)
    assert [] == list(other.take(1))
    assert Standing.BUSY == other.claim(KEY)
    store.finish(KEY)
    assert Standing.HANDLED == other.claim(KEY)
    store.close()
    other.close()


def test_old_seat_is_taken(database: str) -> None:
    """A store that lost its connection and its seat keeps what is in its hands under a new seat."""
    store, other = PostgreSQLStore(database), PostgreSQLStore(database)
    other.claim(b"open")
    assert Standing.CLAIMED == store.claim(KEY)
    # the server has not noticed yet that the connection is gone: the old session lives on
    zombie = store._connection
    store._connection = None
    assert Standing.BUSY == store.claim(KEY)
    assert 3 == store._seat
    zombie.close()
    assert Standing.BUSY == other.claim(KEY)
    store.finish(KEY)
    assert Standing.HANDLED == other.claim(KEY)
    store.close()
    other.close()


def test_outage(postgresql: Cluster, database: str) -> None:
    """While the server is down calls fail with psycopg's error; when it is up again they work without further ado."""
    store = PostgreSQLStore(database)
    store.record(KEY, BODY)
    postgresql.control("-m", "fast", "stop")
    try:
        for _ in range(2):
            with pytest.raises(psycopg.OperationalError):
                store.record(OTHER, BODY)
    finally:
        postgresql.start()
    assert [KEY] == [each.key for each in store.take(5)]
    store.close()


def test_outage_queues_nobody() -> None:
    """Where no connection comes about in time, the calls that wait their turn behind that one fail at once."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        store = PostgreSQLStore(f"host=127.0.0.1 port={silent.getsockname()[1]} connect_timeout=2")
        with concurrent.futures.ThreadPoolExecutor(8) as pool:
            calls = [pool.submit(store.claim, bytes([number])) for number in range(8)]
            failures = [call.exception() for call in calls]
        assert all(isinstance(each, psycopg.OperationalError) for each in failures)
        silent.settimeout(0)
        attempts = 0
        with contextlib.suppress(BlockingIOError):
            while True:
                silent.accept()[0].close()
                attempts += 1
    assert 1 == attempts


def test_sqlite_file_is_private(tmp_path: Path) -> None:
    """The file with the texts, and what SQLite writes beside it, is for its owner only."""
    store = SQLiteStore(tmp_path / "texts.db")
    store.record(KEY, BODY)
    modes = {file.name: stat.S_IMODE(file.stat().st_mode) for file in tmp_path.iterdir() if "seat" not in file.name}
    store.close()
    assert {"texts.db": 0o600, "texts.db-wal": 0o600, "texts.db-shm": 0o600} == modes


def test_sqlite_survives_power_loss(tmp_path: Path) -> None:
    """Each commit is synced to the disk before it counts."""
    store = SQLiteStore(tmp_path / "texts.db")
    store.claim(KEY)
    assert store._connection is not None
    assert (2,) == store._connection.execute("PRAGMA synchronous").fetchone()
    assert ("wal",) == store._connection.execute("PRAGMA journal_mode").fetchone()
    store.close()


def test_sqlite_that_fails(tmp_path: Path) -> None:
    """A file that is no database is an error of SQLite's, as often as it is asked, and nothing stays open."""
    (tmp_path / "texts.db").write_bytes(b"no database, but long enough to be looked at" * 100)
    store = SQLiteStore(tmp_path / "texts.db")
    for _ in range(2):
        with pytest.raises(sqlite3.DatabaseError):
            store.record(KEY, BODY)
    assert store._connection is None


@pytest.mark.parametrize("path", ["", ":memory:", None, 5, b"texts.db", "no-such-folder/texts.db"])
def test_sqlite_takes_a_path(path: Any) -> None:
    """Anything but the path of a file in a folder that exists is a configuration error."""
    with pytest.raises(ConfigurationError, match="path"):
        SQLiteStore(path)


@pytest.mark.parametrize("conninfo", [None, 5, b"", "host=localhost s3cret", "postgresql://user:s3cret@[host/"])
def test_postgresql_takes_a_connection_string(conninfo: Any) -> None:
    """Anything but a connection string is a configuration error, which does not show what was given."""
    with pytest.raises(ConfigurationError, match="connection string") as caught:
        PostgreSQLStore(conninfo)
    assert "s3cret" not in str(caught.value)
    assert caught.value.__context__ is None


@pytest.mark.parametrize("horizon", [0, -1, float("nan"), float("inf"), True, "7", None])
def test_horizon_is_seconds(horizon: Any, tmp_path: Path) -> None:
    """A horizon that is no number of seconds above zero is a configuration error."""
    for make in (MemoryStore, lambda **options: SQLiteStore(tmp_path / "x", **options)):
        with pytest.raises(ConfigurationError, match="horizon"):
            make(horizon=horizon)


def test_long_horizon(database: str) -> None:
    """A horizon of more years than a database has is no error."""
    store = PostgreSQLStore(database, horizon=1e18)
    store.claim(KEY)
    store.finish(KEY)
    assert Standing.HANDLED == store.claim(KEY)
    store.close()


def test_passwords_are_not_shown() -> None:
    """The password in a connection string is in no `repr`."""
    assert "s3cret" not in repr(PostgreSQLStore("postgresql://user:s3cret@localhost/texts"))


def test_recorded_is_private(make: Make) -> None:
    """What is taken shows no text when it is printed."""
    store = make()
    store.record(KEY, b"a very private text")
    (taken,) = store.take(1)
    assert "private" not in repr(taken)
