"""A store in PostgreSQL: for receivers on several machines behind a load balancer.

Rule 1: what is answered with success was committed.
Rule 2: every open store holds a *seat*, a number of its own, and a claim names the seat. A seat is an advisory lock of
        the store's session, which the server frees when the connection ends. Whoever can lock a seat may free
        its claims, and does so while it holds the lock.
Rule 3: one connection, one thread at a time. What is held is noted after the commit, before the next thread.
Rule 4: a broken connection is made again, once a call: every call may be repeated. The store sits down on its old
        seat, if nobody has taken it meanwhile, and so keeps its claims.
Rule 5: where no connection could be made, who waited for its turn meanwhile fails too, and does not try for as long.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import threading
import time
from typing import TYPE_CHECKING, Any, TypeVar, final

from cloudware_async._backend_forks import start_afresh_after_fork
from cloudware_async._errors import ConfigurationError
from cloudware_async.webhooks._store import HORIZON, Recorded, Standing, read_horizon

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    import psycopg

    Connection = psycopg.Connection[tuple[Any, ...]]

T = TypeVar("T")

# seconds
_PURGE_PERIOD = 60.0
_LOOK_FOR_DEAD_PERIOD = 5.0

# A host that is gone without a word is given up after some 25 seconds, at either end.
_CONNECTION_OPTIONS = {
    "connect_timeout": 10,
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 25_000,
}
_SESSION = """
SET tcp_keepalives_idle = 10;
SET tcp_keepalives_interval = 5;
SET tcp_keepalives_count = 3;
SET statement_timeout = '30s';
"""

# seats are locked under the table's own number, so that they are no other table's
_TABLE = "'cloudware_webhooks'::regclass::oid::integer"
_SCHEMA = """
CREATE TABLE IF NOT EXISTS cloudware_webhooks (
    key        bytea PRIMARY KEY,
    body       bytea,                       -- until it was handled; null too where nothing is recorded, only claimed
    attempts   integer NOT NULL DEFAULT 0,
    due_at     timestamptz NOT NULL DEFAULT statement_timestamp(),
    claimed_by integer,                     -- a seat
    handled_at timestamptz
);
CREATE INDEX IF NOT EXISTS cloudware_webhooks_due ON cloudware_webhooks (due_at) WHERE handled_at IS NULL;
CREATE INDEX IF NOT EXISTS cloudware_webhooks_claimed ON cloudware_webhooks (claimed_by) WHERE claimed_by IS NOT NULL;
CREATE INDEX IF NOT EXISTS cloudware_webhooks_handled ON cloudware_webhooks (handled_at) WHERE handled_at IS NOT NULL;
"""
# any number will do, as long as every version takes the same
_SCHEMA_LOCK = 0x434C4F5544


@final
class PostgreSQLStore:
    """Keeps messages in PostgreSQL until they are handled, and remembers which were.

    For any number of receivers on any number of machines: each message is handled by one of them. It makes
    a table, `cloudware_webhooks`, where that is not there, and holds one connection. A pooler in between must
    pool by session, not by transaction.

    Args:
        conninfo: where the database is: a URL or a connection string, as libpq takes it.
        horizon: seconds; how long a handled message is known again. By default 7 days.

    Raises:
        ConfigurationError: `conninfo` is no connection string, or `horizon` is no number of seconds above zero.
        ImportError: psycopg is not installed; the extra `postgresql` brings it.
    """

    def __init__(self, conninfo: str, *, horizon: float = HORIZON) -> None:
        # it may hold a password; nothing shows it
        self._options = _read_conninfo(conninfo)
        self._horizon = read_horizon(horizon)
        self._of_parents: list[object] = []
        self._connection: Connection | None = None
        self._start_afresh()
        start_afresh_after_fork(self)

    def _start_afresh(self) -> None:
        self._lock = threading.Lock()
        if self._connection is not None:
            # kept, so that nothing closes it in this process
            self._of_parents.append(self._connection)
            _cut_off(self._connection)
        self._connection = None
        self._seat = 0
        # the messages that this store has handed out and not got back
        self._held: set[bytes] = set()
        self._next_purge = 0.0
        self._next_look_for_dead = 0.0
        self._unreachable_at = 0.0

    def claim(self, key: bytes) -> Standing:
        """Claim a message for the caller, unless it was handled or somebody else is at it.

        Raises:
            psycopg.Error: the database cannot be used.
        """

        def work(connection: Connection) -> Standing:
            self._purge(connection)
            with connection.transaction():
                inserted = connection.execute(
                    "INSERT INTO cloudware_webhooks (key, claimed_by) VALUES (%s, %s) ON CONFLICT DO NOTHING",
                    (key, self._seat),
                )
                if inserted.rowcount == 1:
                    return Standing.CLAIMED
                row = connection.execute(
                    "SELECT claimed_by, handled_at >= statement_timestamp() - make_interval(secs => %s)"
                    " FROM cloudware_webhooks WHERE key = %s FOR UPDATE",
                    (self._horizon, key),
                ).fetchone()
                standing = self._find_standing(connection, key, row)
                if standing is Standing.CLAIMED:
                    connection.execute(
                        "INSERT INTO cloudware_webhooks (key, claimed_by) VALUES (%s, %s)"
                        " ON CONFLICT (key) DO UPDATE SET claimed_by = excluded.claimed_by, handled_at = NULL",
                        (key, self._seat),
                    )
                return standing

        with self._turn():
            standing = self._call(work)
            if standing is Standing.CLAIMED:
                self._held.add(key)
        return standing

    def _find_standing(self, connection: Connection, key: bytes, row: tuple[Any, ...] | None) -> Standing:
        # there is no row if it was purged or released just now
        seat, is_handled = row or (None, None)
        if is_handled is not None:
            return Standing.HANDLED if is_handled else Standing.CLAIMED
        if key in self._held:
            return Standing.BUSY
        is_free = seat is None or seat == self._seat or self._free_if_dead(connection, seat)
        return Standing.CLAIMED if is_free else Standing.BUSY

    def finish(self, key: bytes) -> None:
        """Remember that a claimed message was handled, and forget its text.

        Raises:
            psycopg.Error: the database cannot be used.
        """

        def work(connection: Connection) -> None:
            # the row may be gone: after a broken connection somebody else may have freed the claim
            connection.execute(
                "INSERT INTO cloudware_webhooks (key, handled_at) VALUES (%s, statement_timestamp())"
                " ON CONFLICT (key) DO UPDATE SET"
                " body = NULL, attempts = 0, claimed_by = NULL, handled_at = excluded.handled_at",
                (key,),
            )

        with self._turn():
            self._call(work)
            self._held.discard(key)

    def release(self, key: bytes, delay: float) -> None:
        """End a claim without success: the message is as unseen, or if it is recorded, due again in `delay` seconds.

        Raises:
            psycopg.Error: the database cannot be used.
        """

        def work(connection: Connection) -> None:
            claim = (key, self._seat)
            with connection.transaction():
                connection.execute(
                    "DELETE FROM cloudware_webhooks WHERE key = %s AND claimed_by = %s AND body IS NULL", claim
                )
                connection.execute(
                    "UPDATE cloudware_webhooks SET claimed_by = NULL,"
                    " due_at = statement_timestamp() + make_interval(secs => %s) WHERE key = %s AND claimed_by = %s",
                    (delay, *claim),
                )

        with self._turn():
            self._call(work)
            self._held.discard(key)

    def record(self, key: bytes, body: bytes) -> None:
        """Keep a message until it is handled; a repeat of an unhandled one makes that one due now.

        Raises:
            psycopg.Error: the database cannot be used; whether it was kept is unknown, and it may be recorded again.
        """

        def work(connection: Connection) -> None:
            self._purge(connection)
            connection.execute(
                "INSERT INTO cloudware_webhooks AS kept (key, body) VALUES (%s, %s) ON CONFLICT (key) DO UPDATE SET"
                " body = COALESCE(kept.body, excluded.body), handled_at = NULL,"
                " due_at = CASE WHEN kept.claimed_by IS NULL THEN excluded.due_at ELSE kept.due_at END"
                " WHERE kept.handled_at < statement_timestamp() - make_interval(secs => %s)"
                " OR kept.handled_at IS NULL",
                (key, body, self._horizon),
            )

        with self._turn():
            self._call(work)

    def take(self, most: int) -> list[Recorded]:
        """Claim the recorded messages that are due, at most so many, oldest first.

        Raises:
            psycopg.Error: the database cannot be used.
        """

        def work(connection: Connection) -> list[Recorded]:
            self._free_the_dead(connection)
            rows = connection.execute(
                # the pause is `longest_pause`
                "UPDATE cloudware_webhooks SET claimed_by = %s, attempts = attempts + 1,"
                " due_at = CASE WHEN attempts = 0 THEN due_at ELSE statement_timestamp()"
                " + make_interval(secs => LEAST(600, 2.0 ^ LEAST(attempts - 1, 10))) END WHERE key = ANY(ARRAY("
                " SELECT key FROM cloudware_webhooks"
                " WHERE handled_at IS NULL AND body IS NOT NULL AND due_at <= statement_timestamp()"
                " AND (claimed_by IS NULL OR (claimed_by = %s AND NOT key = ANY(%s)))"
                " ORDER BY due_at LIMIT %s FOR UPDATE SKIP LOCKED"
                ")) RETURNING key, body, attempts",
                (self._seat, self._seat, list(self._held), most),
            ).fetchall()
            return [Recorded(*row) for row in rows]

        with self._turn():
            taken = self._call(work)
            self._held.update(each.key for each in taken)
        return taken

    def close(self) -> None:
        """Let go of every claim and of the connection. A later call opens it again."""
        with self._lock:
            self._stand_up()
            self._disconnect()
            self._held.clear()
            self._seat = 0

    # ------------------------------------------------------------ the connection

    @contextlib.contextmanager
    def _turn(self) -> Generator[None]:
        import psycopg

        came = time.monotonic()
        with self._lock:
            if self._connection is None and came < self._unreachable_at:
                raise psycopg.OperationalError("the database could not be reached")
            yield

    def _call(self, work: Callable[[Connection], T]) -> T:
        import psycopg

        was_connected = self._connection is not None
        try:
            return work(self._connected())
        except (psycopg.OperationalError, psycopg.InterfaceError):
            is_broken = self._connection is not None and self._connection.closed
            if not was_connected or not is_broken:
                raise
        self._disconnect()
        return work(self._connected())

    def _connected(self) -> Connection:
        if self._connection is None:
            self._connection = self._connect()
        return self._connection

    def _connect(self) -> Connection:
        import psycopg

        try:
            connection = psycopg.connect(autocommit=True, **self._options)
        except psycopg.OperationalError:
            self._unreachable_at = time.monotonic()
            raise
        try:
            connection.execute(_SESSION)
            row = connection.execute("SELECT to_regclass('cloudware_webhooks')").fetchone()
            if row == (None,):
                with connection.transaction():
                    # two who make it at once would collide, `IF NOT EXISTS` or not
                    connection.execute("SELECT pg_advisory_xact_lock(%s)", (_SCHEMA_LOCK,))
                    connection.execute(_SCHEMA)
            self._sit_down(connection)
        except BaseException:
            connection.close()
            raise
        return connection

    def _disconnect(self) -> None:
        if self._connection is not None:
            self._connection.close()
        self._connection = None
        self._next_look_for_dead = time.monotonic() + _LOOK_FOR_DEAD_PERIOD

    # ------------------------------------------------------------ seats

    def _sit_down(self, connection: Connection) -> None:
        """Take the old seat or else the first free one, and free what its last holder left behind."""
        old_seats = [self._seat] if self._seat else []
        for seat in itertools.chain(old_seats, itertools.count(1)):
            if connection.execute(f"SELECT pg_try_advisory_lock({_TABLE}, %s)", (seat,)).fetchone() == (True,):
                held = list(self._held)
                with connection.transaction():
                    _free(connection, seat, but=held)
                    # the old session may live on at the server: what it held is still in our hands
                    connection.execute(
                        "UPDATE cloudware_webhooks SET claimed_by = %s WHERE claimed_by = %s AND key = ANY(%s)",
                        (seat, self._seat, held),
                    )
                self._seat = seat
                return

    def _stand_up(self) -> None:
        """Leave the seat at once: the server notices an ended connection only a moment later."""
        import psycopg

        if self._connection is not None:
            # a connection that is broken has left it already, or will
            with contextlib.suppress(psycopg.Error):
                self._connection.execute("SELECT pg_advisory_unlock_all()")

    def _free_if_dead(self, connection: Connection, seat: int) -> bool:
        """Free the claims of a seat if nobody sits there, within a transaction, which holds the seat till its end."""
        row = connection.execute(f"SELECT pg_try_advisory_xact_lock({_TABLE}, %s)", (seat,)).fetchone()
        if row != (True,):
            return False
        _free(connection, seat, but=[])
        return True

    def _free_the_dead(self, connection: Connection) -> None:
        if time.monotonic() < self._next_look_for_dead:
            return
        self._next_look_for_dead = time.monotonic() + _LOOK_FOR_DEAD_PERIOD
        rows = connection.execute(
            "SELECT DISTINCT claimed_by FROM cloudware_webhooks WHERE claimed_by IS NOT NULL AND claimed_by <> %s",
            (self._seat,),
        ).fetchall()
        for (seat,) in rows:
            with connection.transaction():
                self._free_if_dead(connection, seat)

    def _purge(self, connection: Connection) -> None:
        if time.monotonic() < self._next_purge:
            return
        self._next_purge = time.monotonic() + _PURGE_PERIOD
        connection.execute(
            "DELETE FROM cloudware_webhooks WHERE handled_at < statement_timestamp() - make_interval(secs => %s)",
            (self._horizon,),
        )


def _free(connection: Connection, seat: int, but: list[bytes]) -> None:
    """End every claim of a seat: what is only claimed is as unseen, what is recorded is free."""
    of_seat = (seat, but)
    connection.execute(
        "DELETE FROM cloudware_webhooks WHERE claimed_by = %s AND body IS NULL AND NOT key = ANY(%s)", of_seat
    )
    connection.execute(
        "UPDATE cloudware_webhooks SET claimed_by = NULL WHERE claimed_by = %s AND NOT key = ANY(%s)", of_seat
    )


def _cut_off(connection: Connection) -> None:
    """Put nothing in the place of a parent's socket: while it is open here the server thinks the parent alive."""
    with contextlib.suppress(Exception):
        nothing = os.open(os.devnull, os.O_RDWR)
        os.dup2(nothing, connection.fileno(), inheritable=False)
        os.close(nothing)


def _read_conninfo(conninfo: object) -> dict[str, Any]:
    try:
        import psycopg
        import psycopg.conninfo
    except ImportError as error:
        is_there = not isinstance(error, ModuleNotFoundError)
        needed = "libpq, PostgreSQL's own library" if is_there else "psycopg"
        cure = "psycopg[binary]" if is_there else "cloudware-async[postgresql]"
        raise ImportError(f"PostgreSQLStore needs {needed}: pip install '{cure}'", name=error.name) from error
    if isinstance(conninfo, str):
        try:
            return {**_CONNECTION_OPTIONS, **psycopg.conninfo.conninfo_to_dict(conninfo)}
        except psycopg.ProgrammingError:
            pass
    # outside the `except`: what libpq says may quote the password
    raise ConfigurationError("PostgreSQLStore takes a URL or a connection string, like 'postgresql:///texts'")
