"""The sandbox as its user sees it.

Rule 1: its server runs in a thread of its own: the user's event loop, or the lack of one, does not matter.
Rule 2: what is asked of it directly (`messages`, `receive`) may be asked from any thread and from async code.
Rule 3: its access token is in no `repr`.
"""

from __future__ import annotations

import contextlib
import math
import os
import secrets
import threading
import time
from typing import TYPE_CHECKING, Any, TypedDict, final

import anyio
import anyio.to_thread

from cloudware_async._wire import read_message, read_token
from cloudware_async.sandbox._app import DEVICE, Api, build_app
from cloudware_async.sandbox._server import ServerThread
from cloudware_async.sandbox._storage import Storage
from cloudware_async.sandbox._webhook import Webhook

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable
    from typing import Self, Unpack

    from starlette.applications import Starlette

    from cloudware_async import AsyncCloudware, Cloudware
    from cloudware_async._models import Message
    from cloudware_async.sandbox._storage import Record


class AppOptions(TypedDict, total=False):
    """The options of `create_app`: those of `Sandbox` but for the address."""

    database: str | os.PathLike[str] | None
    access_token: str | None
    page_size: int
    list_sent: bool
    webhook_url: str | None
    webhook_attempts: int
    webhook_repeat: bool
    webhook_shuffle: bool


class SandboxOptions(AppOptions, total=False):
    """The options of `serve`: those of `Sandbox`."""

    host: str
    port: int


@final
class Sandbox:
    """A Cloudware service of one's own, on this machine. Nobody is texted.

    Enter it with `async with` (asyncio or trio) or `with`; it listens until that block ends. Beside the service's own
    calls it takes one that lets a text come in, as `receive` does: `POST /sandbox/messages` with the token and
    `{"from": …, "message": …}`.

    Args:
        host: the address to listen on.
        port: the port to listen on; 0 for a free one.
        database: a SQLite file, made if it is not there, which keeps the texts beyond this sandbox's end.
            By default they are kept in memory.
        access_token: what clients must bear; by default a random one.
        page_size: the most messages on a page of the listing, from 1.
        list_sent: whether the listing shows sent texts beside received ones. The vendor does not document it.
        webhook_url: where `receive` posts each inbound text; None for nowhere.
        webhook_attempts: the most requests for one delivery, from 1, with pauses of 0.1, 0.2, 0.4 … seconds
            between them. An attempt fails without an answer in 5 seconds, or with one that is not 2xx.
        webhook_repeat: deliver each inbound text twice.
        webhook_shuffle: deliver out of order: what comes in within 0.1 seconds goes out newest first.

    Attributes:
        access_token: what clients must bear.
        app: the same service as an ASGI application, for a server of one's own. Its lifespan posts to the
            webhook and lets go of the file.

    Raises:
        ValueError: an option is out of its range.
    """

    def __init__(
        self,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        database: str | os.PathLike[str] | None = None,
        access_token: str | None = None,
        page_size: int = 50,
        list_sent: bool = True,
        webhook_url: str | None = None,
        webhook_attempts: int = 5,
        webhook_repeat: bool = False,
        webhook_shuffle: bool = False,
    ) -> None:
        _check_whole("page_size", page_size, least=1)
        _check_whole("port", port, least=0, most=65535)
        token = read_token(secrets.token_urlsafe() if access_token is None else access_token)
        self.access_token = token.reveal()
        self._host = host
        self._port = port
        self._storage = Storage(database)
        self._webhook: Webhook | None = None
        if webhook_url is not None:
            self._webhook = Webhook(
                webhook_url, attempts=webhook_attempts, repeat=webhook_repeat, shuffle=webhook_shuffle
            )
        self.app = build_app(Api(self._storage, token, page_size, list_sent, self._let_in), self._live)
        self._server: ServerThread | None = None
        self._changing = threading.Lock()

    @property
    def base_url(self) -> str:
        """Where it listens, as `http://127.0.0.1:PORT/v1`.

        Raises:
            RuntimeError: it is not running.
        """
        if self._server is None:
            raise RuntimeError("the sandbox is not running: enter it first, with `async with` or `with`")
        host = f"[{self._host}]" if ":" in self._host else self._host
        return f"http://{host}:{self._server.port}/v1"

    @property
    def messages(self) -> list[Message]:
        """Every text, sent and received, the oldest first."""
        return [read_message(record) for record in self._storage.listing()]

    def receive(self, *, from_: str, message: str, to: str = DEVICE) -> Message:
        """Let a text come in: it is listed at once, and posted to the webhook in a moment.

        Args:
            from_: who sends it.
            message: the text.
            to: the number of yours that receives it.
        """
        return read_message(self._let_in(from_, to, message))

    def _let_in(self, from_: str, to: str, message: str) -> Record:
        record = self._storage.add(kind="message_received", from_=from_, to=to, message=message)
        if self._webhook is not None:
            self._webhook.post(record)
        return record

    def client(self, **options: Any) -> AsyncCloudware:
        """Make an async client of this sandbox.

        Args:
            options: those of `AsyncCloudware`.
        """
        from cloudware_async import AsyncCloudware

        return AsyncCloudware(**self._connection_options() | options)

    def sync_client(self, **options: Any) -> Cloudware:
        """Make a blocking client of this sandbox.

        Args:
            options: those of `Cloudware`.
        """
        from cloudware_async import Cloudware

        return Cloudware(**self._connection_options() | options)

    def __enter__(self) -> Self:
        self._start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop()

    async def __aenter__(self) -> Self:
        try:
            with anyio.CancelScope(shield=True):
                await anyio.to_thread.run_sync(self._start)
        except anyio.get_cancelled_exc_class():
            # asyncio's own cancel goes through a shield, and the thread starts the server all the same
            await self.__aexit__()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        with anyio.CancelScope(shield=True):
            await anyio.to_thread.run_sync(self._stop)

    def __repr__(self) -> str:
        return f"Sandbox({'not running' if self._server is None else self.base_url})"

    def _start(self) -> None:
        with self._changing:
            if self._server is not None:
                raise RuntimeError("the sandbox is running already")
            server = ServerThread(self.app, self._host, self._port)
            server.start()
            self._server = server

    def _stop(self) -> None:
        with self._changing:
            if self._server is not None:
                self._server.stop()
                self._server = None

    @contextlib.asynccontextmanager
    async def _live(self, _: Starlette) -> AsyncGenerator[None]:
        self._storage.open()
        try:
            async with contextlib.nullcontext() if self._webhook is None else self._webhook.running():
                yield
        finally:
            self._storage.close()

    def _connection_options(self) -> dict[str, Any]:
        return {"access_token": self.access_token, "base_url": self.base_url}


def _check_whole(name: str, value: object, *, least: int, most: float = math.inf) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        raise ValueError(f"{name} must be a whole number from {least}" + (f" to {most}" if most < math.inf else ""))


def create_app(**options: Unpack[AppOptions]) -> Starlette:
    """Make the sandbox's ASGI application, for a server of one's own.

    `CLOUDWARE_ACCESS_TOKEN=… uvicorn --factory cloudware_async.sandbox:create_app`

    Args:
        options: those of `Sandbox` but for the address. `access_token` falls back to the
            environment's `CLOUDWARE_ACCESS_TOKEN`.

    Raises:
        ConfigurationError: there is no access token.
    """
    if options.get("access_token") is None:
        options["access_token"] = os.environ.get("CLOUDWARE_ACCESS_TOKEN", "")
    return Sandbox(**options).app


def serve(*, on_listening: Callable[[Sandbox], object] | None = None, **options: Unpack[SandboxOptions]) -> None:
    """Run a sandbox in the foreground, until Ctrl-C.

    Args:
        on_listening: called with the running sandbox once it listens; it knows `base_url` and `access_token`.
        options: those of `Sandbox`.

    Raises:
        OSError: the address cannot be listened on.
        sqlite3.Error: the database cannot be opened.
    """
    with contextlib.suppress(KeyboardInterrupt), Sandbox(**options) as sandbox:
        if on_listening is not None:
            on_listening(sandbox)
        while True:
            # a Ctrl-C that comes just before a wait does not end it, so that none is long
            time.sleep(0.5)
