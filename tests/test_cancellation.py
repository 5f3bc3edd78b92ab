"""Cancellation leaves nothing behind: not a connection, not a task, not a file descriptor.

Rule 1. The server is a process of its own, so every descriptor that is counted is the client's.
Rule 2. A storm is seeded: each send is cancelled after a random number of turns of the loop, so that connecting,
        the handshake, writing, reading and closing are all hit; natively once or twice, or by a scope.
"""

from __future__ import annotations

import asyncio
import os
import random
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anyio
import anyio.lowlevel
import pytest
from fault_server import Certificates

from cloudware_async import AsyncCloudware

IN_FLIGHT = 50
SERVER = """
import ssl, sys
from fault_server import FaultServer
context = None
if len(sys.argv) > 1:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(sys.argv[1])
with FaultServer(ssl_context=context) as server:
    print(server.base_url, flush=True)
    sys.stdin.read()
"""


@pytest.fixture(params=["plain", "tls"])
def base_url(
    request: pytest.FixtureRequest, certificates: Certificates, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[str]:
    """A healthy server in a process of its own."""
    arguments = []
    if request.param == "tls":
        issued = certificates.authority.issue_cert("127.0.0.1")
        issued.private_key_and_cert_chain_pem.write_to_path(str(tmp_path / "server.pem"))
        certificates.authority.cert_pem.write_to_path(str(tmp_path / "authority.pem"))
        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "authority.pem"))
        arguments = [str(tmp_path / "server.pem")]
    with subprocess.Popen(
        [sys.executable, "-c", SERVER, *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parent)},
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        yield process.stdout.readline().strip()
        process.stdin.close()


def sockets() -> int:
    """How many sockets this process holds."""
    count = 0
    for descriptor in Path("/proc/self/fd").iterdir():
        try:
            count += str(descriptor.readlink()).startswith("socket:")
        except OSError:
            continue
    return count


async def turns(count: int) -> None:
    for _ in range(count):
        await anyio.lowlevel.checkpoint()


async def cancel_natively(cloudware: AsyncCloudware, dice: random.Random) -> None:
    task = asyncio.get_running_loop().create_task(cloudware.send("2348012345678", "Hello"))
    await turns(dice.randrange(40))
    if dice.random() < 0.5:
        await anyio.sleep(dice.random() * 0.02)
    task.cancel()
    if dice.random() < 0.5:
        await turns(dice.randrange(4))
        task.cancel()
    await asyncio.wait([task])
    assert task.cancelled() or task.exception() is None


async def cancel_by_scope(cloudware: AsyncCloudware, dice: random.Random) -> None:
    async with anyio.create_task_group() as group:
        group.start_soon(cloudware.send, "2348012345678", "Hello")
        await turns(dice.randrange(40))
        if dice.random() < 0.5:
            await anyio.sleep(dice.random() * 0.02)
        group.cancel_scope.cancel()


async def storm(cloudware: AsyncCloudware, cancel: Any, count: int) -> None:
    dice = random.Random(20)
    left = iter(range(count))

    async def one_after_another() -> None:
        for _ in left:
            await cancel(cloudware, dice)

    async with anyio.create_task_group() as group:
        for _ in range(IN_FLIGHT):
            group.start_soon(one_after_another)


async def weather(base_url: str, backend: str, cancel: Any, count: int) -> None:
    """A storm, and what it leaves."""
    held = sockets()
    async with AsyncCloudware("token", base_url=base_url, max_connections=IN_FLIGHT) as cloudware:
        await storm(cloudware, cancel, count)
        # a cancelled connection is let go of in the loop's next turns
        await turns(20)
        slots: Any = cloudware._calling.backend
        assert len(slots._free) == sockets() - held
        assert slots._limiter.value == IN_FLIGHT
        if backend == "asyncio":
            assert {asyncio.current_task()} == asyncio.all_tasks()
        for _ in range(3):
            assert "success" == (await cloudware.send("2348012345678", "Hello")).status
    await turns(20)
    assert held == sockets()


WAYS = [
    pytest.param("asyncio", cancel_natively, id="asyncio-natively"),
    pytest.param("asyncio", cancel_by_scope, id="asyncio-by-scope"),
    pytest.param("trio", cancel_by_scope, id="trio-by-scope"),
]


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="descriptors are counted as Linux shows them")
@pytest.mark.parametrize(("backend", "cancel"), WAYS)
@pytest.mark.parametrize("count", [500, pytest.param(10_000, marks=pytest.mark.exhaustive)])
def test_a_storm_of_cancellations_leaves_nothing(base_url: str, backend: str, cancel: Any, count: int) -> None:
    """After thousands of random cancellations there are as many sockets as idle connections, and none after close."""
    anyio.run(weather, base_url, backend, cancel, count, backend=backend)
