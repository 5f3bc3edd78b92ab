"""Sends: CPU of the client's process a send, of every client in turn; and the connections that each opened.

Rule 1. Every client has a process of its own, all at once; a round asks each in turn for the same number of sends, the
        next round in another order. So a round's ratio compares what happened within a second or two.
Rule 2. Which peer is the fastest is not chosen beforehand: it is the one with the lowest median in this very run.
"""

from __future__ import annotations

import contextlib
import json
import statistics
from typing import IO, Any

import attrs
from cores import gateway_counts, start
from rows import Row, make_row
from senders import ASYNC, BLOCKING

OURS = "cloudware-async"
OURS_AIOHTTP = "cloudware-async over aiohttp"
FLOORS = {"httpx", "httpx, 100 kept alive", "aiohttp", "requests", "http.client", "plain socket"}
PLAIN = "plain socket"


@attrs.frozen
class Group:
    """Clients that are compared.

    Attributes:
        in_flight: sends at once: tasks, or threads.
        count: sends a round; a multiple of `in_flight`.
        judged: the clients that the table is about; the short form runs no other.
    """

    kind: str
    in_flight: int
    count: int
    judged: tuple[str, ...]

    @property
    def name(self) -> str:
        """How the table calls it."""
        if self.kind == "async":
            return f"async, {self.in_flight} in flight"
        return f"blocking, {self.in_flight} thread{'s' if self.in_flight > 1 else ''}"


_ASYNC = (OURS, OURS_AIOHTTP, "httpx", "aiohttp", "twilio", PLAIN)
_BLOCKING = (OURS, "httpx", "android-sms-gateway", PLAIN)
GROUPS = (
    Group("async", 1, 300, _ASYNC),
    Group("async", 50, 600, _ASYNC),
    Group("blocking", 1, 300, _BLOCKING),
    Group("blocking", 8, 400, _BLOCKING),
)


@attrs.frozen
class Sends:
    """What a group came to.

    Attributes:
        cpu: seconds of CPU a send, client by client, round by round.
        wall: the same on the clock.
        connections: how many each opened in its first run.
    """

    group: Group
    cpu: dict[str, list[float]]
    wall: dict[str, list[float]]
    connections: dict[str, int]


def measure(group: Group, port: int, rounds: int, *, is_short: bool) -> Sends:
    """Run a group."""
    every = ASYNC if group.kind == "async" else BLOCKING
    names = [name for name in every if not is_short or name in group.judged]
    sends = Sends(group, {name: [] for name in names}, {name: [] for name in names}, {})
    with contextlib.ExitStack() as stack:
        pipes: dict[str, tuple[IO[str], IO[str]]] = {}
        for name in names:
            before = gateway_counts(port)["connections"]
            pipes[name] = stack.enter_context(start("senders.py", group.kind, name, port, group.in_flight))
            _run(*pipes[name], group.count)
            # less the one that asks for the count
            sends.connections[name] = int(gateway_counts(port)["connections"] - before - 1)
        for turn in range(rounds):
            shift = turn % len(names)
            order = names[shift:] + names[:shift]
            for name in order if turn % 2 else reversed(order):
                took = _run(*pipes[name], group.count)
                sends.cpu[name].append(took["cpu"])
                sends.wall[name].append(took["wall"])
    return sends


def _run(asked: IO[str], answered: IO[str], count: int) -> dict[str, Any]:
    print(count, file=asked, flush=True)
    took: dict[str, Any] = json.loads(answered.readline())
    return took


def rows(sends: Sends) -> list[Row]:
    """Make the rows of a group."""
    group, cpu = sends.group, sends.cpu
    floor = (f"a {PLAIN}", cpu[PLAIN])
    found: list[Row] = []

    def add(key: str, what: str, against: str, target: float, ours: str, theirs: str) -> None:
        key, what = f"{group.kind}-{group.in_flight}-{key}", f"{what}, {group.name.partition(', ')[2]}"
        found.append(make_row(key, what, against, "CPU", target, ours=cpu[ours], theirs=cpu[theirs], floor=floor))

    if group.kind == "async":
        target = 0.75 if group.in_flight == 1 else 0.40
        add("httpx", "async send", "raw `httpx.AsyncClient.post(json=)`", target, OURS, "httpx")
        add("aiohttp-twilio", "async send over aiohttp", "twilio, async", 0.75, OURS_AIOHTTP, "twilio")
        add("aiohttp-raw", "async send over aiohttp", "raw aiohttp", 1.20, OURS_AIOHTTP, "aiohttp")
    else:
        peers = [name for name in cpu if name not in FLOORS and name != OURS]
        fastest = min(peers, key=lambda name: statistics.median(cpu[name]))
        add("httpx", "blocking send", "plain `httpx.Client.post(json=)`", 0.85, OURS, "httpx")
        add("peer", "blocking send", f"the fastest blocking peer ({fastest})", 0.85, OURS, fastest)
    opened = [
        make_row(
            f"{group.kind}-{group.in_flight}-connections" + ("-aiohttp" if name == OURS_AIOHTTP else ""),
            f"connections opened, {group.kind}{' over aiohttp' if name == OURS_AIOHTTP else ''}",
            f"the most ever in flight ({group.in_flight})",
            "connections",
            1.0,
            ours=[sends.connections[name]],
            theirs=[group.in_flight],
            floor=("as many as are in flight", [group.in_flight]),
        )
        for name in (OURS, OURS_AIOHTTP)
        if name in cpu and group.in_flight > 1
    ]
    return [*found, *opened]
