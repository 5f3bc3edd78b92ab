"""Nothing lost, nothing doubled: the receivers are killed twenty times under load."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import signal
import sqlite3
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from webhook_cases import NEW, message
from webhook_postgresql import cluster
from webhook_servers import HERE, LOOPBACK, PATIENCE, listen, process

from cloudware_async.webhooks._worker import AT_ONCE

MESSAGES = 10_000
REPEATED = 0.3  # of all messages, up to three times more
CONNECTIONS = 50
KILLS = 20

pytestmark = [pytest.mark.exhaustive, pytest.mark.timeout(300)]


@pytest.fixture
def postgresql() -> Iterator[str]:
    with cluster() as running, running.database() as connection:
        yield connection


class Receivers:
    """Processes that receive on one socket, and how they are killed."""

    def __init__(self, child: Any) -> None:
        self._child = child
        self.alive: list[int] = []
        self.killed: set[int] = set()

    def start(self) -> None:
        self._child.stdin.write("start\n")
        self._child.stdin.flush()
        self.alive.append(int(self._child.stdout.readline()))

    def kill_one(self) -> None:
        victim = random.choice(self.alive)
        os.kill(victim, signal.SIGKILL)
        self.alive.remove(victim)
        self.killed.add(victim)


def request(name: str) -> bytes:
    body = json.dumps(message(name, message_id=name)).encode()
    head = (
        f"POST /{NEW} HTTP/1.1\r\nHost: here\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


class Service:
    """What posts webhooks: each until it is answered with 200, out of order, some more than once."""

    def __init__(self, port: int) -> None:
        self._port = port
        names = [f"m{number}" for number in range(MESSAGES)]
        repeats = [name for name in names if random.random() < REPEATED for _ in range(random.randint(1, 3))]
        self.waiting = names + repeats
        random.shuffle(self.waiting)
        self.posts = len(self.waiting)
        self.answered = 0
        self.failed = 0
        self._thresholds: list[tuple[int, asyncio.Event]] = []

    async def reach(self, answered: int) -> None:
        """Wait until so many posts were answered with 200."""
        event = asyncio.Event()
        self._thresholds.append((answered, event))
        async with asyncio.timeout(PATIENCE * 5):
            await event.wait()

    async def post_all(self) -> None:
        async with asyncio.TaskGroup() as group:
            for _ in range(CONNECTIONS):
                group.create_task(self._connection())

    async def _connection(self) -> None:
        writer = None
        while self.waiting:
            name = self.waiting.pop()
            try:
                if writer is None:
                    reader, writer = await asyncio.open_connection(LOOPBACK, self._port)
                writer.write(request(name))
                head = await reader.readuntil(b"\r\n\r\n")
                status = int(head.split()[1])
            except (OSError, asyncio.IncompleteReadError):
                if writer is not None:
                    writer.close()
                writer, status = None, 0
            if status == 200:
                self.answered += 1
                for answered, event in self._thresholds:
                    if self.answered >= answered:
                        event.set()
            else:
                # later, and so in another order
                self.failed += 1
                self.waiting.insert(0, name)
        if writer is not None:
            writer.close()


async def attack(port: int, receivers: Receivers, count: int) -> Service:
    service = Service(port)
    for _ in range(count):
        receivers.start()
    async with asyncio.TaskGroup() as group:
        group.create_task(service.post_all())
        for kill in range(1, KILLS + 1):
            await service.reach(service.posts * kill // (KILLS + 1))
            receivers.kill_one()
            receivers.start()
    return service


def read(ledger: Path) -> list[tuple[str, str, int]]:
    lines = (line.split() for line in ledger.read_text().splitlines())
    return [(event, name, int(process)) for event, name, process in lines]


@pytest.mark.parametrize(("kind", "count"), [("SQLite", 1), ("PostgreSQL", 3)])
def test_nothing_lost_nothing_doubled(kind: str, count: int, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    """Of 10,000 messages, posted with repeats and out of order while handlers fail now and then and receivers are killed
    twenty times, every one is handled; and again only those that were in flight at a kill.
    """
    where = str(tmp_path / "texts.db") if kind == "SQLite" else request.getfixturevalue("postgresql")
    path = tmp_path / "ledger"
    path.touch()
    with listen() as listener:
        arguments = (str(HERE / "webhook_victims.py"), str(listener.fileno()), kind, where, str(path))
        with process(*arguments, listener=listener, stdin=-1, stdout=-1) as child:
            receivers = Receivers(child)
            service = asyncio.run(attack(listener.getsockname()[1], receivers, count))
            wait_for_all(kind, where)
            child.stdin.close()
            child.wait(PATIENCE)
    judge(read(path), receivers.killed)
    assert KILLS == len(receivers.killed)
    assert service.failed > 0


def wait_for_all(kind: str, where: str) -> None:
    """Until every message is marked in the store; what failed at last is due again within seconds."""
    connect: Any = sqlite3.connect if kind == "SQLite" else psycopg.connect
    table = "webhooks" if kind == "SQLite" else "cloudware_webhooks"
    end = time.monotonic() + 60
    handled = 0
    while handled < MESSAGES:
        assert time.monotonic() < end, f"{MESSAGES - handled} messages are not handled"
        time.sleep(0.1)
        with contextlib.closing(connect(where)) as connection:
            (handled,) = connection.execute(f"SELECT count(*) FROM {table} WHERE handled_at IS NOT NULL").fetchone()


def judge(ledger: list[tuple[str, str, int]], killed: set[int]) -> None:
    ends = Counter(name for event, name, _ in ledger if event == "end")
    assert [] == [f"m{number}" for number in range(MESSAGES) if not ends[f"m{number}"]], "lost"
    marked = {(name, process) for event, name, process in ledger if event == "marked"}
    doubled = [name for name, count in ends.items() if count > 1]
    in_flight: defaultdict[int, set[str]] = defaultdict(set)
    for name in doubled:
        handlers = [process for event, other, process in ledger if (event, other) == ("end", name)]
        # all but the last were killed before they could mark it
        for handler in handlers[:-1]:
            assert handler in killed, f"{name} was handled twice by {handlers}, and {handler} was not killed"
            assert (name, handler) not in marked, f"{name} was handled again after it was marked"
            in_flight[handler].add(name)
    assert all(len(names) <= AT_ONCE for names in in_flight.values())
    assert any(event == "fail" for event, _, _ in ledger)
    begun = Counter((name, process) for event, name, process in ledger if event == "begin")
    begun.subtract((name, process) for event, name, process in ledger if event in ("end", "fail"))
    cut_off = {process for (_, process), count in begun.items() if count > 0}
    assert cut_off, "no kill hit a handler at work"
    assert cut_off <= killed
