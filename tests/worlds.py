"""One body, three worlds: what lets one `async def` test run on asyncio, on trio and blocking.

A fourth is asyncio again on uvloop, whose sockets are others; and a fifth, asyncio through a session of aiohttp's, whose
backend is another.

Rule 1. A test takes the fixture `world` and writes `await cloudware.send(…)`, `async for sms in cloudware.messages()`,
        `async with pager.read_ahead()`. Where `world` is blocking, the client is a thin adapter round `Cloudware` whose
        coroutines never suspend, and the body is driven as the package drives its own.
Rule 2. What a test waits for is told by a server: `await world.wait(server.wait_for, 3)`. Nothing sleeps and hopes.
Rule 3. Two things at once are `world.crew()`: tasks, or threads where the world is blocking.
Rule 4. Every server here is a `FaultServer` with another script: `Reply` computes an answer, `Hold` waits at a `Gate`,
        and a `Book` is a listing of many pages.
"""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Sequence
from types import TracebackType
from typing import Any, Literal, Self, TypeVar
from urllib.parse import parse_qs, urlsplit

import aiohttp
import anyio
import anyio.to_thread
import httpx
from attrs import define, field, frozen
from fault_server import (
    PATIENCE,
    Act,
    Connection,
    FaultServer,
    Healthy,
    ReadRequest,
    Received,
    Script,
    Step,
    answer,
    healthy_answer,
)

from cloudware_async import AsyncCloudware, Cloudware, MessagePager, Page, Receipt, RetryPolicy
from cloudware_async._backend import drive
from cloudware_async._models import BulkReport, Message

T = TypeVar("T")

TOKEN = "test-token"
TO = "2348012345678"
# all the retries of the default policy, and hardly a wait
QUICK = RetryPolicy(base_delay=0.001, throttled_delay=0.001)
# how much later than its timeout a call may end
GRACE = 0.5

# ----------------------------------------------------------------------------------------------------
# The blocking client behind the async one's names


class BlockingClient:
    """`Cloudware` as `AsyncCloudware` is used; none of its coroutines suspends."""

    def __init__(self, cloudware: Cloudware) -> None:
        self.cloudware = cloudware

    async def send(self, *arguments: Any, **named: Any) -> Receipt:
        return self.cloudware.send(*arguments, **named)

    async def queue(self, *arguments: Any, **named: Any) -> Receipt:
        return self.cloudware.queue(*arguments, **named)

    async def send_many(self, *arguments: Any, **named: Any) -> BulkReport:
        return self.cloudware.send_many(*arguments, **named)

    def messages(self, **named: Any) -> BlockingPager:
        return BlockingPager(self.cloudware.messages(**named))

    def with_options(self, **named: Any) -> BlockingClient:
        return BlockingClient(self.cloudware.with_options(**named))

    async def aclose(self) -> None:
        self.cloudware.close()

    def __repr__(self) -> str:
        return repr(self.cloudware)

    async def __aenter__(self) -> Self:
        assert self.cloudware.__enter__() is self.cloudware
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        assert self.cloudware.__exit__(kind, error, traceback) is None


class BlockingPager:
    """`MessagePager` as `AsyncMessagePager` is used."""

    def __init__(self, pager: MessagePager) -> None:
        self.pager = pager

    @property
    def cursor(self) -> str:
        return self.pager.cursor

    @property
    def done(self) -> bool:
        return self.pager.done

    def __aiter__(self) -> Self:
        assert iter(self.pager) is self.pager
        return self

    async def __anext__(self) -> Message:
        return _next(self.pager)

    def pages(self) -> BlockingPages:
        return BlockingPages(iter(self.pager.pages()))

    @contextlib.asynccontextmanager
    async def read_ahead(self) -> AsyncIterator[Self]:
        with self.pager.read_ahead() as pager:
            assert pager is self.pager
            yield self


class BlockingPages:
    """Whole pages, the same."""

    def __init__(self, pages: Iterator[Page]) -> None:
        self._pages = pages

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Page:
        return _next(self._pages)


def _next(iterator: Iterator[T]) -> T:
    try:
        return next(iterator)
    except StopIteration:
        pass
    raise StopAsyncIteration


# ----------------------------------------------------------------------------------------------------
# The worlds


class ThroughAiohttp(AsyncCloudware):
    """The async client through a session, which it ends, so that no test has to."""

    _session: aiohttp.ClientSession | None = None

    def __init__(self, *arguments: Any, http_client: Any = None, max_connections: int = 100, **options: Any) -> None:
        if http_client is None:
            limit = max_connections if isinstance(max_connections, int) else 100
            http_client = self._session = aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=limit))
        super().__init__(*arguments, http_client=http_client, max_connections=max_connections, **options)

    async def aclose(self) -> None:
        await super().aclose()
        if self._session is not None and self._owns_connections:
            await self._session.close()

    def __del__(self) -> None:
        # a test that only makes a client closes none; what is still connected complains all the same
        if self._session is not None and getattr(self, "_owns_connections", True):
            self._session.detach()


@frozen
class World:
    """Where a test body runs, and how it does there what differs."""

    name: Literal["asyncio", "trio", "blocking", "uvloop", "aiohttp"]

    @property
    def is_blocking(self) -> bool:
        return self.name == "blocking"

    def make(self, *arguments: Any, **options: Any) -> Any:
        """A client made as a user makes it: nothing is set that is not given."""
        if self.is_blocking:
            return BlockingClient(Cloudware(*arguments, **options))
        if self.name == "aiohttp":
            return ThroughAiohttp(*arguments, **options)
        return AsyncCloudware(*arguments, **options)

    def client(self, server: FaultServer | None = None, **options: Any) -> Any:
        """A client of a server, with a token, short waits, and a timeout that nothing should reach."""
        if server is not None:
            options.setdefault("base_url", server.base_url)
        return self.make(**{"access_token": TOKEN, "timeout": PATIENCE, "retry": QUICK} | options)

    def http_client(self, library: Any = httpx, **options: Any) -> Any:
        """A user's own client of this world; `aclose()` closes it in every world."""
        if not self.is_blocking:
            return library.AsyncClient(**options)

        client = library.Client(**options)

        async def aclose() -> None:
            client.close()

        # not in a class of its own, of which less would be believed
        client.aclose = aclose
        return client

    async def wait(self, function: Callable[..., T], *arguments: Any) -> T:
        """Call what waits on a server, without holding up an event loop."""
        if self.is_blocking:
            return function(*arguments)
        return await anyio.to_thread.run_sync(function, *arguments)

    def crew(self) -> Crew:
        """Run things beside the body: `async with world.crew() as crew: job = crew.start(…)`."""
        return ThreadCrew() if self.is_blocking else TaskCrew()

    async def together(self, *functions: Callable[[], Awaitable[Any]]) -> list[Any]:
        """Run them all at once, and give what they returned, in their order; or raise what one raised."""
        async with self.crew() as crew:
            jobs = [crew.start(function) for function in functions]
        return [job.result() for job in jobs]


@define
class Job:
    """What one function of a crew came to."""

    value: Any = None
    error: BaseException | None = None
    is_done: bool = False

    async def run(self, function: Callable[[], Awaitable[Any]]) -> None:
        try:
            self.value = await function()
        except Exception as error:  # noqa: BLE001 (kept for the test)
            self.error = error
        self.is_done = True

    def result(self) -> Any:
        assert self.is_done
        if self.error is not None:
            raise self.error
        return self.value


class TaskCrew:
    """Tasks of an event loop."""

    def __init__(self) -> None:
        self._group = anyio.create_task_group()

    def start(self, function: Callable[[], Awaitable[Any]]) -> Job:
        job = Job()
        self._group.start_soon(job.run, function)
        return job

    async def __aenter__(self) -> Self:
        await self._group.__aenter__()
        return self

    async def __aexit__(self, *exception: Any) -> bool | None:  # noqa: PYI036 (the group's own)
        return await self._group.__aexit__(*exception)


class ThreadCrew:
    """Threads."""

    def __init__(self) -> None:
        self._threads: list[threading.Thread] = []

    def start(self, function: Callable[[], Awaitable[Any]]) -> Job:
        job = Job()
        thread = threading.Thread(target=lambda: drive(job.run(function)), name="crew", daemon=True)
        self._threads.append(thread)
        thread.start()
        return job

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exception: object) -> None:
        for thread in self._threads:
            thread.join(4 * PATIENCE)
            assert not thread.is_alive()


Crew = TaskCrew | ThreadCrew

# those in which the connections are the package's
OWN = ("asyncio", "trio", "blocking", "uvloop")
WORLDS = {name: World(name) for name in (*OWN, "aiohttp")}


@contextlib.contextmanager
def within(seconds: float) -> Iterator[None]:
    """The block ends in that time."""
    began = time.monotonic()
    yield
    took = time.monotonic() - began
    assert took < seconds, f"took {took:.3f} s, not less than {seconds} s"


async def gather(messages: Any) -> list[Any]:
    """All that an iterator gives."""
    return [item async for item in messages]


def client_threads() -> list[threading.Thread]:
    """The threads that the package made and that are alive."""
    prefixes = ("cloudware", "ThreadPoolExecutor")
    return [thread for thread in threading.enumerate() if thread.name.startswith(prefixes)]


# ----------------------------------------------------------------------------------------------------
# Servers


@frozen
class Reply(Step):
    """Send what a function makes of the request and of the server's own base URL."""

    make: Callable[[Received, str], bytes]

    def run(self, connection: Connection) -> None:
        connection.write(self.make(connection.last_request, connection.base_url))


class Gate:
    """Where a server waits until the test lets it go on. Leaving `with gate:` opens it for good.

    Attributes:
        most: how many have waited at once at most.
    """

    def __init__(self) -> None:
        self.most = 0
        self._changed = threading.Condition()
        self._waiting = 0
        self._passes = 0
        self._is_open = False

    def wait_for(self, waiting: int, timeout: float = PATIENCE) -> bool:
        """Wait until so many are waiting at once."""
        with self._changed:
            return self._changed.wait_for(lambda: self._waiting >= waiting, timeout)

    def let(self, count: int) -> None:
        """Let so many pass."""
        with self._changed:
            self._passes += count
            self._changed.notify_all()

    def open(self) -> None:
        """Let all pass, from now on."""
        with self._changed:
            self._is_open = True
            self._changed.notify_all()

    def go_through(self) -> None:
        """Wait until it is one's turn."""
        with self._changed:
            self._waiting += 1
            self.most = max(self.most, self._waiting)
            self._changed.notify_all()
            self._changed.wait_for(lambda: self._is_open or self._passes > 0, 4 * PATIENCE)
            self._passes -= not self._is_open
            self._waiting -= 1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.open()


@frozen
class Hold(Step):
    """Wait at a gate."""

    gate: Gate

    def run(self, connection: Connection) -> None:
        self.gate.go_through()


def serving(make: Callable[[Received, str], bytes], *first: Act) -> FaultServer:
    """A server whose answers a function makes, after those of the first acts."""
    return FaultServer(Script(first, then=(ReadRequest(), Reply(make))))


def held(gate: Gate) -> FaultServer:
    """A healthy server that waits at the gate before each answer."""
    return FaultServer(Script(then=(ReadRequest(), Hold(gate), Healthy())))


def page_of(messages: Sequence[object], next_page: object = None, **more: object) -> bytes:
    """A page of a listing, as an answer."""
    return answer(json.dumps({"query": "", "data": messages, "next_page": next_page} | more).encode())


def message(number: int, **changes: object) -> dict[str, object]:
    """The listed message of that number."""
    return {
        "type": "message_received",
        "from": "1234567890",
        "to": "0987654321",
        "message": f"text {number}",
        "message_id": f"id-{number}",
        "created_at": "2020-01-01T00:00:00Z",
        "sent_at": "2020-01-01T00:00:00Z",
    } | changes


def ids(count: int, start: int = 0) -> list[str]:
    """The ids of so many messages of a `Book`."""
    return [f"id-{number}" for number in range(start, count)]


@define
class Book:
    """A listing of several pages; page n is at `?token=pn`, the first without.

    Attributes:
        pages: the messages of each.
        changes: what else the page of an index says (`{1: {"next_page": None}}`), or whole answers in bytes;
            `{base_url}` becomes the server's own.
    """

    pages: list[list[dict[str, object]]]
    changes: dict[int, dict[str, object] | bytes] = field(factory=dict)

    @classmethod
    def of(cls, *sizes: int, **options: Any) -> Self:
        """Pages of these sizes, of messages numbered through."""
        numbers = iter(range(sum(sizes)))
        return cls([[message(next(numbers)) for _ in range(size)] for size in sizes], **options)

    def answer(self, request: Received, base_url: str) -> bytes:
        """The page that is asked for; a send gets its receipt."""
        if request.method == "POST":
            return healthy_answer(request)
        token = parse_qs(urlsplit(request.path).query).get("token", ["p0"])[0]
        index = int(token.removeprefix("p"))
        is_last = index + 1 == len(self.pages)
        body = {
            "query": "",
            "data": self.pages[index],
            "next_page": None if is_last else f"{base_url}/sms/messages?token=p{index + 1}",
        }
        changes = self.changes.get(index, {})
        if isinstance(changes, bytes):
            return changes
        return answer(json.dumps(body | changes).replace("{base_url}", base_url).encode())

    def serve(self, *first: Act) -> FaultServer:
        """A server of this listing."""
        return serving(self.answer, *first)


def asked(server: FaultServer) -> list[str]:
    """The pages that were asked for, by their tokens; the first is ''."""
    paths = [request.path for request in server.ledger if request.method == "GET"]
    return [parse_qs(urlsplit(path).query).get("token", [""])[0] for path in paths]


def texts(server: FaultServer) -> list[str]:
    """The messages of the sends that were received."""
    return [json.loads(request.body)["message"] for request in server.posts]


def numbers(items: Iterable[Any]) -> list[str]:
    """The ids of messages."""
    return [sms.message_id for sms in items]
