"""A PostgreSQL server of the tests' own, thrown away at their end.

Rule 1. Its programs are those on PATH or where Debian puts them; where there are none, the tests that need it are
        skipped and say so.
Rule 2. It listens on a Unix socket in its own folder and on no port, so that any number run side by side.
Rule 3. It never runs as root, which it refuses: started by root it runs as `postgres` or `nobody`.
Rule 4. It is stopped and deleted when the tests are over, and also when they are killed.
"""

from __future__ import annotations

import contextlib
import getpass
import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from attrs import frozen


def find_programs() -> Path | None:
    """Where `initdb`, `pg_ctl` and `postgres` are, the newest first."""
    version_of = lambda folder: float(folder.parent.name)  # noqa: E731
    folders = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=version_of, reverse=True)
    on_path = shutil.which("pg_ctl")
    if on_path is not None:
        folders.append(Path(on_path).resolve().parent)
    for folder in folders:
        if all((folder / name).exists() for name in ("initdb", "pg_ctl", "postgres")):
            return folder
    return None


def unprivileged() -> str:
    """The user that the server runs as."""
    if os.getuid() != 0:
        return getpass.getuser()
    names = {entry.pw_name for entry in pwd.getpwall()}
    return next(name for name in ("postgres", "nobody") if name in names)


@frozen
class Cluster:
    """A running server."""

    folder: Path
    programs: Path
    user: str

    def connection(self, database: str) -> str:
        return f"host={self.folder} dbname={database} user=tests"

    def control(self, *arguments: str) -> None:
        """Have `pg_ctl` start or stop it."""
        run_as(self.user, [str(self.programs / "pg_ctl"), "-D", str(self.folder / "data"), "-w", *arguments])

    def start(self) -> None:
        # what is lost when the machine dies is not tested here
        settings = f"-k {self.folder} -h '' -c fsync=off"
        self.control("-o", settings, "-l", str(self.folder / "log"), "start")

    @contextlib.contextmanager
    def database(self) -> Iterator[str]:
        """A new, empty database; gives how to connect to it."""
        name = f"test_{os.urandom(6).hex()}"
        with psycopg.connect(self.connection("postgres"), autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {name}")  # type: ignore[call-overload]
        yield self.connection(name)
        with psycopg.connect(self.connection("postgres"), autocommit=True) as connection:
            connection.execute(f"DROP DATABASE {name} WITH (FORCE)")  # type: ignore[call-overload]


def as_user(user: str) -> dict[str, Any]:
    """What `subprocess` needs to run something as somebody else; only root can."""
    return {"user": user, "group": pwd.getpwnam(user).pw_gid, "extra_groups": []} if os.getuid() == 0 else {}


def run_as(user: str, command: list[str]) -> None:
    ended = subprocess.run(
        command, check=False, cwd="/", stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, **as_user(user)
    )
    assert 0 == ended.returncode, ended.stderr


@contextlib.contextmanager
def cluster() -> Iterator[Cluster]:
    """Start a server; the test is skipped where there is none."""
    programs = find_programs()
    if programs is None:
        pytest.skip("PostgreSQL's server is not installed (initdb, pg_ctl)")
    user = unprivileged()
    # not under pytest's own folder, into which only its owner may look; and short, as names of sockets must be
    folder = Path(tempfile.mkdtemp(prefix="pg-"))
    folder.chmod(0o755)
    if os.getuid() == 0:
        shutil.chown(folder, user)
    # rule 4: it waits for the end of its standard input
    last_will = 'read _; "$0" -D "$1/data" -m immediate -w stop; rm -rf "$1"'
    command = ["sh", "-c", last_will, str(programs / "pg_ctl"), str(folder)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd="/", **as_user(user)
    ):
        initdb = ["-D", str(folder / "data"), "-U", "tests", "-A", "trust", "-E", "UTF8", "--no-sync", "--locale=C"]
        run_as(user, [str(programs / "initdb"), *initdb])
        running = Cluster(folder, programs, user)
        running.start()
        yield running
