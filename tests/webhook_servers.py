"""Real servers on real sockets for webhooks, and the plain client that posts to them.

Rule 1. The test makes the listening socket, so that a client can connect before the server is up, and no port is
        guessed.
Rule 2. A server is a context manager. When its block ends, its thread or process has ended.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import uvicorn
import waitress.server
from aiohttp import web
from attrs import frozen
from waitress import wasyncore
from waitress.trigger import trigger
from webhook_cases import Case

LOOPBACK = "127.0.0.1"
PATIENCE = 20.0
HERE = Path(__file__).parent


def listen() -> socket.socket:
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind((LOOPBACK, 0))
    listener.listen(512)
    return listener


@contextlib.contextmanager
def running(run: Callable[[], object], stop: Callable[[], object]) -> Iterator[None]:
    """A thread that runs something until it is stopped, and hands on what it raised."""
    raised: list[BaseException] = []

    def guarded() -> None:
        try:
            run()
        except BaseException as error:  # noqa: BLE001 (raised below)
            raised.append(error)

    thread = threading.Thread(target=guarded)
    thread.start()
    try:
        yield
    finally:
        stop()
        thread.join(PATIENCE)
        assert not thread.is_alive(), "the server did not stop"
    if raised:
        raise raised[0]


@contextlib.contextmanager
def uvicorn_serving(app: Any, *, lifespan: str = "on", **options: Any) -> Iterator[int]:
    """Serve an ASGI application with uvicorn; gives the port."""
    loggers = [logging.getLogger(f"uvicorn.{name}") for name in ("error", "access", "asgi")]
    levels = [logger.level for logger in loggers]
    config = uvicorn.Config(app, ws="none", lifespan=lifespan, **{"log_config": None, "access_log": False, **options})
    server = uvicorn.Server(config)
    with listen() as listener, running(lambda: server.run([listener]), lambda: setattr(server, "should_exit", True)):
        yield listener.getsockname()[1]
    assert server.started
    # uvicorn sets them for the whole process
    for logger, level in zip(loggers, levels, strict=True):
        logger.setLevel(level)


@contextlib.contextmanager
def waitress_serving(app: Any, **options: Any) -> Iterator[int]:
    """Serve a WSGI application with waitress; gives the port."""
    with listen() as listener:
        sockets: dict[Any, Any] = {}
        server = waitress.server.create_server(app, map=sockets, sockets=[listener], threads=8, **options)

        # one of our own: whoever else pulls the server's would have it closed before we pull it
        stopping = trigger(sockets)

        def stop() -> None:
            server.task_dispatcher.shutdown()
            stopping.pull_trigger(lambda: wasyncore.close_all(sockets))

        with running(server.run, stop):
            yield listener.getsockname()[1]


@contextlib.contextmanager
def aiohttp_serving(app: web.Application, **options: Any) -> Iterator[int]:
    """Serve an aiohttp application with its own server; gives the port."""
    loop = asyncio.new_event_loop()
    stopping = asyncio.Event()

    async def serve(listener: socket.socket) -> None:
        runner = web.AppRunner(app, **{"access_log": None, **options})
        await runner.setup()
        await web.SockSite(runner, listener).start()
        await stopping.wait()
        await runner.cleanup()

    with listen() as listener:
        with running(lambda: loop.run_until_complete(serve(listener)), lambda: loop.call_soon_threadsafe(stopping.set)):
            yield listener.getsockname()[1]
        loop.run_until_complete(loop.shutdown_default_executor())
        loop.close()


@contextlib.contextmanager
def process(*arguments: str, listener: socket.socket, **options: Any) -> Iterator[subprocess.Popen[str]]:
    """A Python process that inherits the listening socket; it ends with the block, by SIGTERM if it must."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(HERE), os.environ.get("PYTHONPATH", "")])}
    with subprocess.Popen(
        [sys.executable, *arguments],
        pass_fds=[listener.fileno()],
        env=environment,
        text=True,
        **options,
    ) as child:
        try:
            yield child
        finally:
            if child.poll() is None:
                child.send_signal(signal.SIGTERM)
                try:
                    child.wait(PATIENCE)
                except subprocess.TimeoutExpired:
                    child.kill()
                    raise


@contextlib.contextmanager
def gunicorn_serving(factory: str, *arguments: str, **options: Any) -> Iterator[int]:
    """Serve what `module:function(…)` gives, in gunicorn's own processes; gives the port."""
    with listen() as listener, process(
        "-m", "gunicorn", "--bind", f"fd://{listener.fileno()}", "--threads", "8", "--log-level", "warning",
        "--no-control-socket", *arguments, factory, listener=listener, **options,
    ):  # fmt: skip
        yield listener.getsockname()[1]


@frozen
class Reply:
    """An answer as it came."""

    status: int
    headers: dict[str, str]
    body: bytes


def head_of(case: Case) -> bytes:
    headers = [("Host", "here"), ("Connection", "close"), *case.headers]
    if case.framing.endswith("chunks") or case.framing == "chunked":
        headers.append(("Transfer-Encoding", "chunked"))
    elif case.body or case.method == "POST":
        headers.append(("Content-Length", str(len(case.body))))
    lines = [f"{case.method} {case.path} HTTP/1.1", *(f"{name}: {value}" for name, value in headers)]
    return "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n"


def pieces_of(case: Case) -> Iterator[bytes]:
    """The request, in the pieces that are written one by one."""
    yield head_of(case)
    if case.framing == "length":
        yield case.body
    elif case.framing == "trickled":
        yield from (case.body[index : index + 1] for index in range(len(case.body)))
    elif case.framing != "unfinished":
        size = 1 if case.framing == "trickled chunks" else 1000
        for start in range(0, len(case.body), size):
            chunk = case.body[start : start + size]
            yield b"%x\r\n%s\r\n" % (len(chunk), chunk)
        if case.framing != "unfinished chunks":
            yield b"0\r\n\r\n"


def post(port: int, case: Case) -> Reply:
    """Send one request on a connection of its own and read its answer."""
    with socket.create_connection((LOOPBACK, port), timeout=PATIENCE) as client:
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        # a server that has answered early may have closed
        with contextlib.suppress(ConnectionError):
            for piece in pieces_of(case):
                client.sendall(piece)
        return read_reply(client, case.method)


def read_reply(client: socket.socket, method: str = "POST") -> Reply:
    with client.makefile("rb") as stream:
        status = int(stream.readline().split()[1])
        headers = {}
        while line := stream.readline().strip():
            name, _, value = line.decode("latin-1").partition(":")
            headers[name.lower()] = value.strip()
        body = b"" if method == "HEAD" else stream.read(int(headers.get("content-length", 0)))
    return Reply(status, headers, body)
