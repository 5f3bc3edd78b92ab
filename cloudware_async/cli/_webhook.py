"""The commands about webhooks: print texts as they come, make a URL to post to, post recorded ones again.

Rule 1: a secret is printed where that is the purpose, in the URL that `listen` announces and `url` gives, and nowhere
        else. Of a URL that is posted to, an error names the host alone.
Rule 2: a text is forwarded first and printed then. If either fails the answer is 500, so that it may be posted again.
Rule 3: what `listen --json` writes to stdout `replay` reads: one message a line, and nothing besides.
Rule 4: every command loads this file; what only these need is imported where it is needed.
"""

import asyncio
import contextlib
import logging
import os
import shlex
import socket
from collections.abc import Awaitable, Callable, MutableMapping, Sequence
from contextvars import ContextVar
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, final

from cyclopts import App, Parameter
from rich.console import Console
from rich.text import Text

from cloudware_async import ConfigurationError, Message, WebhookPayloadError
from cloudware_async.cli._arguments import Port
from cloudware_async.cli._ending import Ending, Status, describe_port, tell
from cloudware_async.cli._listing import escape, show, to_json

if TYPE_CHECKING:
    import httpx

# seconds, for the whole of one post
_TIMEOUT = 10.0
# seconds that what is under way has to end after Ctrl-C
_FAREWELL = 2
_HEADERS = {"Content-Type": "application/json"}

Event = MutableMapping[str, Any]

# the body of the request that is being handled, as it came
_body: ContextVar[list[bytes]] = ContextVar("_body")

webhook = App(name="webhook", help="Receive the texts that the service posts to a URL, and post recorded ones again.")


@webhook.command
def listen(
    *,
    port: Port = 0,
    forward_to: str | None = None,
    as_json: Annotated[bool, Parameter(name="--json", negative="", show_default=False)] = False,
) -> None:
    """Print inbound texts as they come, until Ctrl-C.

    It listens on this machine only; a tunnel makes it reachable for the service. The secret that whoever posts must
    know is read from `CLOUDWARE_WEBHOOK_SECRET`, or two while one replaces the other, the new one first, with a comma
    between them; by default it is a new one.

    Args:
        port: The port to listen on; 0 for a free one.
        forward_to: Where each text is posted on, as it came. One that is not taken there is answered with 500 and not
            printed: the service may post it again.
        as_json: One JSON object a line, which `replay` reads; the URL to post to goes to stderr then.
    """
    from cloudware_async.webhooks import webhook_url

    destination = None if forward_to is None else _Destination(forward_to, "--forward-to")
    secrets = _read_secrets()
    try:
        listener = socket.create_server(("127.0.0.1", port))
    except OSError as error:
        raise describe_port(port, error) from None
    with listener, contextlib.suppress(KeyboardInterrupt):
        base = f"http://127.0.0.1:{listener.getsockname()[1]}"
        _announce(base, webhook_url(base, secrets[0]), _make_console(stderr=as_json))
        _show_refusals()
        asyncio.run(_serve(listener, secrets, destination, _print_json if as_json else _print_readable))


@webhook.command
def url(base: str, /) -> None:
    """Print a URL with a fresh secret, to be entered at the service.

    The receiver needs the secret too: it is what follows the last slash.

    Args:
        base: Where the receiver is reached from outside, like `https://example.com/webhooks`.
    """
    from cloudware_async.webhooks import new_secret, webhook_url

    _print(webhook_url(base, new_secret()))


@webhook.command
def replay(file: Path, /, *, to: str | None = None) -> None:
    """Post recorded texts again, in their order, one at a time, and print how each was answered.

    Nothing is posted unless every line of the file is a message. The exit status is 0 only if every text was taken.

    Args:
        file: One JSON object a line, as `cloudware webhook listen --json` prints them.
        to: The URL to post to. It holds a secret, and on a command line every user of the machine can read it;
            `CLOUDWARE_WEBHOOK_URL` gives it as well.
    """
    name = "CLOUDWARE_WEBHOOK_URL" if to is None else "--to"
    where = os.environ.get(name) if to is None else to
    if where is None:
        raise Ending("no URL to post to: give --to, or set CLOUDWARE_WEBHOOK_URL", Status.MISUSED)
    destination = _Destination(where, name)
    asyncio.run(_post_all(_read_recorded(file), destination))


@final
class _Destination:
    """Where webhooks are posted. Enter it with `async with`.

    Args:
        url: where that is.
        name: what the user calls it.

    Raises:
        Ending: it is no absolute http or https URL, or the environment names a proxy that cannot be used.
    """

    def __init__(self, url: str, name: str) -> None:
        import httpx

        try:
            self._url = httpx.URL(url)
            host, port = self._url.host, self._url.port or 0
        except (httpx.InvalidURL, UnicodeError):
            self._url, host, port = httpx.URL(), "", 0
        if self._url.scheme not in ("http", "https") or not host or port > 65535:
            raise Ending(f"{name} must be like 'http://127.0.0.1:8000/webhook'", Status.MISUSED)
        self.host: str = escape(host)
        self._client = _open_client()

    async def __aenter__(self) -> None:
        await self._client.__aenter__()

    async def __aexit__(self, *error: Any) -> None:  # noqa: PYI036 (httpx takes them apart again)
        await self._client.__aexit__(*error)

    async def post(self, body: bytes) -> tuple[bool, str]:
        """Post one body, once, and give whether it was taken, and how it was answered."""
        import httpx

        try:
            # httpx's own timeout is for each read; this one is for them all
            async with (
                asyncio.timeout(_TIMEOUT),
                self._client.stream("POST", self._url, content=body, headers=_HEADERS) as response,
            ):
                return response.is_success, str(response.status_code)
        except (httpx.TimeoutException, TimeoutError):
            return False, f"no answer within {_TIMEOUT:.0f} seconds"
        except httpx.ConnectError:
            return False, "no connection"
        except httpx.HTTPError as error:
            return False, f"no answer ({type(error).__name__})"


def _open_client() -> "httpx.AsyncClient":
    import httpx

    try:
        return httpx.AsyncClient(
            timeout=_TIMEOUT,
            # a pool without bounds has no places to lose when a post is cancelled (httpcore #1093)
            limits=httpx.Limits(max_connections=None, max_keepalive_connections=0),
            # no proxy of the environment stands before what is on this machine
            mounts=dict.fromkeys(("all://127.0.0.1", "all://localhost", "all://[::1]")),
        )
    except (ValueError, ImportError, httpx.InvalidURL):
        # what these say shows the proxy's URL, and with it perhaps a password
        raise Ending("the proxy that the environment names cannot be used", Status.MISUSED) from None


# -------------------------------------------------------------------------------- listen


def _read_secrets() -> list[str]:
    from cloudware_async.webhooks import new_secret
    from cloudware_async.webhooks._gate import read_secrets

    given = os.environ.get("CLOUDWARE_WEBHOOK_SECRET")
    if not given:
        return [new_secret()]
    secrets = [secret.strip() for secret in given.split(",")]
    try:
        read_secrets(secrets)
    except ConfigurationError as error:
        raise Ending(f"CLOUDWARE_WEBHOOK_SECRET: {error}", Status.MISUSED) from None
    return secrets


def _announce(base: str, url: str, console: Console) -> None:
    lines = Text(f"Webhooks are received on {base} until Ctrl-C. Where to post them, for another terminal:\n")
    lines.append(f"\nexport CLOUDWARE_WEBHOOK_URL={shlex.quote(url)}\n", style="bold")
    console.print(lines, soft_wrap=True)


def _show_refusals() -> None:
    """Show on stderr what the receiver logs about requests with the right secret that it refuses."""
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("cloudware: %(message)s"))
    # that a text could not be forwarded or printed is told in words of our own
    handler.addFilter(lambda record: record.levelno < logging.ERROR)
    logging.getLogger("cloudware_async.webhooks").addHandler(handler)


async def _serve(
    listener: socket.socket,
    secrets: Sequence[str],
    destination: _Destination | None,
    output: Callable[[Message], None],
) -> None:
    """Receive webhooks until Ctrl-C.

    Raises:
        Exception: a text could not be printed; whatever that raised.
    """
    import uvicorn

    from cloudware_async.webhooks import Receiver
    from cloudware_async.webhooks.asgi import WebhookApp

    failures: list[Exception] = []

    async def handle(message: Message) -> None:
        try:
            if destination is not None:
                await _forward(message, destination)
            output(message)
        except Ending as ending:
            tell(ending.line)
            raise
        except Exception as error:
            # nobody would see the next one either
            failures.append(error)
            server.should_exit = True
            raise

    app = WebhookApp(Receiver(handle, secret=secrets))

    async def keep_body(
        scope: Event, receive: Callable[[], Awaitable[Event]], send: Callable[[Event], Awaitable[None]]
    ) -> None:
        chunks: list[bytes] = []
        _body.set(chunks)

        async def receive_and_keep() -> Event:
            event = await receive()
            chunks.append(event.get("body", b""))
            return event

        await app(scope, receive_and_keep, send)

    config = uvicorn.Config(
        keep_body,
        ws="none",
        log_config=None,
        # uvicorn's lines are no lines of the command's, and the path of a request holds the secret
        log_level="critical",
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=_FAREWELL,
    )
    server = uvicorn.Server(config)
    async with contextlib.nullcontext() if destination is None else destination:
        await server.serve(sockets=[listener])
    if failures:
        raise failures[0]


async def _forward(message: Message, destination: _Destination) -> None:
    """Post a message on as it came.

    Raises:
        Ending: it was not taken there.
    """
    is_taken, answer = await destination.post(b"".join(_body.get()))
    if not is_taken:
        subject = "a message without an id" if message.message_id is None else f"message {escape(message.message_id)}"
        line = f"{subject} was not taken by {destination.host}: {answer}. It was answered with 500, to be posted again"
        raise Ending(line, Status.FAILED)


def _make_console(*, stderr: bool = False) -> Console:
    return Console(stderr=stderr, highlight=False, markup=False, emoji=False)


def _print_readable(message: Message) -> None:
    console = _make_console()
    # rich would end the program where a pipe is closed, and the server would go on without it
    with console.capture() as captured:
        console.print(show(message), soft_wrap=True)
    _print(captured.get().removesuffix("\n"))


def _print_json(message: Message) -> None:
    _print(to_json(message))


# -------------------------------------------------------------------------------- replay


def _read_recorded(file: Path) -> dict[int, bytes]:
    """Give the lines that hold a message, by their numbers; empty ones are passed over.

    Raises:
        Ending: the file cannot be read, a line of it is no message, or there is none.
    """
    from cloudware_async.webhooks import parse

    try:
        lines = file.read_bytes().split(b"\n")
    except OSError as error:
        raise Ending(f"FILE cannot be read: {error.strerror}", Status.MISUSED) from None
    recorded = {number: line for number, line in enumerate(lines, 1) if line.strip()}
    for number, line in recorded.items():
        try:
            parse(line)
        except WebhookPayloadError as error:
            raise Ending(f"line {number} of FILE: {error} Nothing was posted", Status.MISUSED) from None
    if not recorded:
        raise Ending("FILE is empty: there is nothing to post", Status.MISUSED)
    return recorded


async def _post_all(recorded: dict[int, bytes], destination: _Destination) -> None:
    """Post line after line.

    Raises:
        Ending: not every one was taken.
    """
    failed = 0
    async with destination:
        for number, body in recorded.items():
            is_taken, answer = await destination.post(body)
            _print(f"line {number}: {answer}")
            failed += not is_taken
    if failed:
        raise Ending(f"{failed} of {len(recorded)} texts were not taken by {destination.host}", Status.FAILED)


def _print(line: str) -> None:
    # at once: whoever reads a pipe waits for it
    print(line, flush=True)  # noqa: T201 (a command tells by printing)
