"""How tests run the command: a process of its own, its streams and its exit status.

Rule 1: every run is checked for the token, which stands in none of its output (`Ended`).
Rule 2: warnings are errors in the command's process too.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys

import pytest
from attrs import frozen
from fault_server import FaultServer

from cloudware_async.sandbox import Sandbox

TOKEN = "tok-6cb1f0-Secret"
NUMBER = "2348012345678"
COMMAND = (sys.executable, "-W", "error", "-m", "cloudware_async.cli")
# seconds; only a hang reaches it
PATIENCE = 60.0

DONE, FAILED, MISUSED, UNKNOWN = 0, 1, 2, 3

needs_posix = pytest.mark.skipif(os.name != "posix", reason="signals, terminals and closed pipes as POSIX has them")


@frozen
class Ended:
    """A run that has ended."""

    status: int
    output: str
    errors: str

    def __attrs_post_init__(self):
        assert TOKEN not in self.output + self.errors
        assert "Traceback" not in self.errors

    @property
    def line(self) -> str:
        """What was said on stderr: one line of the command's own."""
        (line,) = self.errors.splitlines()
        assert line.startswith("cloudware: ")
        return line.removeprefix("cloudware: ")


def environment(**settings: str) -> dict[str, str]:
    """The environment, without what changes how a command draws or writes."""
    changing = ("NO_COLOR", "FORCE_COLOR", "COLUMNS", "LINES", "PYTHONUNBUFFERED")
    return {name: value for name, value in os.environ.items() if name not in changing} | settings


def start(
    *arguments: str | bytes, command=COMMAND, stdout=subprocess.PIPE, stderr=subprocess.PIPE, **settings: str
) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [*command, *arguments],
        env=environment(**settings),
        stdin=subprocess.DEVNULL,
        stdout=stdout,
        stderr=stderr,
        text=True,
        encoding="utf-8",
        # what is sent to its group reaches nobody else
        start_new_session=True,
    )


def finish(process: subprocess.Popen[str]) -> Ended:
    with process:
        try:
            output, errors = process.communicate(timeout=PATIENCE)
        finally:
            process.kill()
    return Ended(process.returncode, output or "", errors)


def run(*arguments: str | bytes, **options) -> Ended:
    return finish(start(*arguments, **options))


def run_python(code: str, *arguments: str, **settings: str) -> Ended:
    """Run the command in a process in which something is changed first."""
    code = f"import sys\n{code}\nfrom cloudware_async.cli import main\nsys.exit(main())"
    return run(*arguments, command=(sys.executable, "-W", "error", "-c", code), **settings)


def at(server: Sandbox | FaultServer, token: str = TOKEN) -> dict[str, str]:
    """The settings that lead the command there."""
    return {"CLOUDWARE_ACCESS_TOKEN": token, "CLOUDWARE_BASE_URL": server.base_url}


EXPORTS = re.compile(r"^export (CLOUDWARE_\w+)=(\S+)$", re.MULTILINE)


def read_exports(process: subprocess.Popen[str], count: int, stream: str = "stdout") -> dict[str, str]:
    """So many settings, as a command prints them that has started."""
    said = ""
    while len(EXPORTS.findall(said)) < count:
        line = getattr(process, stream).readline()
        assert line, f"it ended: {process.stderr.read()}"
        said += line
    return dict(EXPORTS.findall(said))
