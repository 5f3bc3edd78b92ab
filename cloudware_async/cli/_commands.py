"""The commands and their options.

Rule 1: the access token comes from the environment: on a command line every user of the machine could read it.
        `sandbox --token` is another thing: it is invented, and opens nothing but the sandbox.
Rule 2: a wrong command line is described by the names of options, never by what was given for them (`_ending`).
Rule 3: once a text may be on its way, every end that is no receipt says so.
"""

import os
import re
import shlex
import sqlite3
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import App, CycloptsError, Parameter
from cyclopts.exceptions import (
    CoercionError,
    MissingArgumentError,
    RepeatArgumentError,
    UnknownCommandError,
    UnknownOptionError,
    UnusedCliTokensError,
    ValidationError,
)
from rich.console import Console
from rich.text import Text

from cloudware_async import Cloudware, CloudwareError, PaginationError
from cloudware_async.cli._arguments import Count, Port
from cloudware_async.cli._ending import Ending, Status, describe_bug, describe_port, drop_output
from cloudware_async.cli._listing import escape, show, to_json
from cloudware_async.cli._webhook import webhook

if TYPE_CHECKING:
    from cloudware_async.sandbox import Sandbox

app = App(
    name="cloudware",
    help="""The Cloudware SMS API on the command line.

    The access token is read from `CLOUDWARE_ACCESS_TOKEN`, and the API's address from `--base-url` or
    `CLOUDWARE_BASE_URL`; by default it is the vendor's.
    """,
    # a backslash ends a line in Markdown
    help_epilogue=r"""Exit status:\
    0: done.\
    1: failed or refused; certainly nothing was sent.\
    2: called wrongly; nothing was sent.\
    3: unknown: the text may have gone out. Do not send it again blindly.\
    130: interrupted. Of a send, the same as 3.
    """,
    version=lambda: version("cloudware-async"),
    # an interrupted command has something to say (`_ending`)
    suppress_keyboard_interrupt=False,
)
app.command(webhook)
console = Console(highlight=False, markup=False, emoji=False)

BaseUrl = Annotated[str | None, Parameter(name="--base-url")]
From = Annotated[str | None, Parameter(name="--from")]


def run(arguments: Sequence[str]) -> None:
    """Run the command that these arguments name.

    Raises:
        Ending: they name none, or the command failed.
        CloudwareError: the command failed.
    """
    try:
        app(
            arguments,
            exit_on_error=False,
            print_error=False,
            result_action="return_value",
        )
    except CycloptsError as error:
        command = " ".join(["cloudware", *(error.command_chain or ())])
        raise Ending(f"{_describe(error)} (see {command} --help)", Status.MISUSED) from None


@app.command
def demo() -> None:
    """Send, queue and stream texts in many alphabets against a sandbox of its own, and compare.

    No account is needed, and nothing leaves this machine. The exit status is 0 only if every text came back identical.
    """
    from cloudware_async.cli._demo import run_demo

    run_demo(console)


@app.command
def send(to: str, message: str, /, *, from_: From = None, base_url: BaseUrl = None) -> None:
    """Send a text and print the receipt's id.

    A text that begins with a dash goes after two: `cloudware send TO -- "-20 %"`.

    Args:
        to: The number, with its country code.
        message: The text.
        from_: The sender's ID.
        base_url: Where the API is.
    """
    _send("send", to, message, from_, base_url)


@app.command
def queue(to: str, message: str, /, *, from_: From = None, base_url: BaseUrl = None) -> None:
    """Queue a text, to be sent when the service can, and print the receipt's id.

    A text that begins with a dash goes after two: `cloudware queue TO -- "-20 %"`.

    Args:
        to: The number, with its country code.
        message: The text.
        from_: The sender's ID.
        base_url: Where the API is.
    """
    _send("queue", to, message, from_, base_url)


@app.command
def messages(
    *,
    phone: str | None = None,
    device_id: str | None = None,
    to: str | None = None,
    from_: From = None,
    message: str | None = None,
    limit: Count | None = None,
    cursor: str | None = None,
    as_json: Annotated[bool, Parameter(name="--json", negative="", show_default=False)] = False,
    base_url: BaseUrl = None,
) -> None:
    """List messages, in the service's order.

    The service documents no filter precisely; each is sent as it is given.

    Args:
        phone: Only this number's.
        device_id: Only this device's.
        to: Only those to this number.
        from_: Only those from this sender.
        message: Only those with this text.
        limit: The most messages in all.
        cursor: Go on where a listing broke off; its error says this.
        as_json: One JSON object a line, with the service's own names.
        base_url: Where the API is.
    """
    with _open_client(base_url) as cloudware:
        try:
            walk = cloudware.messages(
                phone=phone,
                device_id=device_id,
                to=to,
                from_=from_,
                message=message,
                limit=limit,
                cursor=cursor,
            )
        except PaginationError as error:
            raise Ending(str(error), Status.MISUSED) from None
        start = walk.cursor
        try:
            for sms in walk:
                if as_json:
                    console.out(to_json(sms))
                else:
                    console.print(show(sms), soft_wrap=True)
        except CloudwareError as error:
            if error.cursor in (None, start):
                raise
            raise Ending(f"{error} What follows: --cursor {error.cursor}", Status.FAILED) from None


@app.command
def sandbox(
    *,
    port: Port = 0,
    database: Path | None = None,
    token: str | None = None,
    webhook_url: str | None = None,
) -> None:
    """Run a stand-in for the service on this machine, until Ctrl-C. Nobody is texted.

    Args:
        port: The port to listen on; 0 for a free one.
        database: A SQLite file that keeps the texts; by default they are gone when this ends.
        token: What callers must bear; by default an invented one. Not your real token: it is printed.
        webhook_url: Where texts that come in are posted. One comes in when `{"from": …, "message": …}` is posted,
            with the token, to `/sandbox/messages`.
    """
    from cloudware_async.sandbox import serve

    unprintable: list[OSError] = []

    def announce(running: "Sandbox") -> None:
        try:
            _announce(running)
        except OSError as error:
            unprintable.append(error)
            raise

    try:
        serve(
            on_listening=announce,
            port=port,
            database=database,
            access_token=token,
            webhook_url=webhook_url,
        )
    except CloudwareError:
        raise
    except OSError as error:
        if error in unprintable:
            raise
        raise describe_port(port, error) from None
    except sqlite3.Error as error:
        raise Ending(f"the database cannot be used: {error}", Status.FAILED) from None
    except ValueError as error:
        raise Ending(str(error), Status.MISUSED) from None


def _open_client(base_url: str | None) -> Cloudware:
    if not os.environ.get("CLOUDWARE_ACCESS_TOKEN"):
        raise Ending("no access token: set CLOUDWARE_ACCESS_TOKEN", Status.MISUSED)
    return Cloudware(base_url=base_url)


def _send(via: Literal["send", "queue"], to: str, message: str, from_: str | None, base_url: str | None) -> None:
    with _open_client(base_url) as cloudware:
        call = cloudware.send if via == "send" else cloudware.queue
        try:
            receipt = call(to, message, from_=from_)
        except KeyboardInterrupt:
            raise KeyboardInterrupt("interrupted: the text may have gone out. Do not send it again blindly") from None
        except CloudwareError:
            raise
        except Exception as error:  # noqa: BLE001 (after a mistake of ours nothing is certain: rule 3)
            raise Ending(f"{describe_bug(error)}. The text may have gone out", Status.UNKNOWN) from None
    line = "accepted, without an id" if receipt.id is None else escape(receipt.id)
    try:
        print(line, flush=True)  # noqa: T201 (rich would end a closed pipe with 1, and 1 says that nothing was sent)
    except OSError:
        drop_output()
        raise Ending(f"the text was accepted, but this could not be printed: {line}", Status.UNKNOWN) from None


def _announce(running: "Sandbox") -> None:
    lines = Text(f"The sandbox listens on {running.base_url} until Ctrl-C. In another terminal:\n")
    lines.append(f"\nexport CLOUDWARE_BASE_URL={shlex.quote(running.base_url)}", style="bold")
    lines.append(f"\nexport CLOUDWARE_ACCESS_TOKEN={shlex.quote(running.access_token)}\n", style="bold")
    console.print(lines, soft_wrap=True)


# what a mistyped option looks like, and hardly any token
_OPTION = re.compile(r"--[a-z]+(-[a-z]+)*")


def _describe(error: CycloptsError) -> str:
    match error:
        case UnknownCommandError():
            return "there is no such command"
        case UnknownOptionError():
            given = (error.token.keyword or error.token.value).partition("=")[0]
            if _OPTION.fullmatch(given):
                return f"there is no option {given}"
            return "there is no such option; what begins with a dash but is none goes after --"
        case UnusedCliTokensError():
            return "too many arguments; a text of several words needs quotes"
        case MissingArgumentError(argument=argument) if argument is not None:
            return f"{argument.name} {'needs a value' if argument.name.startswith('-') else 'is missing'}"
        case RepeatArgumentError(token=token):
            return f"{token.keyword} is given more than once"
        case CoercionError(argument=argument, target_type=target) if argument is not None:
            return f"{argument.name} takes {'no value' if target is bool else 'a whole number'}"
        case ValidationError(argument=argument) if argument is not None:
            return f"{argument.name}: {error.exception_message.removesuffix('.')}"
        case _:
            return "the arguments cannot be understood"
