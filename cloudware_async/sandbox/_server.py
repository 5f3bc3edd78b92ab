"""An ASGI application served from a thread of its own, with an event loop of its own.

Rule 1: `start()` returns when connections are accepted, or raises what prevented it.
Rule 2: `stop()` waits for no client: every connection is cut, and then neither thread nor socket is left.
Rule 3: nothing outside is touched: no signal handler, no logging set up.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
from concurrent.futures import Future
from typing import TYPE_CHECKING, final

import uvicorn

if TYPE_CHECKING:
    from starlette.applications import Starlette

# seconds
_KEEP_ALIVE = 75
_PATIENCE = 0.2


@final
class ServerThread:
    """A running server.

    Args:
        app: what it serves; its lifespan is run.
        host: the address to listen on.
        port: the port to listen on; 0 for a free one.

    Raises:
        OSError: the address cannot be listened on.
    """

    def __init__(self, app: Starlette, host: str, port: int) -> None:
        self._app = app
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self._socket = socket.create_server((host, port), family=family)
        # connections inherit it; without it an answer's second packet waits 40 ms for the first one's receipt
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.port: int = self._socket.getsockname()[1]
        self._stopping = asyncio.Event()
        self._loop: Future[asyncio.AbstractEventLoop] = Future()
        # a daemon, so that a sandbox that nobody stopped does not keep the process alive
        self._thread = threading.Thread(target=self._run, name="cloudware-sandbox", daemon=True)

    def start(self) -> None:
        """Start serving."""
        self._thread.start()
        try:
            self._loop.result()
        except Exception:
            self._thread.join()
            raise

    def stop(self) -> None:
        """Stop serving, at once."""
        self._loop.result().call_soon_threadsafe(self._stopping.set)
        self._thread.join()

    def _run(self) -> None:
        try:
            asyncio.run(self._serve())
        except BaseException as error:
            if self._loop.done():
                raise
            self._loop.set_exception(error)
        finally:
            self._socket.close()

    async def _serve(self) -> None:
        config = uvicorn.Config(
            self._app,
            lifespan="off",
            ws="none",
            log_config=None,
            access_log=False,
            server_header=False,
            # uvicorn's own 5 seconds cost a client that pauses its connection
            timeout_keep_alive=_KEEP_ALIVE,
        )
        config.load()
        server = uvicorn.Server(config)
        server.lifespan = config.lifespan_class(config)
        # the steps of Server.serve() without its ticks and its farewell, which take a tenth of a second each
        async with self._app.router.lifespan_context(self._app):
            await server.startup(sockets=[self._socket])
            self._loop.set_result(asyncio.get_running_loop())
            await self._stopping.wait()
            await self._stop_accepting()
            for listener in server.servers:
                listener.close()
            for connection in list(server.server_state.connections):
                connection.transport.abort()
            if server.server_state.tasks:
                # they hear that their callers are gone
                await asyncio.wait(server.server_state.tasks, timeout=_PATIENCE)

    async def _stop_accepting(self) -> None:
        """Let what is being accepted become connections: asyncio would lose it, unclosed, with its listener."""
        # Windows' own event loop has no readers
        with contextlib.suppress(NotImplementedError):
            asyncio.get_running_loop().remove_reader(self._socket)
        # the turns that asyncio takes from a socket accepted to a connection made
        for _ in range(3):
            await asyncio.sleep(0)
