"""Receivers that are killed: run as a script, by `test_webhooks_killed.py`.

It imports everything once. For each line on standard input it forks a receiver, which serves the inherited socket with
uvicorn, and prints its process id. When standard input ends, so does it, and its receivers with it. Until then none is
waited for, so that no process id comes to belong to somebody else.

A receiver's handler writes to the ledger: `begin ID`, then `end ID` or, now and then, `fail ID`; and `marked ID`
follows when the store has committed that the message was handled. Each line ends with the process id.
"""

from __future__ import annotations

import logging
import os
import random
import signal
import socket
import sys
import time
from pathlib import Path
from typing import Any

import uvicorn
from webhook_cases import NEW

from cloudware_async import Message
from cloudware_async.webhooks import PostgreSQLStore, Receiver, SQLiteStore
from cloudware_async.webhooks._payload import parse
from cloudware_async.webhooks.asgi import WebhookApp

# of all calls of the handler
FAILING = 0.02
LINGERING = 0.05


class Ledger:
    """A file to which every write is one line, whole and at once."""

    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)

    def write(self, event: str, name: str) -> None:
        os.write(self._file, f"{event} {name} {os.getpid()}\n".encode())


def watch(store: Any, ledger: Ledger) -> Any:
    """Have the store write down what it has committed as handled."""
    names: dict[bytes, str] = {}
    take, finish = store.take, store.finish

    def watched_take(most: int) -> Any:
        taken = take(most)
        names.update((each.key, parse(each.body).message_id or "") for each in taken)
        return taken

    def watched_finish(key: bytes) -> None:
        finish(key)
        ledger.write("marked", names.pop(key))

    store.take, store.finish = watched_take, watched_finish
    return store


def serve(listener: socket.socket, kind: str, where: str, ledger: Ledger) -> None:
    chance = random.Random(os.getpid())

    def handle(sms: Message) -> None:
        name = sms.message_id or ""
        ledger.write("begin", name)
        # work enough that a kill finds some of it under way
        time.sleep(0.2 if chance.random() < LINGERING else 0)
        if chance.random() < FAILING:
            ledger.write("fail", name)
            raise RuntimeError("now and then")
        ledger.write("end", name)

    store = watch(SQLiteStore(where) if kind == "SQLite" else PostgreSQLStore(where), ledger)
    app = WebhookApp(Receiver(handle, secret=NEW, store=store))
    config = uvicorn.Config(app, ws="none", log_config=None, access_log=False, timeout_keep_alive=60)
    uvicorn.Server(config).run([listener])


def main(number: str, kind: str, where: str, ledger: str) -> None:
    listener = socket.socket(fileno=int(number))
    children: list[int] = []
    try:
        for _ in sys.stdin:
            child = os.fork()
            if child == 0:
                os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
                children.clear()
                serve(listener, kind, where, Ledger(Path(ledger)))
                return
            children.append(child)
            sys.stdout.write(f"{child}\n")
            sys.stdout.flush()
    finally:
        for child in children:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)


if __name__ == "__main__":
    # every call that failed is in the ledger
    logging.getLogger("cloudware_async.webhooks").setLevel(logging.CRITICAL)
    # an end by SIGTERM is an end like any other
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    main(*sys.argv[1:])
