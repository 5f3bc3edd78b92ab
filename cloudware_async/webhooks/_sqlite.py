"""A store in a SQLite file: for the receivers of one machine.

Rule 1: what is answered with success was committed and synced to the disk.
Rule 2: every open store holds a *seat*, a number of its own, and a claim names the seat. A seat is an exclusive lock
        on a file beside the database, which the operating system frees when the process dies. Whoever can lock
        a seat may free its claims.
Rule 3: one connection, one thread at a time. What is held is noted after the commit, before the next thread.
Rule 4: no connection to the database outlives a `fork`, in either process (SQLite, "How To Corrupt", 2.6). Of the lock
        of a seat a child has a copy that locks nothing; it is closed before the child opens the file.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, final

from cloudware_async._backend_forks import start_afresh_after_fork
from cloudware_async._errors import ConfigurationError
from cloudware_async.webhooks._store import HORIZON, Recorded, Standing, longest_pause, read_horizon

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Generator

# seconds
_PATIENCE = 30.0
_MOMENT = 0.01
_PURGE_PERIOD = 60.0
_LOOK_FOR_DEAD_PERIOD = 5.0

_SCHEMA = """
CREATE TABLE IF NOT EXISTS webhooks (
    key        BLOB PRIMARY KEY,
    body       BLOB,                        -- until it was handled; NULL too where nothing is recorded, only claimed
    attempts   INTEGER NOT NULL DEFAULT 0,
    due_at     REAL NOT NULL,               -- Unix time, as is handled_at
    claimed_by INTEGER,                     -- a seat
    handled_at REAL
);
CREATE INDEX IF NOT EXISTS webhooks_due ON webhooks (due_at) WHERE handled_at IS NULL;
CREATE INDEX IF NOT EXISTS webhooks_claimed ON webhooks (claimed_by) WHERE claimed_by IS NOT NULL;
CREATE INDEX IF NOT EXISTS webhooks_handled ON webhooks (handled_at) WHERE handled_at IS NOT NULL;
"""


@final
class SQLiteStore:
    """Keeps messages in a SQLite file until they are handled, and remembers which were.

    For one or several processes on one machine; not for a network file system. Beside the file it makes
    `…-wal`, `…-shm` and, for every process at once, `…-seat-1` and so on.

    Args:
        path: the file, made if it is not there, readable by its owner only.
        horizon: seconds; how long a handled message is known again. By default 7 days.

    Raises:
        ConfigurationError: `path` is no path of a file, or `horizon` is no number of seconds above zero.
    """

    def __init__(self, path: str | os.PathLike[str], *, horizon: float = HORIZON) -> None:
        if not isinstance(path, str | os.PathLike) or os.fspath(path) in ("", ":memory:"):
            raise ConfigurationError("SQLiteStore takes the path of a file; to keep nothing there is MemoryStore")
        # so that a later chdir does not lead elsewhere
        self._path = Path(os.path.abspath(path))  # noqa: PTH100 (a symbolic link stays one)
        if not self._path.parent.is_dir():
            raise ConfigurationError("SQLiteStore takes the path of a file in a folder that exists")
        self._horizon = read_horizon(horizon)
        self._of_parents: list[sqlite3.Connection] = []
        self._seat_lock: sqlite3.Connection | None = None
        self._start_afresh()
        start_afresh_after_fork(self)

    def _before_fork(self) -> None:  # pyright: ignore[reportUnusedFunction] (`_backend_forks` calls it)
        self._lock.acquire()
        self._disconnect()

    def _after_fork_in_parent(self) -> None:  # pyright: ignore[reportUnusedFunction] (the same)
        self._lock.release()

    def _start_afresh(self) -> None:
        self._lock = threading.Lock()
        self._connection: sqlite3.Connection | None = None
        # closed later: right after a fork another library's locks may be held
        if self._seat_lock is not None:
            self._of_parents.append(self._seat_lock)
        self._seat_lock = None
        self._seat = 0
        # the messages that this store has handed out and not got back
        self._held: set[bytes] = set()
        self._next_purge = 0.0
        self._next_look_for_dead = 0.0

    def claim(self, key: bytes) -> Standing:
        """Claim a message for the caller, unless it was handled or somebody else is at it.

        Raises:
            sqlite3.Error: the file cannot be used.
        """
        with self._lock:
            with self._transaction() as connection:
                self._purge(connection)
                standing = self._find_standing(connection, key)
                if standing is Standing.CLAIMED:
                    connection.execute(
                        "INSERT INTO webhooks (key, due_at, claimed_by) VALUES (?, ?, ?)"
                        " ON CONFLICT (key) DO UPDATE SET claimed_by = excluded.claimed_by, handled_at = NULL",
                        (key, time.time(), self._seat),
                    )
            if standing is Standing.CLAIMED:
                self._held.add(key)
        return standing

    def _find_standing(self, connection: sqlite3.Connection, key: bytes) -> Standing:
        row = connection.execute("SELECT claimed_by, handled_at FROM webhooks WHERE key = ?", (key,)).fetchone()
        seat, handled_at = row or (None, None)
        if handled_at is not None:
            return Standing.HANDLED if handled_at >= time.time() - self._horizon else Standing.CLAIMED
        if key in self._held:
            return Standing.BUSY
        is_free = seat is None or seat == self._seat or self._free_if_dead(connection, seat)
        return Standing.CLAIMED if is_free else Standing.BUSY

    def finish(self, key: bytes) -> None:
        """Remember that a claimed message was handled, and forget its text.

        Raises:
            sqlite3.Error: the file cannot be used.
        """
        with self._lock:
            with self._transaction() as connection:
                # the row may be gone: whoever closed the store has ended the claim
                connection.execute(
                    "INSERT INTO webhooks (key, due_at, handled_at) VALUES (?, ?, ?) ON CONFLICT (key) DO UPDATE SET"
                    " body = NULL, attempts = 0, claimed_by = NULL, handled_at = excluded.handled_at",
                    (key, time.time(), time.time()),
                )
            self._held.discard(key)

    def release(self, key: bytes, delay: float) -> None:
        """End a claim without success: the message is as unseen, or if it is recorded, due again in `delay` seconds.

        Raises:
            sqlite3.Error: the file cannot be used.
        """
        with self._lock:
            with self._transaction() as connection:
                claim = (key, self._seat)
                connection.execute("DELETE FROM webhooks WHERE key = ? AND claimed_by = ? AND body IS NULL", claim)
                connection.execute(
                    "UPDATE webhooks SET due_at = ?, claimed_by = NULL WHERE key = ? AND claimed_by = ?",
                    (time.time() + delay, *claim),
                )
            self._held.discard(key)

    def record(self, key: bytes, body: bytes) -> None:
        """Keep a message until it is handled; a repeat of an unhandled one makes that one due now.

        Raises:
            sqlite3.Error: the file cannot be used; nothing was kept.
        """
        with self._lock, self._transaction() as connection:
            self._purge(connection)
            now = time.time()
            connection.execute(
                "INSERT INTO webhooks (key, body, due_at) VALUES (?, ?, ?) ON CONFLICT (key) DO UPDATE SET"
                " body = COALESCE(body, excluded.body), handled_at = NULL,"
                " due_at = CASE WHEN claimed_by IS NULL THEN excluded.due_at ELSE due_at END"
                " WHERE handled_at < ? OR handled_at IS NULL",
                (key, body, now, now - self._horizon),
            )

    def take(self, most: int) -> list[Recorded]:
        """Claim the recorded messages that are due, at most so many, oldest first.

        Raises:
            sqlite3.Error: the file cannot be used.
        """
        with self._lock:
            with self._transaction() as connection:
                self._free_the_dead(connection)
                now = time.time()
                rows = connection.execute(
                    "SELECT key, body, attempts + 1 FROM webhooks"
                    # what is new does not wait, though the clock was set back meanwhile
                    " WHERE handled_at IS NULL AND body IS NOT NULL AND (attempts = 0 OR due_at <= ?)"
                    " AND (claimed_by IS NULL OR claimed_by = ?) ORDER BY due_at LIMIT ?",
                    (now, self._seat, most + len(self._held)),
                ).fetchall()
                taken = [Recorded(*row) for row in rows if row[0] not in self._held][:most]
                for each in taken:
                    pause = longest_pause(each.attempts - 1) if each.attempts > 1 else 0.0
                    connection.execute(
                        "UPDATE webhooks SET claimed_by = ?, attempts = ?, due_at = ? WHERE key = ?",
                        (self._seat, each.attempts, now + pause, each.key),
                    )
            self._held.update(each.key for each in taken)
        return taken

    def close(self) -> None:
        """Let go of every claim and of the file. A later call opens it again."""
        with self._lock:
            self._close()

    def _close(self) -> None:
        self._disconnect()
        if self._seat_lock is not None:
            self._seat_lock.close()
        self._seat_lock = None
        self._held.clear()
        self._next_look_for_dead = 0.0

    def _disconnect(self) -> None:
        if self._connection is not None:
            self._connection.close()
        self._connection = None

    @contextlib.contextmanager
    def _transaction(self) -> Generator[sqlite3.Connection]:
        """Open the file if need be; the block's end commits, an exception undoes."""
        if self._connection is None:
            self._connection = self._open()
        connection = self._connection
        if self._seat_lock is None:
            self._sit_down(connection)
        connection.execute("BEGIN IMMEDIATE")
        try:
            yield connection
            connection.execute("COMMIT")
        except BaseException:
            # SQLite itself has undone it after some errors
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise

    def _open(self) -> sqlite3.Connection:
        while self._of_parents:
            # or SQLite would take the parent's seat for locked when the parent is long dead
            self._of_parents.pop().close()
        with contextlib.suppress(FileExistsError):
            os.close(os.open(self._path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
        connection = _connect(self._path, _PATIENCE)
        try:
            _write_ahead(connection)
            connection.execute("PRAGMA synchronous = FULL")
            # a text that was deleted is overwritten
            connection.execute("PRAGMA secure_delete = ON")
            connection.executescript(_SCHEMA)
        except BaseException:
            connection.close()
            raise
        return connection

    # ------------------------------------------------------------ seats

    def _sit_down(self, connection: sqlite3.Connection) -> None:
        """Take the first free seat, and free what its last holder left behind."""
        for seat in itertools.count(1):
            lock = self._lock_seat(seat)
            if lock is not None:
                self._seat, self._seat_lock = seat, lock
                _free(connection, seat)
                return

    def _lock_seat(self, seat: int) -> sqlite3.Connection | None:
        """Lock a seat, or give None if its holder lives."""
        import sqlite3

        lock = _connect(self._path.with_name(f"{self._path.name}-seat-{seat}"), 0)
        try:
            lock.execute("BEGIN EXCLUSIVE")
        except BaseException as error:
            lock.close()
            if isinstance(error, sqlite3.OperationalError) and error.sqlite_errorcode == sqlite3.SQLITE_BUSY:
                return None
            raise
        return lock

    def _free_if_dead(self, connection: sqlite3.Connection, seat: int) -> bool:
        lock = self._lock_seat(seat)
        if lock is None:
            return False
        try:
            # whoever sits down there next must wait for this transaction before it can claim anything
            _free(connection, seat)
        finally:
            lock.close()
        return True

    def _free_the_dead(self, connection: sqlite3.Connection) -> None:
        if time.monotonic() < self._next_look_for_dead:
            return
        self._next_look_for_dead = time.monotonic() + _LOOK_FOR_DEAD_PERIOD
        seats = connection.execute("SELECT DISTINCT claimed_by FROM webhooks WHERE claimed_by IS NOT NULL").fetchall()
        for (seat,) in seats:
            if seat != self._seat:
                self._free_if_dead(connection, seat)

    def _purge(self, connection: sqlite3.Connection) -> None:
        if time.monotonic() < self._next_purge:
            return
        self._next_purge = time.monotonic() + _PURGE_PERIOD
        connection.execute("DELETE FROM webhooks WHERE handled_at < ?", (time.time() - self._horizon,))


def _connect(path: Path, patience: float) -> sqlite3.Connection:
    import sqlite3

    # what begins and ends a transaction is said here; which thread's turn it is, the lock decides
    return sqlite3.connect(path, timeout=patience, isolation_level=None, check_same_thread=False)


def _write_ahead(connection: sqlite3.Connection) -> None:
    """Have it kept beside the file what is written, with patience: for this one SQLite itself has none."""
    import sqlite3

    gives_up_at = time.monotonic() + _PATIENCE
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL")
        except sqlite3.OperationalError as error:
            is_busy = error.sqlite_errorcode & 0xFF == sqlite3.SQLITE_BUSY
            if not is_busy or time.monotonic() > gives_up_at:
                raise
            time.sleep(_MOMENT)
        else:
            return


def _free(connection: sqlite3.Connection, seat: int) -> None:
    """End every claim of a seat: what is only claimed is as unseen, what is recorded is free."""
    connection.execute("DELETE FROM webhooks WHERE claimed_by = ? AND body IS NULL", (seat,))
    connection.execute("UPDATE webhooks SET claimed_by = NULL WHERE claimed_by = ?", (seat,))
