"""What the sandbox remembers: every text, sent and received, in SQLite.

Rule 1: a text is added once and never changed, and ids only grow: texts that come in move no other.
Rule 2: any thread may call; a lock lets one at a time to the connection.
Rule 3: the database is opened when it is first needed. In memory it lasts as long as its `Storage`; `close()`
        lets go of a file, and the next call opens it again.
"""

from __future__ import annotations

import contextlib
import secrets
import sqlite3
import threading
import weakref
from datetime import UTC, datetime
from typing import TYPE_CHECKING, TypedDict, final

if TYPE_CHECKING:
    import os
    from collections.abc import Mapping

# A text as a listing and a webhook tell it (vendor page, "Get a list of received messages")
Record = TypedDict(
    "Record",
    {
        "type": str,
        "from": str,
        "to": str,
        "message": str,
        "message_id": str,
        "created_at": str,
        "sent_at": str,
    },
)

_TABLE = """
CREATE TABLE IF NOT EXISTS messages (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    type TEXT NOT NULL,
    "from" TEXT NOT NULL,
    "to" TEXT NOT NULL,
    message TEXT NOT NULL,
    created_at TEXT NOT NULL
)"""
# Ids are ten digits or more, as in the vendor's example, and begin anywhere: two sandboxes hardly share one
_FIRST_ID = """
INSERT INTO sqlite_sequence SELECT 'messages', ? WHERE NOT EXISTS (SELECT 1 FROM sqlite_sequence)"""
_ADD = 'INSERT INTO messages (type, "from", "to", message, created_at) VALUES (?, ?, ?, ?, ?)'
_LIST = """
SELECT type, "from", "to", message, CAST(id AS TEXT) AS message_id, created_at, created_at AS sent_at
FROM messages WHERE {} ORDER BY id LIMIT ?"""

_NUMBER_FILTERS = {
    # the end of the text that is ours
    "device_id": """ltrim(CASE type WHEN 'message_sent' THEN "from" ELSE "to" END, '+') = ?""",
    "phone": """? IN (ltrim("from", '+'), ltrim("to", '+'))""",
    "to": """ltrim("to", '+') = ?""",
    "from": """ltrim("from", '+') = ?""",
}
_TEXT_FILTER = "instr(message, ?) > 0"
FILTERS = frozenset({*_NUMBER_FILTERS, "message"})


@final
class Storage:
    """The texts of one sandbox, oldest first.

    Args:
        database: a file, made if it is not there; None keeps them in memory.
    """

    def __init__(self, database: str | os.PathLike[str] | None) -> None:
        self._database = database
        self._lock = threading.Lock()
        self._connection: sqlite3.Connection | None = None

    def open(self) -> None:
        """Open the database now, so that one that cannot be opened is heard of now.

        Raises:
            sqlite3.Error: it cannot be opened, or is no SQLite database.
        """
        with self._lock:
            self._connect()

    def close(self) -> None:
        """Let go of the file; texts in memory are kept."""
        with self._lock:
            if self._connection is not None and self._database is not None:
                self._connection.close()
                self._connection = None

    def add(self, *, kind: str, from_: str, to: str, message: str) -> Record:
        """Keep one text, of the type `kind`.

        Raises:
            UnicodeEncodeError: it holds half of a surrogate pair.
        """
        created_at = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        with self._lock:
            message_id = self._connect().execute(_ADD, (kind, from_, to, message, created_at)).lastrowid
        return {
            "type": kind,
            "from": from_,
            "to": to,
            "message": message,
            "message_id": str(message_id),
            "created_at": created_at,
            "sent_at": created_at,
        }

    def listing(
        self,
        *,
        after: int = 0,
        limit: int = -1,
        filters: Mapping[str, str] | None = None,
        list_sent: bool = True,
    ) -> list[Record]:
        """List texts, the oldest first.

        Args:
            after: only those with a greater id.
            limit: the most to list; -1 for all.
            filters: by the names in `FILTERS`. Numbers are compared without a `+` before them; `phone` is
                either end, `device_id` the one that is ours; `message` is a part of the text.
            list_sent: whether to list sent texts too.
        """
        conditions = ["id > ?"]
        values: list[str | int] = [after]
        if not list_sent:
            conditions.append("type <> 'message_sent'")
        for name, value in (filters or {}).items():
            conditions.append(_NUMBER_FILTERS.get(name, _TEXT_FILTER))
            # a `+` that was not percent-encoded arrives as a space
            values.append(value.lstrip("+ ") if name in _NUMBER_FILTERS else value)
        with self._lock:
            rows = self._connect().execute(_LIST.format(" AND ".join(conditions)), [*values, limit])
            return rows.fetchall()

    def _connect(self) -> sqlite3.Connection:
        if self._connection is None:
            database = ":memory:" if self._database is None else self._database
            connection = sqlite3.connect(database, isolation_level=None, check_same_thread=False)
            with contextlib.ExitStack() as on_error:
                on_error.callback(connection.close)
                connection.row_factory = _read_row
                # a commit then waits for no disk; only a crash of the machine could lose the latest texts
                connection.execute("PRAGMA journal_mode = WAL")
                connection.execute("PRAGMA synchronous = NORMAL")
                connection.execute(_TABLE)
                connection.execute(_FIRST_ID, [1_000_000_000 + secrets.randbelow(1_000_000_000_000)])
                on_error.pop_all()
            weakref.finalize(self, _close, connection, self._lock)
            self._connection = connection
        return self._connection


def _close(connection: sqlite3.Connection, lock: threading.Lock) -> None:
    # a server that nobody stopped may be at it when the interpreter ends
    with lock:
        connection.close()


def _read_row(cursor: sqlite3.Cursor, row: tuple[str, ...]) -> dict[str, str]:
    return {column[0]: value for column, value in zip(cursor.description, row, strict=True)}
