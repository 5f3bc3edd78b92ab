"""Listing: reading ahead, and the memory of a long walk.

    python benchmarks/speed/listing.py walk async|blocking ROUNDS PORT   prints seconds on the clock, way by way
    python benchmarks/speed/listing.py memory MESSAGES PORT              prints the peak, in bytes, of listing so many

Rule 1. 200 pages of 100 messages. The server answers each page 5 ms after it was asked; the consumer works 5 ms on
        each, in which it waits as for a database. Neither is exact: timers are late. So both are measured alone, in
        the same round: the server by a plain socket that asks for all pages and decodes none, the consumer by doing
        its work 200 times. The ideal is the slower of the two. Beside it stands, without a target, the same ideal
        with httpx in the plain socket's place: what no client over httpx can be faster than. And, with the target too,
        with this client's own plain walk there: how much of the slower one is hidden behind the other.
Rule 2. Nothing to overlap: the consumer only takes the messages, and the server needs its 5 ms. Beside it stands,
        without a target, a server that answers at once: there reading ahead can only cost.
Rule 3. Memory is the peak of the whole process, in pages of 1,000; every page is made when it is asked for.
"""

from __future__ import annotations

import asyncio
import gc
import json
import os
import re
import socket
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cores import MEASURED, ask, pin
from gateway import HOST
from rows import Row, make_row
from senders import address, is_whole

if TYPE_CHECKING:
    from collections.abc import Callable

PAGES = 200
SIZE = 100
MILLISECONDS = 5
SLOW = f"{PAGES}.{SIZE}.{MILLISECONDS}"
AT_ONCE = f"{PAGES}.{SIZE}.0"
STREAMED_PAGE = 1_000


# ----------------------------------------------------------------------------------------------------
# the ways


def walk_plain_socket(port: int) -> None:
    """Ask for every page, and read each to its end (rule 1)."""
    with socket.create_connection((HOST, port), timeout=30) as connection:
        for page in range(PAGES):
            target = f"/v1/sms/messages?token={SLOW}.{page}"
            connection.sendall(f"GET {target} HTTP/1.1\r\nHost: {HOST}\r\n\r\n".encode())
            answer = connection.recv(1 << 20)
            while not is_whole(answer):
                answer += connection.recv(1 << 20)


async def walk_httpx_async(port: int) -> None:
    """The same with `httpx.AsyncClient`."""
    import httpx

    async with httpx.AsyncClient() as client:
        for page in range(PAGES):
            await client.get(f"{address(port)}/v1/sms/messages?token={SLOW}.{page}")


def walk_httpx_blocking(port: int) -> None:
    """The same with `httpx.Client`."""
    import httpx

    with httpx.Client() as client:
        for page in range(PAGES):
            client.get(f"{address(port)}/v1/sms/messages?token={SLOW}.{page}")


async def walk_async(port: int, listing: str, work: float, *, ahead: bool) -> None:
    """List with `AsyncCloudware`; work after every page."""
    from cloudware_async import AsyncCloudware

    async with AsyncCloudware("token", base_url=f"{address(port)}/v1") as client:
        walk = client.messages(device_id=listing)

        async def consume(messages: Any) -> None:
            taken = 0
            async for _ in messages:
                taken += 1
                if work and taken % SIZE == 0:
                    await asyncio.sleep(work)

        if ahead:
            async with walk.read_ahead() as messages:
                await consume(messages)
        else:
            await consume(walk)


def walk_blocking(port: int, listing: str, work: float, *, ahead: bool) -> None:
    """List with `Cloudware`; work after every page."""
    from cloudware_async import Cloudware

    with Cloudware("token", base_url=f"{address(port)}/v1") as client:
        walk = client.messages(device_id=listing)

        def consume(messages: Any) -> None:
            for taken, _ in enumerate(messages, start=1):
                if work and taken % SIZE == 0:
                    time.sleep(work)

        if ahead:
            with walk.read_ahead() as messages:
                consume(messages)
        else:
            consume(walk)


async def work_async(work: float) -> None:
    """Do the consumer's work alone."""
    for _ in range(PAGES):
        await asyncio.sleep(work)


def work_blocking(work: float) -> None:
    """Do the consumer's work alone."""
    for _ in range(PAGES):
        time.sleep(work)


def ways(kind: str, port: int) -> dict[str, Callable[[], object]]:
    """Name everything that a round does."""
    work = MILLISECONDS / 1000

    def walk(listing: str, work: float, *, ahead: bool) -> Callable[[], object]:
        if kind == "async":
            return lambda: asyncio.run(walk_async(port, listing, work, ahead=ahead))
        return lambda: walk_blocking(port, listing, work, ahead=ahead)

    return {
        "server alone": lambda: walk_plain_socket(port),
        "server alone, over httpx": (
            (lambda: asyncio.run(walk_httpx_async(port))) if kind == "async" else lambda: walk_httpx_blocking(port)
        ),
        "consumer alone": (lambda: asyncio.run(work_async(work))) if kind == "async" else lambda: work_blocking(work),
        "read ahead": walk(SLOW, work, ahead=True),
        "plain": walk(SLOW, work, ahead=False),
        "idle consumer, read ahead": walk(SLOW, 0, ahead=True),
        "idle consumer, plain": walk(SLOW, 0, ahead=False),
        **{f"at once, {name} {turn}": walk(AT_ONCE, 0, ahead=ahead) for turn in range(8) for name, ahead in _PAIR},
    }


_PAIR = (("read ahead", True), ("plain", False))


# ----------------------------------------------------------------------------------------------------
# in a process of its own


def measure_walks(kind: str, rounds: int, port: int) -> dict[str, list[float]]:
    """Walk every way, round by round."""
    every = ways(kind, port)
    # warms up
    every["at once, read ahead 0"]()
    took: dict[str, list[float]] = {name.rstrip(" 0123456789"): [] for name in every}
    for turn in range(rounds):
        for name, run in list(every.items())[:: 1 if turn % 2 else -1]:
            gc.collect()
            began = time.perf_counter()
            run()
            took[name.rstrip(" 0123456789")].append(time.perf_counter() - began)
    return took


def measure_memory(messages: int, port: int) -> int:
    """Stream so many messages and give the most memory that this process had, in bytes."""
    from cloudware_async import AsyncCloudware

    async def stream() -> int:
        taken = 0
        async with AsyncCloudware("token", base_url=f"{address(port)}/v1") as client:
            async for _ in client.messages(device_id=f"{messages // STREAMED_PAGE}.{STREAMED_PAGE}.0"):
                taken += 1
        return taken

    if asyncio.run(stream()) != messages:
        raise RuntimeError("the walk lost messages")
    return _peak()


def _peak() -> int:
    status = Path("/proc/self/status")
    if status.exists():
        # what `getrusage` tells began before this program did, with the process that started it
        return 1024 * int(re.findall(r"VmHWM:\s+(\d+) kB", status.read_text())[0])
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


# ----------------------------------------------------------------------------------------------------
# rows


def walk_rows(kind: str, rounds: int, port: int) -> tuple[list[Row], dict[str, Any]]:
    """Measure the walks, and make the rows."""
    took = ask("listing.py", "walk", kind, rounds, port)
    ideal, over_httpx, our_own = (
        [max(both) for both in zip(took[name], took["consumer alone"], strict=True)]
        for name in ("server alone", "server alone, over httpx", "idle consumer, plain")
    )
    exact = [PAGES * MILLISECONDS / 1000] * rounds
    found = [
        make_row(
            f"ahead-{kind}",
            f"list {PAGES} pages with read-ahead, server and consumer {MILLISECONDS} ms each, {kind}",
            "the ideal, max(server, consumer)",
            "wall",
            1.10,
            ours=took["read ahead"],
            theirs=ideal,
            floor=(f"{PAGES} times {MILLISECONDS} ms, if timers were exact", exact),
        ),
        make_row(
            f"ahead-{kind}-httpx",
            "the same",
            "the ideal over httpx",
            "wall",
            None,
            ours=took["read ahead"],
            theirs=over_httpx,
            floor=("the ideal", ideal),
        ),
        make_row(
            f"ahead-{kind}-own",
            "the same",
            "max(this client's plain walk, consumer)",
            "wall",
            1.10,
            ours=took["read ahead"],
            theirs=our_own,
            floor=("the ideal", ideal),
        ),
        *(
            make_row(
                f"ahead-{kind}-{key}",
                f"the same, the consumer does nothing{', the server answers at once' if key == 'at-once' else ''}",
                "plain walk",
                "wall",
                target,
                ours=took[f"{name}, read ahead"],
                theirs=took[f"{name}, plain"],
                floor=("the plain walk", took[f"{name}, plain"]),
            )
            for key, name, target in (("idle", "idle consumer", 1.03), ("at-once", "at once", None))
        ),
    ]
    return found, {f"walk, {kind}": took}


def memory_rows(rounds: int, port: int) -> tuple[list[Row], dict[str, Any]]:
    """Measure the memory of walks, and make the row."""
    few, many = 10_000, 1_000_000
    peaks: dict[int, list[float]] = {few: [], many: []}
    for _ in range(rounds):
        for messages, found in peaks.items():
            found.append(ask("listing.py", "memory", messages, port))
    row = make_row(
        "memory",
        f"peak memory, streaming {many:,} messages",
        f"streaming {few:,}",
        "bytes",
        1.05,
        ours=peaks[many],
        theirs=peaks[few],
        floor=(f"streaming {few:,}", peaks[few]),
    )
    return [row], {"peak memory": {f"{messages:,}": found for messages, found in peaks.items()}}


if __name__ == "__main__":
    pin(MEASURED)
    os.environ["NO_PROXY"] = HOST
    if sys.argv[1] == "walk":
        print(json.dumps(measure_walks(sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))))
    else:
        print(json.dumps(measure_memory(int(sys.argv[2]), int(sys.argv[3]))))
