"""The checks of this project: `nox -s tests`, and `nox --list` names the others.

What follows the session's name after `--` goes to pytest: `nox -s tests -- -k cursor`.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import nox

nox.needs_version = ">=2025.10.14"  # the first whose `download_python` can be set here
nox.options.default_venv_backend = "uv|virtualenv"
nox.options.sessions = ["tests", "lint", "types", "docs"]

# A Python that is not there is skipped, with CI=true too, and none is downloaded.
nox.options.error_on_missing_interpreters = False
nox.options.download_python = "never"

THIS_PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"
# The Python that runs nox is always among them: never is everything skipped.
PYTHONS = sorted(
    {"3.11", "3.12", "3.13", "3.14", THIS_PYTHON},
    key=lambda version: int(version.partition(".")[2]),
)

# pyenv shows one Python and hides the rest. Last on the path they are found, and hide nothing else.
PYENV = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"))
os.environ["PATH"] = os.pathsep.join(
    [os.environ.get("PATH", os.defpath), *map(str, sorted(PYENV.glob("versions/3.*/bin")))]
)

GROUPS = nox.project.load_toml("pyproject.toml")
EXTRAS = ".[aiohttp,cli,django,fastapi,postgresql,sandbox]"
# two to a core: most of a test is waiting
WORKERS = ("-n", str(2 * (os.cpu_count() or 1)))
# what is the same on every Python, and long, runs on one
BRIEF = ("-m", "not exhaustive")


def install(session: nox.Session, group: str, *more: str) -> None:
    """Install a dependency group, and beside it whatever else is asked for, in one resolution."""
    session.install(*nox.project.dependency_groups(GROUPS, group), *more)


@nox.session(python=PYTHONS)
def tests(session: nox.Session) -> None:
    """Run the tests on every Python found, the long ones on this one; then once on the oldest httpx."""
    session.notify("httpx027")
    install(session, "test", "-e", EXTRAS)
    session.run("pytest", *WORKERS, *(() if session.python == THIS_PYTHON else BRIEF), *session.posargs)


@nox.session
def httpx027(session: nox.Session) -> None:
    """Run the tests on httpx 0.27, the oldest that is supported."""
    # each pytest-httpx is made for one httpx; named here, or resolving goes astray among old ones
    install(session, "test", "-e", EXTRAS, "httpx==0.27.*", "pytest-httpx==0.34.*")
    session.run("pytest", *WORKERS, *BRIEF, *session.posargs)


@nox.session
def coverage(session: nox.Session) -> None:
    """Measure lines and branches of the floors; below 100 % it fails."""
    install(session, "test", "-e", EXTRAS)
    session.run("coverage", "erase")
    session.run("coverage", "run", "-m", "pytest", *WORKERS, *session.posargs)
    session.run("coverage", "combine", "--quiet")
    session.run("coverage", "report")


@nox.session
def mutation(session: nox.Session) -> None:
    """Break what decides, line by line, and see the tests go red; no part of CI."""
    install(session, "test", "-e", EXTRAS, "mutmut>=3.3")
    session.run("mutmut", "run", "--max-children", "2", success_codes=[0, 1])
    session.run("mutmut", "results")


@nox.session
def peers(session: nox.Session) -> None:
    """Run the same faults through other vendors' SDKs, and write the table for the docs."""
    session.install("-e", ".", "twilio", "telnyx", "vonage", "trustme")
    session.run("python", "benchmarks/peers.py", "docs")


@nox.session
def bench(session: nox.Session) -> None:
    """Measure against other SDKs and the floors, and write the page; `-- --short` compares with what is committed."""
    install(session, "bench", "-e", ".[aiohttp]")
    session.run("python", "benchmarks/speed/run.py", *session.posargs)


@nox.session
def storm(session: nox.Session) -> None:
    """Simulate an outage, and draw it for the docs."""
    session.install("-e", ".", "matplotlib")
    session.run("python", "benchmarks/storm.py", "docs")


@nox.session
def lint(session: nox.Session) -> None:
    """Check style and formatting."""
    install(session, "lint")
    session.run("ruff", "check")
    session.run("ruff", "format", "--check")


@nox.session
def types(session: nox.Session) -> None:
    """Check the types, twice: each checker sees what the other misses."""
    install(session, "types", "nox", "-e", EXTRAS)
    session.run("mypy")
    # told which Python, or it takes the one of a `.venv` that lies in the project
    session.run("basedpyright", "--pythonpath", f"{session.bin}/python")


@nox.session
def docs(session: nox.Session) -> None:
    """Build the documentation; a warning is an error."""
    install(session, "docs", ".[sandbox]")
    session.run("sphinx-build", "-W", "--keep-going", "-E", "-q", "docs", "docs/_build")
