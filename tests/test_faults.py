"""The matrix: every fault, on every kind of call, through every client, in every world it has.

Rule 1. `faults.py` says what must hold; here it is only run and compared.
Rule 2. A user's own client has no witness, so the kind of the failure alone decides there, and what is left over
        on its connections is its own affair: the call after the fault is not asked about.
Rule 3. A blocking client of the user's is bounded between reads only, so what trickles for ever lasts for ever.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Awaitable, Callable
from typing import Any

import aiohttp
import httpx
import httpx2
import pytest
from attrs import evolve, frozen
from fault_server import Certificates, FaultServer, Script
from faults import FAULTS, MAX_ATTEMPTS, STRAY, Fault, Verdict
from worlds import GRACE, OWN, World

from cloudware_async import CloudwareError, RetryPolicy

# Python forgets to close a socket that was reset before its handshake began
pytestmark = [pytest.mark.exhaustive, pytest.mark.filterwarnings("ignore:unclosed <ssl.SSLSocket:ResourceWarning")]

POLICY = RetryPolicy(max_attempts=MAX_ATTEMPTS, base_delay=0.01, throttled_delay=0.01)
TO = "2348012345678"


@frozen
class Setup:
    """A world and the client that requests go through there."""

    world: World
    library: Any = None

    @property
    def is_own(self) -> bool:
        return self.library is None


@frozen
class Ended:
    """How a call ended."""

    receipt_id: str | None
    error: BaseException | None
    took: float


async def timed(call: Callable[[], Awaitable[Any]]) -> Ended:
    began = time.monotonic()
    error: BaseException | None = None
    receipt_id = None
    try:
        receipt_id = await call()
    except Exception as caught:  # noqa: BLE001 (that it is one of ours is what is tested)
        error = caught
    return Ended(receipt_id, error, time.monotonic() - began)


def open_library(setup: Setup, certificates: Certificates) -> Any:
    if setup.library is aiohttp:
        return aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=certificates.client_context()))
    return setup.world.http_client(setup.library, verify=certificates.client_context(), trust_env=False)


async def close_library(client: Any) -> None:
    await (client.close() if isinstance(client, aiohttp.ClientSession) else client.aclose())


def complaints(ended: Ended, fault: Fault, verdict: Verdict, *, setup: Setup, posts: int, is_send: bool) -> list[str]:
    """What does not hold."""
    error = ended.error
    name = None if error is None else type(error).__name__
    found = []
    if error is not None and not isinstance(error, CloudwareError):
        found.append(f"{error!r} is none of ours")
    mark = isinstance(error, CloudwareError) and error.may_have_been_sent
    if not verdict.allows(name, may_have_been_sent=mark):
        found.append(f"ended with {error!r}, may_have_been_sent={mark}; allowed: {verdict}")
    if ended.receipt_id == STRAY and setup.is_own:
        found.append("a stray answer was taken for its own")
    if is_send and posts > verdict.most_requests:
        found.append(f"posted {posts} times; at most {verdict.most_requests}")
    if ended.took > fault.timeout + GRACE + (fault.name in FLOODS and not setup.is_own):
        found.append(f"took {ended.took:.2f} s")
    return found


@pytest.fixture
def trusted(
    certificates: Certificates, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> Certificates:
    """The authority that a client of our own finds in its environment."""
    authority = tmp_path_factory.getbasetemp() / "authority.pem"
    certificates.authority.cert_pem.write_to_path(str(authority))
    monkeypatch.setenv("SSL_CERT_FILE", str(authority))
    return certificates


each_fault = pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
each_library = pytest.mark.parametrize("library", [httpx, httpx2], ids=["httpx", "httpx2"])

# The server works as hard as the client, and both share this process's one lock: each call is made alone. A library that
# is not ours takes apart at once what it has read at once, up to a quarter of a MiB, and nothing else runs meanwhile.
FLOODS = ("interim-endless-and-fast", "garbage-endless")
# megabytes, or thousands of headers
HEAVY = ("limit-", "headers-")
# what never ends, a few bytes at a time
TRICKLES = ("slow", "tls-slow", "kept-alive-tls-slow", "interim-", "framing-byte-by-byte")


@pytest.mark.worlds(*OWN, reason="a user's session of aiohttp has a test of its own")
@each_fault
async def test_a_fault_ends_as_the_table_says(world: World, fault: Fault, trusted: Certificates) -> None:
    """Every call ends truthfully and in time and repeats nothing that may have gone out; the next send is clean."""
    await run_all(Setup(world), fault, trusted)


@pytest.mark.worlds("asyncio", "trio", reason="a blocking client of the user's has a test of its own")
# httpx leaves its generators of a body to the garbage collector where reading stops at the cap, and trio says so
@pytest.mark.filterwarnings("ignore:.*async_generator object:pytest.PytestUnraisableExceptionWarning")
@each_fault
@each_library
async def test_a_fault_through_a_users_async_client_ends_the_same(
    world: World, library: Any, fault: Fault, trusted: Certificates
) -> None:
    """Through an async client of the user's the table holds as well."""
    await run_all(Setup(world, library), fault, trusted)


@pytest.mark.worlds("blocking", reason="an async client of the user's has a test of its own")
@pytest.mark.parametrize(
    "fault", [fault for fault in FAULTS if not fault.name.startswith(TRICKLES)], ids=lambda fault: fault.name
)
@each_library
async def test_a_fault_through_a_users_blocking_client_ends_the_same(
    world: World, library: Any, fault: Fault, trusted: Certificates
) -> None:
    """Through a blocking client of the user's the table holds for all that does not trickle (rule 3)."""
    await run_all(Setup(world, library), fault, trusted)


@pytest.mark.worlds("asyncio", reason="aiohttp runs on asyncio only")
# where an answer comes before the request is written, aiohttp leaves the rest of it to the garbage collector
@pytest.mark.filterwarnings("ignore:.*<socket.socket|.*_SelectorTransport:pytest.PytestUnraisableExceptionWarning")
@each_fault
async def test_a_fault_through_aiohttp_ends_the_same(world: World, fault: Fault, trusted: Certificates) -> None:
    """Through an aiohttp session of the user's the table holds as well."""
    await run_all(Setup(world, aiohttp), fault, trusted)


# how aiohttp differs, and each time says less than it could, never more
ALSO_UNKNOWN_THROUGH_AIOHTTP = (
    "idle-",  # it does not look whether a kept connection has ended before it writes
    "extra-",  # bytes after the body spoil the answer that they follow
    "framing-length-short",  # the same
    "framing-length-zero",
    "status-204-with-body",
    "status-304",
    "garbage-status-zero",  # it takes 0 for a status
)
# what was read until the reset is a whole receipt
ALSO_ACCEPTED_THROUGH_AIOHTTP = ("framing-no-length-reset",)


def through(setup: Setup, fault: Fault, kind: str, verdict: Verdict) -> Verdict:
    if not setup.is_own and fault.name in {"door-full", "tls-accept-hang"}:
        # its connect timeout ends a little before the call: there is time for one more attempt, which may get through
        return evolve(verdict, also=("accepted", "unknown"), most_requests=1)
    if setup.library is aiohttp and fault.name.startswith("accept-close") and kind != "listing":
        # nothing is written on a connection that has ended already
        return evolve(verdict, also=("accepted", "not_sent"), retried=None, most_requests=1)
    if setup.library is aiohttp and fault.name.startswith(ALSO_UNKNOWN_THROUGH_AIOHTTP):
        errors = (*verdict.errors, "APIConnectionError", "APIStatusError")
        # a page whose connection broke is asked for again; what was there before it was asked for may be taken for it
        also = ("failed", "accepted") if kind == "listing" else ("unknown", "failed")
        errors = (*errors, "APIResponseError") if kind == "listing" else errors
        # where it is seen in time that the kept connection has ended, the text goes over another one
        retried = None if fault.name.startswith("idle-") else verdict.retried
        return evolve(verdict, errors=errors, also=(*verdict.also, *also), retried=retried)
    if setup.library is aiohttp and fault.name.startswith(ALSO_ACCEPTED_THROUGH_AIOHTTP):
        return evolve(verdict, also=(*verdict.also, "accepted"))
    return verdict


async def run_all(setup: Setup, fault: Fault, certificates: Certificates) -> None:
    """Make the three kinds of call at once, each on a server and a client of its own; what is heavy, one by one."""
    calls = {
        "send": (fault.send, fault.send_script),
        "queue": (fault.send, fault.send_script),
        "listing": (fault.listing, fault.listing_script),
    }
    jobs = [
        functools.partial(run, setup, fault, kind, through(setup, fault, kind, verdict), script, certificates)
        for kind, (verdict, script) in calls.items()
        if verdict is not None
    ]
    if fault.name in FLOODS or "bomb" in fault.name or fault.name.startswith(HEAVY):
        found = [await job() for job in jobs]
    else:
        found = await setup.world.together(*jobs)
    assert [] == [complaint for each in found for complaint in each]


async def run(
    setup: Setup, fault: Fault, kind: str, verdict: Verdict, script: Script, certificates: Certificates
) -> list[str]:
    context = None if fault.trust is None else certificates.server_context(fault.trust)
    http_client = None if setup.is_own else open_library(setup, certificates)
    with FaultServer(script, ssl_context=context, door=fault.door) as server:
        async with setup.world.client(
            server, timeout=fault.timeout, retry=POLICY, http_client=http_client
        ) as cloudware:

            async def send() -> Any:
                return (await cloudware.send(TO, fault.message)).id

            async def queue() -> Any:
                return (await cloudware.queue(TO, fault.message)).id

            async def listing() -> Any:
                found = [sms.message_id async for sms in cloudware.messages()]
                return STRAY if STRAY in found else None

            if fault.warm_up:
                # bytes after its answer may spoil it for a library that is not ours
                warmed = await timed(send)
                assert warmed.error is None or not setup.is_own
                server.wait_until_settled()
            before = len(server.posts)
            ended = await timed({"send": send, "queue": queue, "listing": listing}[kind])
            posts = len(server.posts) - before
            found = complaints(ended, fault, verdict, setup=setup, posts=posts, is_send=kind != "listing")
            if fault.after and setup.is_own:
                server.wait_until_settled()
                then = await timed(send)
                outcome = "accepted" if then.error is None else "unknown"
                if outcome not in fault.after or then.receipt_id == STRAY:
                    found.append(f"the next send ended with {then.error or then.receipt_id!r}")
        if http_client is not None:
            await close_library(http_client)
    return found
