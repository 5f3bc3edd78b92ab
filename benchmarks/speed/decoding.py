"""A page of messages: CPU of reading it into models, and the memory that the messages hold.

    python benchmarks/speed/decoding.py cpu SIZE ROUNDS      prints seconds of CPU a page, reader by reader
    python benchmarks/speed/decoding.py held KIND            prints the bytes that a message holds

Rule 1. Every page has other messages, and each reader gets the same pages, as bytes, in turn.
Rule 2. What is ours is all that happens to a body on its way to the user: the page's link and the rest too.
Rule 3. The floor is `json.loads`, and the two timestamps of each message read by `datetime.fromisoformat`.
Rule 4. The pydantic model is the plainest that says the same: types, an alias, optional fields; it drops what it does
        not know, where ours keeps it. It reads the bytes by itself, which is its fastest way.
"""

from __future__ import annotations

import datetime as dt
import gc
import json
import sys
import time
import tracemalloc
from typing import TYPE_CHECKING, Any

from cores import MEASURED, ask, pin
from messages import make_page
from rows import Row, make_row

if TYPE_CHECKING:
    from collections.abc import Callable

# how many pages are read before the clock is looked at again
MESSAGES_A_ROUND = 5_000
MESSAGES_HELD = 20_000


# ----------------------------------------------------------------------------------------------------
# the readers: bytes of a page to its messages


def make_ours() -> Callable[[bytes], Any]:
    """This package, from the answer to the page."""
    from cloudware_async._wire import Answer, Place, messages_request, read_base_url, read_page, read_token

    base = read_base_url("http://127.0.0.1:1/v1")
    place = Place()
    request = messages_request(base, read_token("token"), place)
    headers = [(b"Content-Type", b"application/json")]
    return lambda body: read_page(Answer(200, headers, body), request, base, place).messages  # type: ignore[union-attr]


def make_pydantic() -> Callable[[bytes], Any]:
    """A model of pydantic (rule 4)."""
    from pydantic import BaseModel, Field

    class Sms(BaseModel):
        type: str
        from_: str = Field(alias="from")
        to: str
        message: str
        message_id: str | None = None
        created_at: dt.datetime | None = None
        sent_at: dt.datetime | None = None

    class Listing(BaseModel):
        query: str | None = None
        data: list[Sms]
        next_page: str | None = None

    # the annotations are strings, and `Sms` is known only here
    Listing.model_rebuild(_types_namespace={"Sms": Sms, "dt": dt})
    return lambda body: Listing.model_validate_json(body).data


def read_least(body: bytes) -> Any:
    """The floor (rule 3)."""
    read = dt.datetime.fromisoformat
    return [(*sms.values(), read(sms["created_at"]), read(sms["sent_at"])) for sms in json.loads(body)["data"]]


def make_tuples(body: bytes) -> Any:
    """The least that can hold the same."""
    read = dt.datetime.fromisoformat
    return [
        (*list(sms.values())[:5], read(sms["created_at"]), read(sms["sent_at"])) for sms in json.loads(body)["data"]
    ]


# ----------------------------------------------------------------------------------------------------
# in a process of its own


def measure_cpu(size: int, rounds: int) -> dict[str, list[float]]:
    """Read pages, reader by reader, round by round."""
    readers: dict[str, Callable[[bytes], Any]] = {
        "ours": make_ours(),
        "json.loads": json.loads,
        "least": read_least,
        "pydantic": make_pydantic(),
    }
    took: dict[str, list[float]] = {name: [] for name in readers}
    count = MESSAGES_A_ROUND // size
    # from the second round on: the first warms up
    for turn in range(rounds + 1):
        bodies = [make_page((turn * count + index) * size, size) for index in range(count)]
        names = list(readers)[:: 1 if turn % 2 else -1]
        for name in names:
            read = readers[name]
            gc.collect()
            began = time.process_time()
            for body in bodies:
                read(body)
            if turn:
                took[name].append((time.process_time() - began) / count)
    return took


def measure_held(kind: str) -> float:
    """Hold messages, and nothing else of their pages."""
    read = {"ours": make_ours, "pydantic": make_pydantic, "tuple": lambda: make_tuples}[kind]()
    size = 100
    # what is made once is no message's
    read(make_page(0, size))
    gc.collect()
    tracemalloc.start()
    held: list[Any] = []
    for first in range(size, size + MESSAGES_HELD, size):
        held.extend(read(make_page(first, size)))
    gc.collect()
    total, _ = tracemalloc.get_traced_memory()
    # the list's own are nobody's
    return (total - sys.getsizeof(held)) / len(held)


# ----------------------------------------------------------------------------------------------------
# rows


def rows(rounds: int) -> tuple[list[Row], dict[str, Any]]:
    """Measure, and make the rows."""
    found = []
    details: dict[str, Any] = {}
    for size in (100, 1_000):
        cpu = ask("decoding.py", "cpu", size, rounds)
        details[f"decode a page of {size:,}"] = cpu
        found.append(
            make_row(
                f"decode-{size}",
                f"decode a page of {size:,} into models",
                "`json.loads` of it",
                "CPU",
                3.0,
                ours=cpu["ours"],
                theirs=cpu["json.loads"],
                floor=("`json.loads` and the timestamps", cpu["least"]),
            )
        )
    held = {kind: [ask("decoding.py", "held", kind)] for kind in ("ours", "pydantic", "tuple")}
    details["bytes a message"] = held
    found.append(
        make_row(
            "held",
            "bytes a message holds",
            "the same in a pydantic v2 model",
            "bytes",
            0.50,
            ours=held["ours"],
            theirs=held["pydantic"],
            floor=("a tuple of the same", held["tuple"]),
        )
    )
    return found, details


if __name__ == "__main__":
    pin(MEASURED)
    if sys.argv[1] == "cpu":
        print(json.dumps(measure_cpu(int(sys.argv[2]), int(sys.argv[3]))))
    else:
        print(json.dumps(measure_held(sys.argv[2])))
