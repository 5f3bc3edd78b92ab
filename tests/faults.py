"""The table of faults: what the server does, and how a send and a listing must end. Data only: it knows no client.

Rule 1. The calls are made with `timeout=fault.timeout` and `RetryPolicy(max_attempts=MAX_ATTEMPTS, base_delay=0.01,
        throttled_delay=0.01)`, by a client of its own for each run, at `FaultServer.base_url`.
Rule 2. A whole answer's status decides about a send, and its body is asked only about a 2xx. An answer that is not
        whole tells nothing, nor does a 2xx that cannot be read: unknown. A read never may have been sent.
Rule 3. A fault strikes once, and the server is healthy after it. One that a send or a listing retries is here a
        second time as NAME-always, and never stops.
Rule 4. `warm_up`: one healthy send comes first on the same client, and the fault strikes the connection it leaves.
        Before each further call on a client comes `server.wait_until_settled()`: bytes or an end that arrive
        between a client's look at its connection and its write cannot be told from an answer, by any client.
Rule 5. The id `STRAY` is in answers that belong to no request: nothing that a client returns may hold it.
Rule 6. Where the rules leave a choice, `also` and `errors` hold every truthful end, and a line says why.

To add one: `*strikes("its-name", (ReadRequest(), Send(b"..."), Close()), BROKEN)` in the list that fits. Where the
act needs a good body, which differs for a send and a listing: `lambda good: (ReadRequest(), Send(answer(good)))`.
"""

from __future__ import annotations

import functools
import gzip
import json
import operator
import zlib
from collections.abc import Callable, Iterator
from typing import Literal

from attrs import evolve, frozen
from fault_server import (
    HEALTHY,
    Act,
    Answer,
    AwaitRequest,
    Close,
    Door,
    Drop,
    Hang,
    Healthy,
    Pause,
    ReadHead,
    ReadRequest,
    ReadSome,
    Repeat,
    Reset,
    Script,
    Send,
    Step,
    Trickle,
    Trust,
    answer,
    chunks,
    head,
    listing,
    receipt,
)

TIMEOUT = 1.0  # not more, or `Retry-After: 1` fits into it
MAX_ATTEMPTS = 3
SEND_CAP = 1 << 20
PAGE_CAP = 32 << 20
STRAY = "stray"

Outcome = Literal["accepted", "not_sent", "refused", "rejected", "unknown", "failed"]
"""How a call ends. All but the first are errors; `failed` is any error of a read, which is never in doubt."""

HEALTHY_AFTER: tuple[Outcome, ...] = ("accepted",)
IN_DOUBT: tuple[Outcome, ...] = ("accepted", "unknown")  # the next send may meet what is left on the connection


@frozen
class Verdict:
    """How one kind of call must end."""

    outcome: Outcome
    errors: tuple[str, ...] = ()  # the names of the classes that may be raised
    also: tuple[Outcome, ...] = ()  # ends that are truthful, too
    retried: bool | None = False  # by default; None: as the client likes
    most_requests: int = 1  # that this call may make the server receive wholly

    @property
    def outcomes(self) -> frozenset[Outcome]:
        """Every end that is truthful."""
        return frozenset((self.outcome, *self.also))

    def allows(self, error: str | None, *, may_have_been_sent: bool = False) -> bool:
        """Whether the call may return (no error) or raise this class with this mark."""
        if error is None:
            return "accepted" in self.outcomes
        told: frozenset[Outcome] = frozenset(
            ("unknown",) if may_have_been_sent else ("not_sent", "refused", "rejected", "failed")
        )
        return error in self.errors and bool(told & self.outcomes)


@frozen(kw_only=True)
class Fault:
    """One fault, and what must hold under it. `None` for a verdict: this kind of call is not concerned."""

    name: str
    send: Verdict | None
    listing: Verdict | None
    send_script: Script
    listing_script: Script
    after: tuple[Outcome, ...] = HEALTHY_AFTER  # how the next send on this client may end; (): the fault goes on
    warm_up: bool = False
    message: str = "Hello"
    door: Door = "open"
    trust: Trust | None = None  # None: no TLS

    @property
    def timeout(self) -> float:
        """Of each call, in seconds: long where time is no matter, for a busy machine may stand still for a second."""
        may_time_out = any(TIME in verdict.errors for verdict in (self.send, self.listing) if verdict is not None)
        must_not_wait = self.name.endswith(("-1-second", "-padded-1"))
        return TIMEOUT if may_time_out or must_not_wait else 10 * TIMEOUT


# ----------------------------------------------------------------------------------------------------------
# Verdicts

CONNECTION, TIME, RESPONSE, SERVER = (
    "APIConnectionError",
    "APITimeoutError",
    "APIResponseError",
    "ServerError",
)
STATUS_ERRORS = {
    400: "BadRequestError",
    401: "AuthenticationError",
    403: "PermissionDeniedError",
    404: "NotFoundError",
    409: "ConflictError",
    422: "UnprocessableEntityError",
    429: "RateLimitError",
}
TOO_EARLY, TOO_MANY, UNAVAILABLE = 425, 429, 503

ACCEPTED = Verdict("accepted")
BROKEN = Verdict("unknown", (CONNECTION,))
TIMED_OUT = Verdict("unknown", (TIME,))
UNREADABLE = Verdict("unknown", (RESPONSE,))
READ_OR_NOT = Verdict("accepted", (RESPONSE,), also=("unknown",))
TAKEN_OR_BROKEN = Verdict("accepted", (CONNECTION,), also=("unknown",))
BROKEN_OR_UNREADABLE = Verdict("unknown", (CONNECTION, RESPONSE))
BROKEN_OR_TIMED_OUT = Verdict("unknown", (CONNECTION, TIME))
NOT_CONNECTED = Verdict("not_sent", (CONNECTION,), retried=True)
NOT_TRUSTED = Verdict("not_sent", (CONNECTION,))
NEVER_CONNECTED = Verdict("not_sent", (TIME,))

PAGE_UNREADABLE = Verdict("failed", (RESPONSE,))
PAGE_FOREIGN = Verdict("failed", ("PaginationError",))


def reading(send: Verdict) -> Verdict:
    """How a listing ends where a send ends so: a broken connection is tried again, time that is up is not."""
    outcome: Outcome = "accepted" if send.outcome == "accepted" else "failed"
    other: Outcome = "failed" if send.outcome == "accepted" else "accepted"
    is_open = bool(send.errors) and "accepted" in send.outcomes
    retried = send.retried
    if CONNECTION in send.errors:
        retried = True if send.errors == (CONNECTION,) and not is_open else None
    return evolve(send, outcome=outcome, also=(other,) if is_open else (), retried=retried)


def status_error(status: int) -> str:
    """The class that this status is raised as."""
    return STATUS_ERRORS.get(status, SERVER if status // 100 == 5 else "APIStatusError")


def status_of_send(status: int) -> Verdict:
    """How a send ends on this status, without `Retry-After`."""
    error = (status_error(status),)
    if status in (TOO_EARLY, TOO_MANY):
        return Verdict("refused", error, retried=True)
    if 400 <= status < 500 and status not in (408, 409):
        return Verdict("rejected", error)
    return Verdict("unknown", error)


def status_of_listing(status: int) -> Verdict:
    """How a listing ends on this status, without `Retry-After`."""
    retried = status in (408, TOO_EARLY, TOO_MANY) or status // 100 == 5
    return Verdict("failed", (status_error(status),), retried=retried)


def once(verdict: Verdict, *, is_read: bool) -> Verdict:
    """How the call ends if only its first attempt is struck."""
    first = int(is_read)
    if verdict.retried:
        return Verdict("accepted", retried=True, most_requests=first + 1)
    if verdict.retried is None:
        return evolve(verdict, also=(*verdict.also, "accepted"), most_requests=first + 1)
    return evolve(verdict, most_requests=1 if verdict.outcome == "accepted" else first)


def always(verdict: Verdict, *, is_read: bool) -> Verdict:
    """How the call ends if each attempt is struck."""
    attempts = 1 if verdict.retried is False else MAX_ATTEMPTS
    return evolve(verdict, most_requests=attempts if is_read else 0)


# ----------------------------------------------------------------------------------------------------------
# Faults out of acts

CHUNKED = (b"Content-Type: application/json", b"Transfer-Encoding: chunked")
RECEIPT = receipt("good")
LISTING = listing("good")


def stray(good: bytes) -> bytes:
    """The good body under the id that nobody may ever see."""
    return good.replace(b'"good"', b'"%s"' % STRAY.encode())


def strikes(
    name: str,
    act: Act | Callable[[bytes], Act],
    send: Verdict,
    page: Verdict | None = None,
    *,
    is_read: bool = True,
    kept_alive: bool = False,
    after: tuple[Outcome, ...] = HEALTHY_AFTER,
    message: str = "Hello",
    trust: Trust | None = None,
) -> Iterator[Fault]:
    """The act as a fault that strikes once and, if anything retries it, as one that always does.

    `is_read`: whether the act reads a send wholly. `kept_alive`: also as the second exchange of a connection.
    """
    on_send = act if isinstance(act, tuple) else act(RECEIPT)
    on_listing = act if isinstance(act, tuple) else act(LISTING)
    page = page or reading(send)
    fault = Fault(
        name=name,
        send=once(send, is_read=is_read),
        listing=once(page, is_read=True),
        send_script=Script((on_send,)),
        listing_script=Script((on_listing,)),
        after=after,
        message=message,
        trust=trust,
    )
    yield fault
    if kept_alive:
        yield evolve(
            fault,
            name=f"kept-alive-{name}",
            warm_up=True,
            send_script=Script((HEALTHY, on_send)),
            listing_script=Script((HEALTHY, on_listing)),
        )
    if send.retried or page.retried:
        yield evolve(
            fault,
            name=f"{name}-always",
            send=always(send, is_read=is_read),
            listing=always(page, is_read=True),
            send_script=Script(then=on_send),
            listing_script=Script(then=on_listing),
            after=(),
        )


def answers(
    name: str,
    make: Callable[[bytes], bytes],
    send: Verdict,
    page: Verdict | None = None,
    *,
    after: tuple[Outcome, ...] = HEALTHY_AFTER,
) -> Iterator[Fault]:
    """The bytes made out of a good body as the answer to a request; the connection stays open."""
    yield from strikes(name, lambda good: (ReadRequest(), Send(make(good))), send, page, after=after)


def says(name: str, payload: bytes, send: Verdict, page: Verdict | None = None) -> Iterator[Fault]:
    """The bytes as the answer to a request, and then a clean end."""
    yield from strikes(name, (ReadRequest(), Send(payload), Close()), send, page)


def bodies(name: str, body: bytes, send: Verdict, page: Verdict = PAGE_UNREADABLE) -> Iterator[Fault]:
    """A whole 200 with this body, for both kinds of call."""
    yield from answers(f"body-{name}", lambda _: answer(body), send, page)


def padded(good: bytes, size: int) -> bytes:
    """The body filled up with blanks to this size."""
    return good + b" " * (size - len(good))


def chunked(good: bytes) -> bytes:
    """A whole answer in two chunks."""
    return head(200, *CHUNKED) + chunks(half(good), good[len(good) // 2 :]) + b"0\r\n\r\n"


def half(data: bytes) -> bytes:
    """The first half."""
    return data[: len(data) // 2]


# ----------------------------------------------------------------------------------------------------------
# Stages: the connection ends at each of them in each way

STATUS_LINE = b"HTTP/1.1 200 OK\r\n"


def half_body(good: bytes) -> bytes:
    """A whole head and half the body that it announces."""
    return answer(good)[: -len(good) // 2]


UNREAD_STAGES: dict[str, Act] = {
    "request-begun": (AwaitRequest(),),
    "half-request": (ReadSome(100),),
    "request-head": (ReadHead(),),
}
ANSWER_STAGES: dict[str, Callable[[bytes], bytes]] = {
    "half-status-line": lambda _: half(STATUS_LINE),
    "status-line": lambda _: STATUS_LINE,
    "half-headers": lambda good: (
        STATUS_LINE + half(b"Content-Type: application/json\r\nContent-Length: %d" % len(good))
    ),
    "headers": lambda good: answer(good).removesuffix(good),
    "half-body": half_body,
    "half-chunk": lambda good: head(200, *CHUNKED) + b"%x\r\n%s" % (len(good), half(good)),
    "last-chunk-missing": lambda good: head(200, *CHUNKED) + chunks(half(good), good[len(good) // 2 :]),
    "end-of-chunks-missing": lambda good: head(200, *CHUNKED) + chunks(good) + b"0\r\n",
}
ENDS: dict[str, tuple[Step, Verdict]] = {
    "close": (Close(), BROKEN),
    "reset": (Reset(), BROKEN),
    "hang": (Hang(), TIMED_OUT),
}


def stages() -> Iterator[Fault]:
    """Every stage with every end, on a fresh connection and on a kept-alive one."""
    for end_name, (end, verdict) in ENDS.items():
        for stage, act in UNREAD_STAGES.items():
            yield from strikes(f"{stage}-{end_name}", (*act, end), verdict, is_read=False, kept_alive=True)
        yield from strikes(f"request-read-{end_name}", (ReadRequest(), end), verdict, kept_alive=True)
        for stage, make in ANSWER_STAGES.items():
            yield from strikes(f"{stage}-{end_name}", _ending(make, end), verdict, kept_alive=True)


def _ending(make: Callable[[bytes], bytes], end: Step) -> Callable[[bytes], Act]:
    return lambda good: (ReadRequest(), Send(make(good)), end)


# ----------------------------------------------------------------------------------------------------------
# Other ways for a connection to end

# A reset at accept may reach the client while it connects, while it writes, or after: only the client can tell.
RESET_AT_ACCEPT = Verdict("unknown", (CONNECTION,), also=("not_sent",), retried=None)
# On Linux what was received can be read after a reset; elsewhere it may be gone.
WHOLE_THEN_RESET = TAKEN_OR_BROKEN


def door(name: Door, verdict: Verdict) -> Fault:
    """No connection is ever made."""
    never = evolve(verdict, most_requests=0)
    nothing = Script()
    return Fault(
        name=f"door-{name}",
        send=never,
        listing=evolve(never, outcome="failed"),
        send_script=nothing,
        listing_script=nothing,
        after=(),
        door=name,
    )


def idle(name: str, *extra: Step) -> Fault:
    """The warm-up is answered, and its connection ends before the call that counts, which needs a new one."""
    script = Script(((ReadRequest(), Healthy(), *extra),))
    return Fault(
        name=f"idle-{name}",
        send=ACCEPTED,
        listing=ACCEPTED,
        send_script=script,
        listing_script=script,
        warm_up=True,
    )


ENDINGS: list[Fault] = [
    door("refused", NOT_CONNECTED),
    door("full", NEVER_CONNECTED),
    door("nameless", NOT_CONNECTED),
    *strikes("accept-close", (Close(),), BROKEN, is_read=False),
    *strikes("accept-reset", (Reset(),), RESET_AT_ACCEPT, is_read=False),
    *strikes("accept-hang", (Hang(),), TIMED_OUT, is_read=False),
    *strikes(
        "whole-body-close",
        lambda good: (ReadRequest(), Send(answer(good)), Close()),
        ACCEPTED,
        kept_alive=True,
    ),
    *strikes(
        "whole-body-reset",
        lambda good: (ReadRequest(), Send(answer(good)), Reset()),
        WHOLE_THEN_RESET,
        kept_alive=True,
    ),
    *strikes(
        "whole-body-hang",
        lambda good: (ReadRequest(), Send(answer(good)), Hang()),
        ACCEPTED,
        kept_alive=True,
        after=IN_DOUBT,
    ),
    *strikes("whole-chunks-close", lambda good: (ReadRequest(), Send(chunked(good)), Close()), ACCEPTED),
    idle("close", Close()),
    idle("reset", Pause(0.1), Reset()),  # by then the warm-up has been read
    idle("408-close", Send(answer(b"", 408, b"Connection: close")), Close()),
    idle("receipt-close", Send(answer(stray(RECEIPT))), Close()),
    idle("garbage-close", Send(b"\x15\x03\x03\x00\x02\x01\x00"), Close()),
]


# ----------------------------------------------------------------------------------------------------------
# Statuses

NO = b'{"error": "no"}'
FOREIGN = b"Location: http://foreign.invalid/v1/sms/send"
OWN = b"Location: {base_url}/elsewhere"


def status(code: int, body: bytes = NO, *headers: bytes, name: str = "") -> Iterator[Fault]:
    """This status as a whole answer."""
    yield from strikes(
        f"status-{code}{name}",
        (ReadRequest(), Answer(body, code, headers)),
        status_of_send(code),
        status_of_listing(code),
    )


def success(code: int, send: Verdict, page: Verdict | None = None) -> Iterator[Fault]:
    """This status with a good body."""
    yield from answers(f"status-{code}", lambda good: answer(good, code), send, page)


# The body of a 205 is forbidden by HTTP and readable all the same.
FORBIDDEN_BODY = READ_OR_NOT
# The protocol took the connection away, or the status is what it is: both are true of a 101.
SWITCHED = Verdict("unknown", (CONNECTION, "APIStatusError", RESPONSE))
# No such status exists: it may be an odd status or a broken protocol.
NO_STATUS = Verdict("unknown", ("APIStatusError", CONNECTION, RESPONSE))

STATUSES: list[Fault] = [
    *(fault for code in (200, 201, 202, 203, 206, 226) for fault in success(code, ACCEPTED)),
    *answers("status-204", lambda _: head(204), UNREADABLE),
    *answers("status-204-with-length", lambda good: head(204, b"Content-Length: %d" % len(good)), UNREADABLE),
    *answers("status-204-with-body", lambda good: answer(good, 204), UNREADABLE, after=IN_DOUBT),
    *success(205, FORBIDDEN_BODY),
    *answers("status-205-empty", lambda _: answer(b"", 205), UNREADABLE),
    *answers("status-101", lambda _: head(101, b"Upgrade: websocket", b"Connection: Upgrade"), SWITCHED),
    *says("status-101-then-receipt", head(101) + answer(stray(RECEIPT)), SWITCHED),
    *(fault for code in range(300, 309) for fault in status(code, NO, FOREIGN)),
    *(fault for code in (301, 302, 303, 307, 308) for fault in status(code, NO, OWN, name="-own-host")),
    *status(307, NO, name="-nowhere"),
    *status(307, NO, b"Location: http://[", name="-malformed"),
    *status(302, RECEIPT, OWN, name="-with-receipt"),
    *(fault for code in (*range(400, 412), 413, 414, 415, 418, 421, 422, 423) for fault in status(code)),
    *(fault for code in (425, 426, 428, 429, 431, 451, 499) for fault in status(code)),
    *(fault for code in (*range(500, 506), 507, 508, 511, 520, 599) for fault in status(code)),
    *strikes("status-600", (ReadRequest(), Answer(NO, 600)), NO_STATUS),
    *strikes("status-999", (ReadRequest(), Answer(NO, 999)), NO_STATUS),
    *answers(
        "status-502-html",
        lambda _: answer(b"<h1>Bad Gateway</h1>", 502, content_type=b"Content-Type: text/html"),
        status_of_send(502),
        status_of_listing(502),
    ),
    *status(401, b"", name="-empty"),
    *status(400, RECEIPT, name="-with-receipt"),
    *status(500, RECEIPT, name="-with-receipt"),
    *status(429, b"\xff\xfe\x00", name="-with-garbage"),
    *status(408, NO, b"Connection: close", name="-close"),
    *status(400, b"[" * 100_000, name="-deep"),
    *status(401, NO, b"WWW-Authenticate: Bearer", name="-challenge"),
    *status(407, NO, b"Proxy-Authenticate: Basic", name="-challenge"),
    *status(426, NO, b"Upgrade: HTTP/2.0", b"Connection: Upgrade", name="-upgrade"),
]


def broken_status(code: int, *headers: bytes) -> Iterator[Fault]:
    """This status over an answer that breaks off: it is not a whole answer, so it refuses nothing."""
    whole = answer(NO, code, *headers)
    yield from says(f"status-{code}-half-body", whole[: -len(NO) // 2], BROKEN)
    yield from says(f"status-{code}-half-headers", whole[: whole.index(b"Content-Length") + 5], BROKEN)


BROKEN_STATUSES: list[Fault] = [
    *broken_status(400),
    *broken_status(429),
    *broken_status(503, b"Retry-After: 0"),
    *broken_status(500),
]


# ----------------------------------------------------------------------------------------------------------
# Retry-After

DATE = b"Date: Wed, 21 Oct 2015 07:28:00 GMT"
SAME = b"Retry-After: Wed, 21 Oct 2015 07:28:00 GMT"
HOUR_LATER = b"Retry-After: Wed, 21 Oct 2015 08:28:00 GMT"

RETRY_NOW: dict[str, tuple[bytes, ...]] = {
    "zero": (b"Retry-After: 0",),
    "zeros": (b"Retry-After: 00",),
    "padded": (b"Retry-After:  \t 0  ",),
    "date": (SAME, DATE),
}
TOO_LONG: dict[str, tuple[bytes, ...]] = {
    "1-second": (b"Retry-After: 1",),
    "padded-1": (b"Retry-After:  1 ",),
    "3600": (b"Retry-After: 3600",),
    "date-in-an-hour": (HOUR_LATER, DATE),
}
ABSENT: dict[str, tuple[bytes, ...]] = {
    "empty": (b"Retry-After:",),
    "word": (b"Retry-After: soon",),
    "negative": (b"Retry-After: -1",),
    "signed": (b"Retry-After: +1",),
    "exponent": (b"Retry-After: 1e3",),
    "not-a-number": (b"Retry-After: nan",),
    "infinity": (b"Retry-After: inf",),
    "fraction": (b"Retry-After: 0.5",),
    "hexadecimal": (b"Retry-After: 0x1",),
    "underscore": (b"Retry-After: 1_0",),
    "fullwidth": ("Retry-After: \N{FULLWIDTH DIGIT ONE}".encode(),),
    "superscript": (b"Retry-After: \xb2",),  # one that str.isdigit() takes and int() does not
    "date-without-date": (SAME,),
    "date-with-garbage-date": (SAME, b"Date: yesterday"),
    "malformed-date": (b"Retry-After: Wed, 99 Oct 2015 07:28:00 GMT", DATE),
}
# Two values: the first, the last or none may be taken. 5,000 digits are digits, and more than int() takes.
# A past date is a wait that is over, or nonsense. Other forms of a date are old HTTP, or none.
OPEN: dict[str, tuple[bytes, ...]] = {
    "twice": (b"Retry-After: 0", b"Retry-After: 3600"),
    "twice-the-same": (b"Retry-After: 0", b"Retry-After: 0"),
    "5000-digits": (b"Retry-After: " + b"9" * 5000,),
    "past-date": (b"Retry-After: Wed, 21 Oct 2015 06:28:00 GMT", DATE),
    "year-9999": (b"Retry-After: Fri, 31 Dec 9999 23:59:59 GMT", DATE),
    "obsolete-date": (b"Retry-After: Wednesday, 21-Oct-15 07:28:00 GMT", DATE),
    "date-with-offset": (b"Retry-After: Wed, 21 Oct 2015 08:28:00 +0100", DATE),
    "two-dates": (SAME, DATE, b"Date: Wed, 21 Oct 2015 06:28:00 GMT"),
}


def retry_after() -> Iterator[Fault]:
    """503 and 429 with each of them."""
    for code, error in ((UNAVAILABLE, SERVER), (TOO_MANY, STATUS_ERRORS[TOO_MANY])):
        at_once = Verdict("refused", (error,))
        for rows, send, page in (
            (RETRY_NOW, evolve(at_once, retried=True), None),
            (TOO_LONG, at_once, None),
            (ABSENT, status_of_send(code), status_of_listing(code)),
            (OPEN, Verdict(status_of_send(code).outcome, (error,), also=("refused",), retried=None), None),
        ):
            listed = page or reading(send)
            for name, headers in rows.items():
                yield from strikes(
                    f"retry-after-{code}-{name}",
                    (ReadRequest(), Send(answer(NO, code, *headers))),
                    send,
                    listed,
                )


RETRY_AFTERS: list[Fault] = [
    *retry_after(),
    # It says when, but not that it refused: only 429, 425 and 503 do.
    *status(408, NO, b"Retry-After: 0", name="-retry-after"),
    *status(409, NO, b"Retry-After: 0", name="-retry-after"),
    *status(413, NO, b"Retry-After: 0", name="-retry-after"),
    *status(500, NO, b"Retry-After: 0", name="-retry-after"),
    *status(502, NO, b"Retry-After: 0", name="-retry-after"),
    *status(425, NO, b"Retry-After: 0", name="-retry-after"),
    *status(307, NO, OWN, b"Retry-After: 0", name="-retry-after"),
    *answers(
        "retry-after-in-trailer",
        lambda _: (
            head(503, b"Transfer-Encoding: chunked", b"Trailer: Retry-After")
            + chunks(NO)
            + b"0\r\nRetry-After: 0\r\n\r\n"
        ),
        status_of_send(503),
        status_of_listing(503),
    ),
]


# ----------------------------------------------------------------------------------------------------------
# Interim answers

CONTINUE, PROCESSING, HINTS = head(100), head(102), head(103, b"Link: </style.css>; rel=preload")


def interim(code: int, head_of_it: bytes) -> Iterator[Fault]:
    """This interim answer before a good one, before none, and for ever."""
    yield from answers(f"interim-{code}-then-200", lambda good: head_of_it + answer(good), ACCEPTED)
    yield from says(f"interim-{code}-then-close", head_of_it, BROKEN)
    yield from strikes(f"interim-{code}-endless", (ReadRequest(), Repeat(head_of_it, pause=0.02)), TIMED_OUT)


INTERIM: list[Fault] = [
    *interim(100, CONTINUE),
    *interim(102, PROCESSING),
    *interim(103, HINTS),
    # Another interim status than the known ones is to be skipped, by HTTP; a client may not know that.
    *answers("interim-199-then-200", lambda good: head(199) + answer(good), TAKEN_OR_BROKEN),
    *answers("interim-mixed-then-200", lambda good: CONTINUE + HINTS + PROCESSING + answer(good), ACCEPTED),
    *answers("interim-then-429", lambda _: HINTS + answer(NO, 429), status_of_send(429), status_of_listing(429)),
    *answers("interim-then-500", lambda _: HINTS + answer(NO, 500), status_of_send(500), status_of_listing(500)),
    *answers("interim-with-length", lambda good: head(103, b"Content-Length: 5") + answer(good), TAKEN_OR_BROKEN),
    # A client may bound how many it skips.
    *answers("interim-flood-then-200", lambda good: HINTS * 1000 + answer(good), TAKEN_OR_BROKEN),
    # Nor is it said how fast it skips them.
    *answers(
        "interim-100-flood-then-200",
        lambda good: CONTINUE * 2_000 + answer(good),
        Verdict("accepted", (CONNECTION, TIME), also=("unknown",)),
    ),
    *strikes("interim-endless-and-fast", (ReadRequest(), Repeat(CONTINUE * 100)), BROKEN_OR_TIMED_OUT),
    *strikes("interim-then-hang", (ReadRequest(), Send(CONTINUE), Hang()), TIMED_OUT),
    *strikes("interim-then-reset", (ReadRequest(), Send(CONTINUE), Reset()), BROKEN),
    *says("interim-half", head(103, b"Link: x")[:-2], BROKEN),
]


# ----------------------------------------------------------------------------------------------------------
# Garbage, framing, headers

GARBAGE: list[Fault] = [
    *says("garbage-bytes", bytes(range(256)) * 4, BROKEN),
    *says("garbage-zeros", bytes(1000), BROKEN),
    *says("garbage-blank-lines", b"\r\n" * 100, BROKEN),
    *says("garbage-endless-line", b"x" * 300_000, BROKEN),
    *says("garbage-http-0.9", b"<html>" + RECEIPT + b"</html>", BROKEN),
    *says("garbage-bare-json", RECEIPT, BROKEN),
    *says("garbage-http-2-preface", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", BROKEN),
    *says("garbage-http-2-settings", b"\x00\x00\x06\x04\x00\x00\x00\x00\x00\x00\x03\x00\x00\x00\x64", BROKEN),
    *says("garbage-http-2-goaway", b"\x00\x00\x08\x07\x00\x00\x00\x00\x00" + bytes(8), BROKEN),
    *says("garbage-tls-alert", b"\x15\x03\x01\x00\x02\x02\x28", BROKEN),
    *says("garbage-ssh", b"SSH-2.0-OpenSSH_9.6\r\n", BROKEN),
    *says("garbage-smtp", b"220 mail.invalid ESMTP\r\n", BROKEN),
    *says("garbage-request", b"GET / HTTP/1.1\r\nHost: here\r\n\r\n", BROKEN),
    *says("garbage-icy", b"ICY 200 OK\r\n\r\n" + RECEIPT, BROKEN),
    *says("garbage-version", b"HTTP/x.y 200 OK\r\n\r\n" + RECEIPT, BROKEN),
    *says("garbage-status-word", b"HTTP/1.1 fine OK\r\n\r\n" + RECEIPT, BROKEN),
    *says("garbage-status-two-digits", b"HTTP/1.1 20 OK\r\n\r\n" + RECEIPT, BROKEN),
    *says("garbage-status-four-digits", b"HTTP/1.1 2000 OK\r\n\r\n" + RECEIPT, BROKEN),
    *says("garbage-status-negative", b"HTTP/1.1 -200 OK\r\n\r\n" + RECEIPT, BROKEN),
    *says("garbage-status-zero", b"HTTP/1.1 000 OK\r\n\r\n" + RECEIPT, BROKEN_OR_UNREADABLE),
    *says("garbage-no-status", b"HTTP/1.1\r\n\r\n" + RECEIPT, BROKEN),
    # Garbage without a line's end may be waited on for its end.
    *strikes(
        "garbage-then-hang",
        (ReadRequest(), Send(b"\x15\x03\x01\x00\x02\x02\x28"), Hang()),
        BROKEN_OR_TIMED_OUT,
    ),
    *strikes("garbage-then-reset", (ReadRequest(), Send(b"\x15\x03\x01\x00\x02\x02\x28"), Reset()), BROKEN),
    *strikes("garbage-endless", (ReadRequest(), Repeat(b"\x00" * 65536)), BROKEN),
]


def framed(name: str, *headers: bytes, send: Verdict) -> Iterator[Fault]:
    """A good body under these headers, and then a clean end."""
    yield from strikes(
        f"framing-{name}",
        lambda good: (
            ReadRequest(),
            Send(head(200, *(line.replace(b"{length}", b"%d" % len(good)) for line in headers)) + good),
            Close(),
        ),
        send,
    )


def raw_chunks(name: str, make: Callable[[bytes], bytes], send: Verdict) -> Iterator[Fault]:
    """A chunked head, these bytes, and then a clean end."""
    yield from strikes(
        f"framing-{name}", lambda good: (ReadRequest(), Send(head(200, *CHUNKED) + make(good)), Close()), send
    )


FRAMING: list[Fault] = [
    *framed("two-lengths", b"Content-Length: {length}", b"Content-Length: 5", send=BROKEN),
    *framed("two-lengths-in-one", b"Content-Length: {length}, 5", send=BROKEN),
    # Twice the same may be taken as once, by HTTP.
    *framed("same-length-twice", b"Content-Length: {length}", b"Content-Length: {length}", send=TAKEN_OR_BROKEN),
    *framed("length-negative", b"Content-Length: -5", send=BROKEN),
    *framed("length-signed", b"Content-Length: +{length}", send=BROKEN),
    *framed("length-word", b"Content-Length: many", send=BROKEN),
    *framed("length-hexadecimal", b"Content-Length: 0x10", send=BROKEN),
    *framed("length-fraction", b"Content-Length: 10.0", send=BROKEN),
    *framed("length-underscore", b"Content-Length: 1_0", send=BROKEN),
    *framed("length-empty", b"Content-Length:", send=BROKEN),
    # Announced to be over the cap, or broken off before: both are true.
    *framed("length-huge", b"Content-Length: 1000000000000", send=BROKEN_OR_UNREADABLE),
    *framed("length-absurd", b"Content-Length: " + b"9" * 40, send=BROKEN_OR_UNREADABLE),
    *framed("length-5000-digits", b"Content-Length: " + b"9" * 5000, send=BROKEN_OR_UNREADABLE),
    # Shorter than the body is JSON cut off, and what is left over belongs to no answer.
    *framed("length-short", b"Content-Length: 20", send=UNREADABLE),
    *framed("length-zero", b"Content-Length: 0", send=UNREADABLE),
    *framed("length-long", b"Content-Length: 5000", send=BROKEN),
    *answers(
        "framing-length-and-chunked",
        lambda good: head(200, b"Content-Length: 5", *CHUNKED) + chunks(good) + b"0\r\n\r\n",
        TAKEN_OR_BROKEN,
    ),
    *framed("unknown-transfer-encoding", b"Transfer-Encoding: foo", send=TAKEN_OR_BROKEN),
    *answers(
        "framing-gzip-transfer",
        lambda good: head(200, b"Transfer-Encoding: gzip, chunked") + chunks(gzip.compress(good)) + b"0\r\n\r\n",
        Verdict("accepted", (CONNECTION, RESPONSE), also=("unknown",)),
    ),
    *answers("framing-chunked", chunked, ACCEPTED),
    *answers(
        "framing-chunk-by-byte",
        lambda good: head(200, *CHUNKED) + chunks(*(good[i : i + 1] for i in range(len(good)))) + b"0\r\n\r\n",
        ACCEPTED,
    ),
    *raw_chunks("chunk-extension", lambda good: b"%x;name=value\r\n%s\r\n0\r\n\r\n" % (len(good), good), ACCEPTED),
    *raw_chunks("trailers", lambda good: chunks(good) + b"0\r\nX-Checksum: 1\r\nX-Other: 2\r\n\r\n", ACCEPTED),
    *raw_chunks("half-a-trailer", lambda good: chunks(good) + b"0\r\nX-Check", BROKEN),
    *raw_chunks("chunk-size-garbage", lambda good: b"zz\r\n" + good, BROKEN),
    *raw_chunks("chunk-size-negative", lambda good: b"-5\r\n" + good, BROKEN),
    *raw_chunks("chunk-size-empty", lambda good: b"\r\n" + good, BROKEN),
    *raw_chunks("chunk-size-huge", lambda good: b"FFFFFFFFFFFFFFFF\r\n" + good, BROKEN_OR_UNREADABLE),
    *raw_chunks("chunk-size-absurd", lambda good: b"F" * 5000 + b"\r\n" + good, BROKEN_OR_UNREADABLE),
    *raw_chunks("chunk-size-endless", lambda _: b"0" * 300_000, BROKEN),
    *raw_chunks("chunk-too-long", lambda good: b"5\r\n%s\r\n0\r\n\r\n" % good, BROKEN),
    *raw_chunks("chunk-then-garbage", lambda good: chunks(half(good)) + b"\xff\xff\xff\r\n", BROKEN),
    *raw_chunks("chunk-extension-flood", lambda good: b"%x;%s\r\n" % (len(good), b"a" * 300_000) + good, BROKEN),
    *raw_chunks("no-chunk", lambda _: b"0\r\n\r\n", UNREADABLE),
    *strikes("framing-no-length-close", lambda good: (ReadRequest(), Send(head() + good), Close()), ACCEPTED),
    *strikes("framing-no-length-reset", lambda good: (ReadRequest(), Send(head() + good), Reset()), BROKEN),
    *strikes("framing-no-length-hang", lambda good: (ReadRequest(), Send(head() + good), Hang()), TIMED_OUT),
    *strikes("framing-no-length-half", lambda good: (ReadRequest(), Send(head() + half(good)), Close()), UNREADABLE),
    *strikes("framing-no-length-empty", (ReadRequest(), Send(head()), Close()), UNREADABLE),
    *strikes(
        "framing-connection-close",
        lambda good: (ReadRequest(), Send(answer(good, 200, b"Connection: close")), Close()),
        ACCEPTED,
    ),
    *answers("framing-connection-close-and-stay", lambda good: answer(good, 200, b"Connection: close"), ACCEPTED),
    *answers(
        "framing-keep-alive",
        lambda good: answer(good, 200, b"Connection: keep-alive", b"Keep-Alive: timeout=0"),
        ACCEPTED,
    ),
    *answers(
        "framing-http-1.0",
        lambda good: head(200, b"Content-Length: %d" % len(good), version=b"HTTP/1.0") + good,
        ACCEPTED,
    ),
    *strikes(
        "framing-http-1.0-no-length",
        lambda good: (ReadRequest(), Send(head(version=b"HTTP/1.0") + good), Close()),
        ACCEPTED,
    ),
    *strikes("framing-byte-by-byte", lambda good: (ReadRequest(), Trickle(answer(good), pause=0.0)), ACCEPTED),
]


def under(name: str, *headers: bytes, send: Verdict) -> Iterator[Fault]:
    """A good answer with these header lines besides."""
    yield from answers(f"headers-{name}", lambda good: answer(good, 200, *headers), send)


def status_line(name: str, line: bytes, send: Verdict) -> Iterator[Fault]:
    """A good answer under this status line."""
    yield from answers(f"headers-status-line-{name}", lambda good: line + answer(good)[len(head(200)) - 2 :], send)


# A flood may be read, bounded by the parser (a broken protocol) or by a cap (an answer that cannot be read).
FLOODED = Verdict("accepted", (CONNECTION, RESPONSE), also=("unknown",))

HEADERS: list[Fault] = [
    *under("one-megabyte", *(b"X-Flood-%d: %s" % (i, b"a" * 1000) for i in range(1000)), send=FLOODED),
    *under("ten-thousand", *(b"X-%d: a" % i for i in range(10_000)), send=FLOODED),
    *under("one-enormous", b"X-Flood: " + b"a" * 1_000_000, send=FLOODED),
    *under("enormous-name", b"X" * 1_000_000 + b": a", send=FLOODED),
    *under("same-name-thousand-times", *(b"X-Same: a" for _ in range(1000)), send=FLOODED),
    *strikes(
        "headers-endless",
        (ReadRequest(), Send(STATUS_LINE), Repeat(b"X-Flood: %s\r\n" % (b"a" * 1000) * 64)),
        Verdict("unknown", (CONNECTION, RESPONSE, TIME)),
    ),
    # What HTTP forbids or has given up, some parsers take and others refuse: both leave no wrong impression.
    *under("null-byte", b"X-Odd: a\x00b", send=TAKEN_OR_BROKEN),
    *under("carriage-return", b"X-Odd: a\rb", send=TAKEN_OR_BROKEN),
    *under("bare-newline", b"X-Odd: a\nX-Other: b", send=TAKEN_OR_BROKEN),
    *under("folded", b"X-Odd: a\r\n  b", send=TAKEN_OR_BROKEN),
    *under("no-colon", b"just words", send=TAKEN_OR_BROKEN),
    *under("empty-name", b": a", send=TAKEN_OR_BROKEN),
    *under("blank-before-colon", b"X-Odd : a", send=TAKEN_OR_BROKEN),
    *under("odd-name", b"X-\xff\xfe: a", send=TAKEN_OR_BROKEN),
    *under("odd-value", b"X-Odd: \xff\xfe\x80", send=TAKEN_OR_BROKEN),
    *under("folded-first", b"X-A: 1\r\n\tContent-Length: 0", send=TAKEN_OR_BROKEN),
    *answers("headers-newlines-only", lambda good: answer(good).replace(b"\r\n", b"\n"), TAKEN_OR_BROKEN),
    *under("cookies", b"Set-Cookie: a=b; Path=/", b"Set-Cookie: c=d; Domain=.invalid", send=ACCEPTED),
    *under(
        "alternative-service",
        b'Alt-Svc: h3="foreign.invalid:443"',
        b"Refresh: 0; url=//foreign.invalid",
        send=ACCEPTED,
    ),
    *under(
        "content-location",
        b"Content-Location: //foreign.invalid/",
        b"Location: //foreign.invalid/",
        send=ACCEPTED,
    ),
    *under("upgrade-offered", b"Upgrade: h2c", b"Connection: Upgrade", send=ACCEPTED),
    *status_line("no-reason", b"HTTP/1.1 200\r\n", TAKEN_OR_BROKEN),
    *status_line("lower-case", b"http/1.1 200 OK\r\n", TAKEN_OR_BROKEN),
    *status_line("two-blanks", b"HTTP/1.1  200  OK\r\n", TAKEN_OR_BROKEN),
    *status_line("odd-reason", b"HTTP/1.1 200 \xff\xfe\r\n", TAKEN_OR_BROKEN),
    *status_line("long-reason", b"HTTP/1.1 200 %s\r\n" % (b"a" * 10_000), TAKEN_OR_BROKEN),
    *status_line("version-2", b"HTTP/2.0 200 OK\r\n", TAKEN_OR_BROKEN),
    *status_line("version-1.9", b"HTTP/1.9 200 OK\r\n", TAKEN_OR_BROKEN),
    *answers("headers-blank-line-first", lambda good: b"\r\n" + answer(good), TAKEN_OR_BROKEN),
]


# ----------------------------------------------------------------------------------------------------------
# Extra bytes after an answer: they must never become the next one. The next send may then be in doubt.

# The retry that follows at once may meet the stray bytes, and is in doubt then.
MET_BY_RETRY = Verdict("accepted", (CONNECTION, RESPONSE, TIME), also=("unknown",), most_requests=2)

EXTRAS: dict[str, Callable[[bytes], bytes]] = {
    "whole-answer": lambda good: answer(stray(good)),
    "two-answers": lambda good: answer(stray(good)) * 2,
    "refusal": lambda _: answer(NO, 429),
    "unavailable": lambda _: answer(NO, 503, b"Retry-After: 0"),
    "rejection": lambda _: answer(NO, 400),
    "half-status-line": lambda _: b"HTTP/1.1 2",
    "swallowing-head": lambda _: head(200, b"Content-Length: 100000"),
    "swallowing-chunk": lambda _: head(200, *CHUNKED) + b"fffff\r\n",
    "swallowing-refusal": lambda _: head(429, b"Content-Length: 10"),
    "interim": lambda _: HINTS,
    "half-body": lambda good: answer(stray(good))[:-10],
    "blank-line": lambda _: b"\r\n",
    "garbage": lambda _: b"\x00\xff\x00\xff",
    "text": lambda _: b"and more",
}


def extras() -> Iterator[Fault]:
    """Each of them in the segment of the answer, and in one of its own."""
    for name, extra in EXTRAS.items():
        yield from strikes(f"extra-{name}", _followed_by(extra, together=True), ACCEPTED, after=IN_DOUBT)
        yield from strikes(f"extra-{name}-apart", _followed_by(extra, together=False), ACCEPTED, after=IN_DOUBT)


def _followed_by(extra: Callable[[bytes], bytes], *, together: bool) -> Callable[[bytes], Act]:
    if together:
        return lambda good: (ReadRequest(), Send(answer(good) + extra(good)))
    return lambda good: (ReadRequest(), Send(answer(good)), Send(extra(good)))


def extra_after(name: str, first: bytes) -> Fault:
    """A whole answer after one that is retried."""
    return Fault(
        name=f"extra-after-{name}",
        send=MET_BY_RETRY,
        listing=evolve(MET_BY_RETRY, also=("failed",), most_requests=MAX_ATTEMPTS),
        send_script=Script(((ReadRequest(), Send(first + answer(stray(RECEIPT)))),)),
        listing_script=Script(((ReadRequest(), Send(first + answer(stray(LISTING)))),)),
        after=IN_DOUBT,
    )


EXTRA: list[Fault] = [
    *extras(),
    extra_after("429", answer(NO, 429)),
    extra_after("503", answer(NO, 503, b"Retry-After: 0")),
    *strikes(
        "extra-after-chunks",
        lambda good: (ReadRequest(), Send(chunked(good) + answer(stray(good)))),
        ACCEPTED,
        after=IN_DOUBT,
    ),
    *strikes(
        "extra-after-connection-close",
        lambda good: (ReadRequest(), Send(answer(good, 200, b"Connection: close") + answer(stray(good)))),
        ACCEPTED,
    ),
    *strikes(
        "extra-after-304",
        lambda good: (ReadRequest(), Send(head(304) + answer(stray(good)))),
        status_of_send(304),
        status_of_listing(304),
        after=IN_DOUBT,
    ),
]


# ----------------------------------------------------------------------------------------------------------
# Bodies


def shaped(name: str, make: Callable[[bytes], bytes], send: Verdict, page: Verdict | None = None) -> Iterator[Fault]:
    """A whole 200 whose body is made out of the good one."""
    yield from answers(f"body-{name}", lambda good: answer(make(good)), send, page)


def typed(name: str, content_type: bytes) -> Iterator[Fault]:
    """A good answer under this content type: the body decides."""
    yield from answers(f"type-{name}", lambda good: answer(good, content_type=content_type), ACCEPTED)


def inside(fragment: bytes) -> Callable[[bytes], bytes]:
    """The good object with one member more in front."""
    return lambda good: b"{" + fragment + b", " + good.removeprefix(b"{")


def outcome_of(**members: object) -> bytes:
    """A JSON object."""
    return json.dumps(members).encode()


# A listing without a `query` may be one or not.
EMPTY_PAGE = Verdict("accepted", (RESPONSE,), also=("failed",))

BODIES: list[Fault] = [
    *typed("absent", b"X-Type: none"),
    *typed("html", b"Content-Type: text/html"),
    *typed("latin-1", b"Content-Type: application/json; charset=iso-8859-1"),
    *typed("utf-16", b"Content-Type: application/json; charset=utf-16"),
    *typed("unknown-charset", b"Content-Type: application/json; charset=foo"),
    *typed("malformed", b"Content-Type: ;;=\xff"),
    *bodies("empty", b"", UNREADABLE),
    *bodies("blank", b" \r\n ", UNREADABLE),
    *bodies("null", b"null", UNREADABLE),
    *bodies("true", b"true", UNREADABLE),
    *bodies("number", b"1", UNREADABLE),
    *bodies("string", b'"ok"', UNREADABLE),
    *bodies("status-string", b'"success"', UNREADABLE),
    *bodies("array", b"[]", UNREADABLE),
    *bodies("array-of-receipt", b"[" + RECEIPT + b"]", UNREADABLE),
    *bodies("object", b"{}", UNREADABLE),
    *bodies("html", b"<!doctype html><h1>It works</h1>", UNREADABLE),
    *bodies("words", b"OK", UNREADABLE),
    *bodies("form", b"status=success&id=1", UNREADABLE),
    *bodies("nul-bytes", bytes(100), UNREADABLE),
    *bodies("status-error", outcome_of(status="error"), UNREADABLE),
    *bodies("status-error-with-data", outcome_of(status="error", data={"id": "1"}), UNREADABLE),
    *bodies("status-queued-with-data", outcome_of(status="queued", data={"id": "1"}), UNREADABLE),
    *bodies("status-upper-case", outcome_of(status="SUCCESS"), UNREADABLE),
    *bodies("status-true", outcome_of(status=True, data={}), UNREADABLE),
    *bodies("status-number", outcome_of(status=200, data={}), UNREADABLE),
    *bodies("status-array", outcome_of(status=["success"]), UNREADABLE),
    # Whether a null status is a status is not said.
    *bodies("status-null-with-data", outcome_of(status=None, data={}), READ_OR_NOT),
    *bodies("error", outcome_of(error="no credit"), UNREADABLE),
    *bodies("errors", outcome_of(errors=[{"code": 1}]), UNREADABLE),
    *bodies("message", outcome_of(message="accepted"), UNREADABLE),
    *bodies("success-alone", outcome_of(status="success"), ACCEPTED),
    *bodies("data-alone", outcome_of(data={}), ACCEPTED),
    *bodies("data-with-id-alone", outcome_of(data={"id": "1"}), ACCEPTED),
    *bodies("data-array", outcome_of(data=[]), UNREADABLE, EMPTY_PAGE),
    *bodies("data-null", outcome_of(data=None), UNREADABLE),
    *bodies("data-string", outcome_of(data="1"), UNREADABLE),
    *bodies("data-number-id", outcome_of(data={"id": 12345}), ACCEPTED),
    *bodies("success-with-data-array", outcome_of(status="success", data=[]), ACCEPTED, EMPTY_PAGE),
    *bodies("success-with-data-null", outcome_of(status="success", data=None), ACCEPTED),
    *bodies("success-with-data-string", outcome_of(status="success", data="12345"), ACCEPTED),
    *bodies("success-with-error", outcome_of(status="success", error=None, errors=[]), ACCEPTED),
    *(
        fault
        for name, field, value in (
            ("id-null", "id", None),
            ("id-object", "id", {"a": 1}),
            ("id-array", "id", [1]),
            ("id-true", "id", True),
            ("id-fraction", "id", 1.5),
            ("id-negative", "id", -1),
            ("id-empty", "id", ""),
            ("id-long", "id", "a" * 100_000),
            ("name-number", "name", 5),
            ("name-null", "name", None),
            ("description-array", "description", ["a"]),
            ("created-word", "created_at", "yesterday"),
            ("created-number", "created_at", 1_700_000_000),
            ("created-null", "created_at", None),
            ("created-empty", "created_at", ""),
            ("created-without-offset", "created_at", "2023-01-01T00:00:00"),
            ("created-far", "created_at", "99999-01-01T00:00:00Z"),
            ("created-month-13", "created_at", "2023-13-01T00:00:00Z"),
            ("updated-object", "updated_at", {}),
            ("extra", "credits", {"left": [1, 2, {"a": None}]}),
            ("extra-named-extra", "extra", "mine"),
        )
        for fault in bodies(f"receipt-{name}", outcome_of(status="success", data={field: value}), ACCEPTED)
    ),
    *shaped("blank-around", lambda good: b"\r\n\t " + good + b"\r\n\t ", ACCEPTED),
    *shaped("truncated", half, UNREADABLE),
    *shaped("last-byte-missing", lambda good: good[:-1], UNREADABLE),
    *shaped("twice", lambda good: good + good, UNREADABLE),
    *shaped("then-words", lambda good: good + b" and more", UNREADABLE),
    *shaped("prefixed", lambda good: b")]}',\n" + good, UNREADABLE),
    *shaped("callback", lambda good: b"callback(" + good + b")", UNREADABLE),
    *shaped("single-quotes", lambda good: good.replace(b'"', b"'"), UNREADABLE),
    *shaped("trailing-comma", lambda good: good[:-1] + b",}", UNREADABLE),
    # JSON is UTF-8 without a mark; readers may be kinder.
    *shaped("utf-16", lambda good: good.decode().encode("utf-16"), READ_OR_NOT),
    *shaped("utf-32", lambda good: good.decode().encode("utf-32-be"), READ_OR_NOT),
    *shaped("byte-order-mark", lambda good: b"\xef\xbb\xbf" + good, READ_OR_NOT),
    *shaped("invalid-utf-8", inside(b'"x": "\xff\xfe"'), UNREADABLE),
    *shaped("surrogate-as-utf-8", inside(b'"x": "\xed\xa0\x80"'), UNREADABLE),
    *shaped("overlong-utf-8", inside(b'"x": "\xc0\xaf"'), UNREADABLE),
    *shaped("nul-escape", inside(b'"x": "a\\u0000b"'), ACCEPTED),
    # Some parsers refuse these, others read them: nothing is lost either way.
    *shaped("lone-surrogate-escape", inside(b'"x": "\\ud800"'), READ_OR_NOT),
    *shaped("control-character", inside(b'"x": "a\nb"'), READ_OR_NOT),
    *shaped("not-a-number", inside(b'"x": NaN'), READ_OR_NOT),
    *shaped("infinity", inside(b'"x": -Infinity'), READ_OR_NOT),
    *shaped("infinite-exponent", inside(b'"x": 1e999'), READ_OR_NOT),
    *shaped("duplicate-keys", inside(b'"x": 1, "x": 2'), READ_OR_NOT),
    *bodies("status-error-then-success", b'{"status": "error", "status": "success"}', READ_OR_NOT),
    *bodies("status-success-then-error", b'{"status": "success", "status": "error"}', READ_OR_NOT),
    *bodies("deep-array", b"[" * 100_000, UNREADABLE),
    *bodies("deep-array-closed", b"[" * 100_000 + b"]" * 100_000, UNREADABLE),
    *bodies("deep-object", b'{"data":' * 100_000, UNREADABLE),
    *shaped("deep-member", inside(b'"x": ' + b"[" * 100_000 + b"]" * 100_000), UNREADABLE),
    *shaped("giant-integer", inside(b'"x": ' + b"9" * 5000), UNREADABLE),
    *bodies("giant-id", b'{"status": "success", "data": {"id": ' + b"9" * 5000 + b"}}", UNREADABLE),
    *bodies(
        "many-keys",
        b'{"status": "success", "data": {' + b",".join(b'"%d":1' % i for i in range(20_000)) + b"}}",
        ACCEPTED,
    ),
]


# ----------------------------------------------------------------------------------------------------------
# Limits and encodings


MEBIBYTE_OF_BLANKS = b" " * (1 << 20)
DOUBLINGS = 9  # half a gibibyte: a whole one, at deflate's 1,032 to 1, is over the cap before it is decoded


def checksum_with_blanks(start: bytes) -> int:
    """The CRC-32 of the bytes and half a gibibyte of blanks, without running through them."""
    # CRC-32 over fixed data is affine in the checksum so far, so doubling the data is applying the map twice.
    images = [zlib.crc32(MEBIBYTE_OF_BLANKS, 1 << bit) for bit in range(32)]
    zero = zlib.crc32(MEBIBYTE_OF_BLANKS, 0)

    def applied(checksum: int) -> int:
        for_bits = (image ^ zero for bit, image in enumerate(images) if checksum >> bit & 1)
        return functools.reduce(operator.xor, for_bits, zero)

    for _ in range(DOUBLINGS):
        images, zero = [applied(image) for image in images], applied(zero)
    return applied(zlib.crc32(start))


def raw_bomb(start: bytes) -> bytes:
    """About half a MiB of raw deflate: the bytes and half a gibibyte of blanks, valid to the last byte."""
    compressor = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    first = compressor.compress(start) + compressor.flush(zlib.Z_FULL_FLUSH)
    block = compressor.compress(MEBIBYTE_OF_BLANKS) + compressor.flush(zlib.Z_FULL_FLUSH)
    return first + block * (1 << DOUBLINGS) + compressor.flush(zlib.Z_FINISH)


@functools.cache
def bomb(start: bytes) -> bytes:
    """The same in gzip: whoever decodes it without a limit finds a good body."""
    size = len(start) + (len(MEBIBYTE_OF_BLANKS) << DOUBLINGS)
    trailer = checksum_with_blanks(start).to_bytes(4, "little") + size.to_bytes(4, "little")
    return b"\x1f\x8b\x08" + bytes(6) + b"\xff" + raw_bomb(start) + trailer


def encoded(name: str, encoding: bytes, make: Callable[[bytes], bytes], send: Verdict) -> Iterator[Fault]:
    """A whole 200 under this Content-Encoding."""
    yield from answers(f"encoding-{name}", lambda good: answer(make(good), 200, b"Content-Encoding: " + encoding), send)


def zipped(good: bytes) -> bytes:
    """The body in gzip, the same on every run."""
    return gzip.compress(good, mtime=0)


def long_body(size: int) -> Callable[[bytes], Act]:
    """A good body of this size, sent without being held."""
    return lambda good: (
        ReadRequest(),
        Send(head(200, b"Content-Length: %d" % size) + good + b" " * ((size - len(good)) % 65536)),
        Repeat(b" " * 65536, times=(size - len(good)) // 65536),
    )


LIMITS: list[Fault] = [
    *strikes("limit-send-just-under", long_body(SEND_CAP - 1), ACCEPTED),
    *strikes("limit-send-just-over", long_body(SEND_CAP + 1), UNREADABLE, ACCEPTED),
    *strikes("limit-send-far-over", long_body(8 * SEND_CAP), UNREADABLE, ACCEPTED),
    *strikes("limit-page-just-under", long_body(PAGE_CAP - 1), UNREADABLE, ACCEPTED),
    *strikes("limit-page-just-over", long_body(PAGE_CAP + 1), UNREADABLE),
    *strikes(
        "limit-chunks-over",
        lambda good: (
            ReadRequest(),
            Send(head(200, *CHUNKED) + chunks(good, b" " * SEND_CAP) + b"0\r\n\r\n"),
        ),
        UNREADABLE,
        ACCEPTED,
    ),
    *strikes(
        "limit-no-length-over",
        lambda good: (ReadRequest(), Send(head() + padded(good, 2 * SEND_CAP)), Close()),
        UNREADABLE,
        ACCEPTED,
    ),
    *strikes(
        "limit-endless-chunks",
        lambda good: (ReadRequest(), Send(head(200, *CHUNKED) + chunks(good)), Repeat(chunks(b" " * 65536))),
        UNREADABLE,
    ),
    *strikes(
        "limit-endless-body",
        lambda good: (ReadRequest(), Send(head() + good), Repeat(b" " * 65536)),
        UNREADABLE,
    ),
    # The status of an answer decides, however long its body is and whether or not it can be decoded.
    *status(400, padded(NO, 2 * SEND_CAP), name="-over-the-cap"),
    *status(429, padded(NO, 2 * SEND_CAP), name="-over-the-cap"),
    *status(500, padded(NO, 2 * SEND_CAP), name="-over-the-cap"),
    *encoded("gzip", b"gzip", zipped, ACCEPTED),
    *encoded("gzip-upper-case", b"GZIP", zipped, ACCEPTED),
    *encoded("x-gzip", b"x-gzip", zipped, READ_OR_NOT),
    *encoded("deflate", b"deflate", zlib.compress, ACCEPTED),
    *encoded("raw-deflate", b"deflate", lambda good: zlib.compress(good, wbits=-15), READ_OR_NOT),
    *encoded("identity", b"identity", lambda good: good, ACCEPTED),
    *encoded("gzip-twice", b"gzip, gzip", lambda good: zipped(zipped(good)), READ_OR_NOT),
    *encoded("gzip-unannounced", b"identity", zipped, UNREADABLE),
    *encoded("gzip-truncated", b"gzip", lambda good: half(zipped(good)), UNREADABLE),
    *encoded("gzip-without-checksum", b"gzip", lambda good: zipped(good)[:-8], UNREADABLE),
    *encoded("gzip-wrong-checksum", b"gzip", lambda good: zipped(good)[:-8] + bytes(8), UNREADABLE),
    *encoded("gzip-garbage", b"gzip", lambda _: b"\x1f\x8b" + bytes(range(200)), UNREADABLE),
    *encoded("gzip-empty", b"gzip", lambda _: b"", UNREADABLE),
    # Plain JSON under the name of an encoding: it may be read, or refused for the name.
    *encoded("gzip-plain", b"gzip", lambda good: good, READ_OR_NOT),
    *encoded("empty", b"", lambda good: good, READ_OR_NOT),
    *encoded("unknown-plain", b"foo", lambda good: good, READ_OR_NOT),
    # Two members are one body to gzip, and one body and a rest to many decoders; so is a body with a rest.
    *encoded("gzip-members", b"gzip", lambda good: zipped(half(good)) + zipped(good[len(good) // 2 :]), READ_OR_NOT),
    *encoded("gzip-then-garbage", b"gzip", lambda good: zipped(good) + b"rest", READ_OR_NOT),
    *encoded("brotli", b"br", lambda _: bytes.fromhex("8b0480") + b"\x00\xff" * 20, UNREADABLE),
    *encoded("zstandard", b"zstd", lambda _: bytes.fromhex("28b52ffd") + b"\x00\xff" * 20, UNREADABLE),
    *encoded("unknown", b"foo", lambda _: b"\x00\xff" * 20, UNREADABLE),
    *encoded("gzip-then-unknown", b"gzip, foo", lambda _: b"\x00\xff" * 20, UNREADABLE),
    *encoded("hundred-times", b", ".join([b"gzip"] * 100), zipped, UNREADABLE),
    *encoded("bomb", b"gzip", bomb, UNREADABLE),
    *encoded("raw-deflate-bomb", b"deflate", raw_bomb, UNREADABLE),
    *encoded("double-bomb", b"gzip, gzip", lambda good: zipped(bomb(good)), UNREADABLE),
    *status(429, bomb(NO), b"Content-Encoding: gzip", name="-bomb"),
    *status(400, bomb(NO), b"Content-Encoding: gzip", name="-bomb"),
    *status(429, b"no gzip", b"Content-Encoding: gzip", name="-bad-gzip"),
    *status(500, half(zipped(NO)), b"Content-Encoding: gzip", name="-half-gzip"),
    *status(400, b"no brotli", b"Content-Encoding: br", name="-brotli"),
]


# ----------------------------------------------------------------------------------------------------------
# Slow answers


def slow(name: str, *steps: Step) -> Iterator[Fault]:
    """The request is read, and then it takes too long."""
    yield from strikes(f"slow-{name}", (ReadRequest(), *steps), TIMED_OUT)


SLOW: list[Fault] = [
    *slow("status-line", Trickle(b"HTTP/1.1 200 " + b"a" * 1000)),
    *slow("headers", Send(STATUS_LINE), Trickle(b"X-Slow: a\r\n" * 100)),
    *slow("headers-by-line", Send(STATUS_LINE), Repeat(b"X-Slow: a\r\n", pause=0.05)),
    *slow("header-value", Send(STATUS_LINE + b"X-Slow: "), Repeat(b"a", pause=0.05)),
    *slow("body", Send(head(200, b"Content-Length: 100000")), Repeat(b" ", pause=0.05)),
    *slow("body-without-length", Send(head()), Repeat(b" ", pause=0.05)),
    *slow("chunks", Send(head(200, *CHUNKED)), Repeat(chunks(b" "), pause=0.05)),
    *slow("chunk-size", Send(head(200, *CHUNKED)), Repeat(b"0", pause=0.1)),
    *slow(
        "trailers",
        Send(head(200, *CHUNKED) + chunks(RECEIPT) + b"0\r\n"),
        Repeat(b"X-Slow: a\r\n", pause=0.05),
    ),
    *slow("body-of-429", Send(head(429, b"Content-Length: 100000")), Repeat(b" ", pause=0.05)),
    *slow("body-of-400", Send(head(400, b"Content-Length: 100000")), Repeat(b" ", pause=0.05)),
    *strikes("slow-but-in-time", lambda good: (ReadRequest(), Trickle(answer(good), 0.01, 50)), ACCEPTED),
]


# ----------------------------------------------------------------------------------------------------------
# Answers before the request was read

LONG_MESSAGE = "a long text, " * (1 << 19)  # about 6.5 MiB: more than two sockets hold


def early(name: str, code: int, end: Step, send: Verdict | None = None, message: str = LONG_MESSAGE) -> Iterator[Fault]:
    """The head is read, the answer comes, and the body stays unread."""
    yield from strikes(
        f"early-{name}",
        (ReadHead(), Answer(NO, code, (b"Connection: close",)), end),
        send or status_of_send(code),
        status_of_listing(code),
        is_read=False,
        message=message,
    )


# The answer is there, but so is the reset, and some event loops throw away the one on the other.
LOST_413 = Verdict("rejected", ("APIStatusError", CONNECTION), also=("unknown",))
# Nobody reads what is being written: only a client that reads as it writes sees the answer.
UNSEEN_413 = Verdict("rejected", ("APIStatusError", TIME), also=("unknown",))

EARLY: list[Fault] = [
    *early("413-close", 413, Close()),
    *early("400-close", 400, Close()),
    *early("401-close", 401, Close()),
    *early("429-close", 429, Close()),
    *early("500-close", 500, Close()),
    *early("413-reset", 413, Reset(), LOST_413),
    *early("413-hang", 413, Hang(), UNSEEN_413),
    *early("413-close-small", 413, Close(), message="Hello"),
    *early("413-hang-small", 413, Hang(), message="Hello"),
    *early("429-close-small", 429, Close(), message="Hello"),
    *strikes(
        "early-half-413",
        (ReadHead(), Send(half(head(413))), Close()),
        BROKEN,
        is_read=False,
        message=LONG_MESSAGE,
    ),
    *strikes("early-close", (ReadHead(), Close()), BROKEN, is_read=False, message=LONG_MESSAGE),
    *strikes("early-reset", (ReadHead(), Reset()), BROKEN, is_read=False, message=LONG_MESSAGE),
    *strikes("early-hang", (ReadHead(), Hang()), TIMED_OUT, is_read=False, message=LONG_MESSAGE),
    # Good before it can be: it may be believed or held for a stray one.
    *strikes(
        "early-200",
        lambda good: (ReadHead(), Send(answer(good, 200, b"Connection: close")), Close()),
        TAKEN_OR_BROKEN,
        ACCEPTED,
        is_read=False,
    ),
]


# ----------------------------------------------------------------------------------------------------------
# TLS

# A handshake that is cut off is no certificate that fails: it may be tried again, or not.
HANDSHAKE_CUT = Verdict("not_sent", (CONNECTION,), retried=None)


def over_tls(
    name: str,
    act: Act | Callable[[bytes], Act],
    send: Verdict,
    page: Verdict | None = None,
    *,
    is_read: bool = True,
    after: tuple[Outcome, ...] = HEALTHY_AFTER,
) -> Iterator[Fault]:
    """The act over TLS with a good certificate."""
    yield from strikes(f"tls-{name}", act, send, page, is_read=is_read, kept_alive=is_read, after=after, trust="good")


def untrusted(trust: Trust) -> Iterator[Fault]:
    """A certificate that must not be taken: nothing is sent, and nothing is tried again."""
    page = evolve(NOT_TRUSTED, outcome="failed")
    yield from strikes(f"tls-{trust}", HEALTHY, NOT_TRUSTED, page, is_read=False, after=(), trust=trust)


TLS: list[Fault] = [
    *untrusted("unknown-authority"),
    *untrusted("wrong-name"),
    *untrusted("expired"),
    *over_tls("healthy", HEALTHY, ACCEPTED),
    *over_tls("accept-close", (Close(),), HANDSHAKE_CUT, is_read=False),
    *over_tls("accept-reset", (Reset(),), HANDSHAKE_CUT, is_read=False),
    *over_tls("accept-hang", (Hang(),), NEVER_CONNECTED, is_read=False),
    *over_tls("plain-answer", (Send(answer(NO, 400)), Close()), HANDSHAKE_CUT, is_read=False),
    *over_tls("request-begun-reset", (AwaitRequest(), Reset()), BROKEN, is_read=False),
    *over_tls("request-read-close", (ReadRequest(), Close()), BROKEN),
    *over_tls("request-read-drop", (ReadRequest(), Drop()), BROKEN),
    *over_tls("request-read-reset", (ReadRequest(), Reset()), BROKEN),
    *over_tls("request-read-hang", (ReadRequest(), Hang()), TIMED_OUT),
    *over_tls("half-body-close", _ending(half_body, Close()), BROKEN),
    *over_tls("half-body-drop", _ending(half_body, Drop()), BROKEN),
    *over_tls("half-body-reset", _ending(half_body, Reset()), BROKEN),
    *over_tls("half-body-hang", _ending(half_body, Hang()), TIMED_OUT),
    *over_tls("no-length-close", lambda good: (ReadRequest(), Send(head() + good), Close()), ACCEPTED),
    # Without close_notify the end may be an attacker's; the object is whole all the same.
    *over_tls("no-length-drop", lambda good: (ReadRequest(), Send(head() + good), Drop()), TAKEN_OR_BROKEN),
    *over_tls("slow-headers", (ReadRequest(), Send(STATUS_LINE), Trickle(b"X-Slow: a\r\n" * 100)), TIMED_OUT),
    *over_tls("429", (ReadRequest(), Answer(NO, 429)), status_of_send(429), status_of_listing(429)),
    *over_tls("500", (ReadRequest(), Answer(NO, 500)), status_of_send(500), status_of_listing(500)),
    *(
        fault
        for name in ("whole-answer", "half-status-line", "swallowing-head", "refusal")
        for fault in over_tls(f"extra-{name}", _followed_by(EXTRAS[name], together=False), ACCEPTED, after=IN_DOUBT)
    ),
]


# ----------------------------------------------------------------------------------------------------------
# Listings

FIRST = "{base_url}/sms/messages"


def pages(name: str, verdict: Verdict, *each: bytes, then: bytes | None = None) -> Fault:
    """These bodies, one a request, and then the same one always or a healthy last page."""
    acts = tuple((ReadRequest(), Answer(body)) for body in each)
    script = Script(acts) if then is None else Script(acts, then=(ReadRequest(), Answer(then)))
    return Fault(
        name=name,
        send=None,
        listing=verdict,
        send_script=Script(),
        listing_script=script,
        after=HEALTHY_AFTER if len(each) == 1 else (),
    )


def next_page(name: str, value: object, verdict: Verdict = PAGE_FOREIGN) -> Fault:
    """A listing whose next page is this."""
    requests = 2 if "accepted" in verdict.outcomes else 1
    return pages(f"next-page-{name}", evolve(verdict, most_requests=requests), listing("good", value))


def page_of(name: str, verdict: Verdict, **members: object) -> Fault:
    """A listing with these members only."""
    return pages(f"page-{name}", verdict, json.dumps(members).encode())


def message(name: str, verdict: Verdict, **changed: object) -> Fault:
    """A listing of one message in which these members are changed."""
    page = json.loads(LISTING)
    page["data"][0] |= changed
    return pages(f"message-{name}", verdict, json.dumps(page).encode())


def message_without(member: str, verdict: Verdict) -> Fault:
    """A listing of one message that lacks this member."""
    page = json.loads(LISTING)
    del page["data"][0][member]
    return pages(f"message-without-{member}", verdict, json.dumps(page).encode())


A, B, C = (f"{FIRST}?token={token}" for token in "abc")
GOOD_MESSAGE = json.loads(LISTING)["data"][0]
# It is another spelling of the same place, or another place: a client may be as strict as it likes.
FOLLOWED_OR_FOREIGN = Verdict("accepted", ("PaginationError",), also=("failed",))
# A client that cannot say whether a member is optional may go either way.
PAGE_READ_OR_NOT = Verdict("accepted", (RESPONSE,), also=("failed",))

LISTINGS: list[Fault] = [
    next_page("null", None, ACCEPTED),
    next_page("empty", "", ACCEPTED),
    pages("next-page-absent", ACCEPTED, json.dumps({"query": "", "data": [GOOD_MESSAGE]}).encode()),
    next_page("good", A, ACCEPTED),
    next_page("same-path-other-query", f"{FIRST}?page=2&token=%2B%2F", ACCEPTED),
    pages(
        "next-page-three",
        evolve(ACCEPTED, most_requests=4),
        listing("1", A),
        listing("2", B),
        listing("3", C),
    ),
    next_page("upper-case-scheme", "HTTP://127.0.0.1:{port}/v1/sms/messages?token=a", ACCEPTED),
    next_page("foreign-host", "http://foreign.invalid/v1/sms/messages?token=a"),
    next_page("foreign-address", "http://127.0.0.2:{port}/v1/sms/messages?token=a"),
    next_page("foreign-port", "http://127.0.0.1:1/v1/sms/messages?token=a"),
    next_page("default-port", "http://127.0.0.1/v1/sms/messages?token=a"),
    next_page("localhost", "http://localhost:{port}/v1/sms/messages?token=a"),
    next_page("foreign-scheme", "https://127.0.0.1:{port}/v1/sms/messages?token=a"),
    next_page("socket-scheme", "ws://127.0.0.1:{port}/v1/sms/messages?token=a"),
    next_page("file", "file:///etc/hostname"),
    next_page("script", "javascript:alert(1)"),
    next_page("data", "data:application/json,{}"),
    next_page("user", "http://user@127.0.0.1:{port}/v1/sms/messages?token=a"),
    next_page("empty-user", "http://@127.0.0.1:{port}/v1/sms/messages?token=a"),
    next_page("user-and-password", "http://user:password@127.0.0.1:{port}/v1/sms/messages?token=a"),
    next_page("origin-as-user", "http://127.0.0.1:{port}@foreign.invalid/v1/sms/messages"),
    next_page("no-scheme", "//foreign.invalid/v1/sms/messages"),
    next_page("three-slashes", "http:///foreign.invalid/v1/sms/messages"),
    next_page("no-slashes", "http:foreign.invalid/v1/sms/messages"),
    next_page("backslashes", "http:\\\\foreign.invalid\\v1"),
    next_page("backslash-user", "http://127.0.0.1:{port}\\@foreign.invalid/"),
    next_page("backslash-in-path", f"{FIRST}\\..\\elsewhere"),
    next_page("number", 5),
    next_page("fraction", 1.5),
    next_page("true", True),
    next_page("list", [A]),
    next_page("object", {"url": A}),
    # What is false but no string may be no next page, or none that can be followed.
    next_page("false", False, FOLLOWED_OR_FOREIGN),
    next_page("zero", 0, FOLLOWED_OR_FOREIGN),
    next_page("empty-list", [], FOLLOWED_OR_FOREIGN),
    next_page("newline", f"{FIRST}?token=a\r\nX-Odd: b"),
    next_page("tab", f"{FIRST}?token=a\tb"),
    next_page("nul", f"{FIRST}?token=a\x00b"),
    next_page("delete", f"{FIRST}?token=a\x7fb"),
    next_page("newline-in-host", "http://127.0.0.1\n.foreign.invalid/"),
    next_page("newline-first", f"\n{FIRST}?token=a"),
    next_page("blank-first", f" {FIRST}?token=a", FOLLOWED_OR_FOREIGN),
    next_page("blank", " ", FOLLOWED_OR_FOREIGN),
    next_page("words", "the next one"),
    next_page("bracket", "http://["),
    next_page("bad-port", "http://127.0.0.1:port/v1/sms/messages"),
    next_page("high-port", "http://127.0.0.1:99999/v1/sms/messages"),
    next_page("negative-port", "http://127.0.0.1:-1/v1/sms/messages"),
    next_page("longer-host", "http://127.0.0.1.foreign.invalid/v1/sms/messages"),
    next_page("other-notation", "http://2130706433:{port}/v1/sms/messages"),
    next_page("fullwidth-host", "http://\N{FULLWIDTH DIGIT ONE}27.0.0.1:{port}/v1/sms/messages"),
    next_page("lone-surrogate", f"{FIRST}?token=\ud800"),
    # An absolute address is documented; a relative one stays on the origin.
    next_page("relative", "/v1/sms/messages?token=a", FOLLOWED_OR_FOREIGN),
    next_page("query-only", "?token=a", FOLLOWED_OR_FOREIGN),
    next_page("bare-token", "a", FOLLOWED_OR_FOREIGN),
    next_page("fragment", f"{A}#here", FOLLOWED_OR_FOREIGN),
    # Longer than many an HTTP library's address.
    next_page(
        "long", f"{FIRST}?token={'a' * 100_000}", Verdict("accepted", ("PaginationError", RESPONSE), also=("failed",))
    ),
    next_page("beyond-ascii", f"{FIRST}?token=\N{SNOWMAN}", FOLLOWED_OR_FOREIGN),
    pages("next-page-itself", evolve(PAGE_FOREIGN, most_requests=2), then=listing("good", A)),
    pages("next-page-first", evolve(PAGE_FOREIGN, most_requests=2), then=listing("good", FIRST)),
    pages(
        "next-page-there-and-back",
        evolve(PAGE_FOREIGN, most_requests=3),
        *(listing("good", url) for url in (A, B, A, B, A, B)),
    ),
    pages(
        "next-page-circle",
        evolve(PAGE_FOREIGN, most_requests=4),
        *(listing("good", url) for url in (A, B, C, A, B, C, A)),
    ),
    page_of("without-data", PAGE_UNREADABLE, query="", next_page=None),
    page_of("data-null", PAGE_UNREADABLE, query="", data=None, next_page=None),
    page_of("data-object", PAGE_UNREADABLE, query="", data={"0": GOOD_MESSAGE}, next_page=None),
    page_of("data-string", PAGE_UNREADABLE, query="", data="none", next_page=None),
    page_of("data-number", PAGE_UNREADABLE, query="", data=0, next_page=None),
    page_of("data-false", PAGE_UNREADABLE, query="", data=False, next_page=None),
    page_of("data-empty", ACCEPTED, query="", data=[], next_page=None),
    page_of("item-null", PAGE_UNREADABLE, query="", data=[None], next_page=None),
    page_of("item-string", PAGE_UNREADABLE, query="", data=["Hello"], next_page=None),
    page_of("item-list", PAGE_UNREADABLE, query="", data=[[]], next_page=None),
    page_of("item-empty", PAGE_UNREADABLE, query="", data=[{}], next_page=None),
    page_of(
        "one-bad-of-three",
        PAGE_UNREADABLE,
        query="",
        data=[GOOD_MESSAGE, GOOD_MESSAGE | {"to": 5}, GOOD_MESSAGE],
    ),
    page_of("extra-members", ACCEPTED, query="", data=[GOOD_MESSAGE], next_page=None, total=1, links={}),
    page_of("query-null", PAGE_READ_OR_NOT, query=None, data=[GOOD_MESSAGE], next_page=None),
    page_of("query-number", PAGE_READ_OR_NOT, query=5, data=[GOOD_MESSAGE], next_page=None),
    page_of("query-absent", PAGE_READ_OR_NOT, data=[GOOD_MESSAGE], next_page=None),
    *(
        message(f"{member}-{kind}", PAGE_UNREADABLE, **{member: value})
        for member in ("to", "from", "message")
        for kind, value in (("null", None), ("number", 5), ("list", ["a"]), ("object", {}))
    ),
    *(message_without(member, PAGE_UNREADABLE) for member in ("to", "from", "message")),
    *(message_without(member, ACCEPTED) for member in ("created_at", "sent_at")),
    *(message_without(member, PAGE_READ_OR_NOT) for member in ("type", "message_id")),
    *(
        message(f"{member}-{kind}", PAGE_UNREADABLE, **{member: value})
        for member in ("created_at", "sent_at")
        for kind, value in (("word", "yesterday"), ("list", []), ("month-13", "2020-13-01T00:00:00Z"))
    ),
    # RFC 3339 has no bare number, no blank for empty, and no year of five digits; a reader may be kinder.
    message("created-number", PAGE_READ_OR_NOT, created_at=1_577_836_800),
    message("created-empty", PAGE_READ_OR_NOT, created_at=""),
    message("created-null", ACCEPTED, created_at=None, sent_at=None),
    message("created-without-offset", ACCEPTED, created_at="2020-01-01T00:00:00"),
    message("created-other-offset", ACCEPTED, created_at="2020-01-01T00:00:00.123456+14:00"),
    # A leap second is RFC 3339, and no Python datetime.
    message("created-leap-second", PAGE_READ_OR_NOT, created_at="2016-12-31T23:59:60Z"),
    message("created-year-one", PAGE_READ_OR_NOT, created_at="0001-01-01T00:00:00+14:00"),
    message("id-number", ACCEPTED, message_id=1_234_567_890),
    message("id-null", PAGE_READ_OR_NOT, message_id=None),
    message("unknown-type", ACCEPTED, type="message_delivered"),
    message("type-null", PAGE_READ_OR_NOT, type=None),
    message("extra-member", ACCEPTED, network={"name": "a"}),
    message("empty-text", ACCEPTED, message=""),
    message("nul-text", ACCEPTED, message="a\x00b"),
    # A lone surrogate is JSON, and no text.
    message("lone-surrogate-text", PAGE_READ_OR_NOT, message="\ud800"),
]


FAULTS: list[Fault] = [
    *stages(),
    *ENDINGS,
    *STATUSES,
    *BROKEN_STATUSES,
    *RETRY_AFTERS,
    *INTERIM,
    *GARBAGE,
    *FRAMING,
    *HEADERS,
    *EXTRA,
    *BODIES,
    *LIMITS,
    *SLOW,
    *EARLY,
    *TLS,
    *LISTINGS,
]
