"""How a command ends: with an exit status, and one line on stderr unless all went well.

Rule 1: 1 and 2 promise that nothing was sent. Whatever leaves that open is 3.
Rule 2: no line holds what stood on the command line or what a foreign exception says: either could be the token.
Rule 3: an interrupted command dies of SIGINT, which shells show as 130. Were it only to return 130, bash would go on
        with the next round of a loop, and the next text.
"""

from __future__ import annotations

import io
import os
import signal
import sys
import traceback
from enum import IntEnum
from typing import TYPE_CHECKING

from cloudware_async._errors import CloudwareError, ConfigurationError, InvalidArgumentError

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import TextIO


class Status(IntEnum):
    """What the exit status says."""

    DONE = 0
    FAILED = 1
    MISUSED = 2
    UNKNOWN = 3
    INTERRUPTED = 130


class Ending(Exception):  # noqa: N818 (it ends a command; not every one is an error of ours)
    """Ends the command with a line and a status.

    Args:
        line: what is said on stderr; empty for nothing.
        status: the exit status.
    """

    def __init__(self, line: str, status: Status) -> None:
        super().__init__(line)
        self.line = line
        self.status = status


def conclude(command: Callable[[], None]) -> int:
    """Run a command to its end, say how it ended, and give its exit status."""
    if sys.stdout is None:
        tell("there is no standard output to print to; to print nothing, let it go to /dev/null")
        return Status.MISUSED
    if isinstance(sys.stdout, io.TextIOWrapper):
        # a text that the terminal's encoding lacks is shown escaped
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        command()
    except KeyboardInterrupt as interrupt:
        tell(str(interrupt) or "interrupted")
        _die_interrupted()
        return Status.INTERRUPTED
    except Exception as error:  # noqa: BLE001 (a traceback would show what the exception says: rule 2)
        ending = ending_of(error)
        if ending.line:
            tell(ending.line)
        return ending.status
    return Status.DONE


def ending_of(error: Exception) -> Ending:
    """Say how a command ends that was ended by this exception."""
    match error:
        case Ending():
            return error
        case CloudwareError(may_have_been_sent=True):
            return Ending(str(error), Status.UNKNOWN)
        case InvalidArgumentError() | ConfigurationError():
            return Ending(str(error).replace("from_", "--from"), Status.MISUSED)
        case CloudwareError() | ImportError():
            return Ending(str(error), Status.FAILED)
        case BrokenPipeError():
            # whoever read the output has enough
            drop_output()
            return Ending("", Status.FAILED)
        case OSError():
            drop_output()
            return Ending(f"the system refused: {error.strerror or type(error).__name__}", Status.FAILED)
        case _:
            return Ending(describe_bug(error), Status.FAILED)


def describe_bug(error: Exception) -> str:
    """Say of an exception that should not be what it is and where it arose."""
    place = traceback.extract_tb(error.__traceback__)[-1]
    return f"unexpected {type(error).__name__} at {place.filename}:{place.lineno}: please report this"


def describe_port(port: int, error: OSError) -> Ending:
    """Say that a port cannot be listened on; the exception's own words repeat the address."""
    reason = type(error).__name__ if error.errno is None else os.strerror(error.errno)
    return Ending(f"cannot listen on port {port}: {reason}", Status.FAILED)


def drop_output(stream: TextIO | None = None) -> None:
    """Give up what could not be printed: Python would try it again on exit, and fail with words of its own."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), (stream or sys.stdout).fileno())


def tell(line: str) -> None:
    """Say a line on stderr. Where that cannot be done, the exit status must say it alone."""
    # there is none where it was closed
    if sys.stderr is not None:
        try:
            print(f"cloudware: {line}", file=sys.stderr, flush=True)  # noqa: T201 (a command tells by printing)
        except OSError:
            drop_output(sys.stderr)


def _die_interrupted() -> None:
    if os.name == "posix":
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGINT)
