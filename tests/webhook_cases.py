"""The table: what every way of receiving answers to a request.

It is data only. `test_webhooks_table.py` sends each case through every module on a real server.
"""

from __future__ import annotations

import base64
import json
from typing import Any, Literal

from attrs import evolve, frozen

NEW = "new-secret-0123456789-ABCDEFGHIJKLM"
OLD = "old-secret-0123456789-abcdefghijklM"
GONE = "gone-secret-0123456789-NOPQRSTUVWx"
PREFIX = "/webhooks"
MAX_BODY = 4096

Framing = Literal["length", "chunked", "trickled", "trickled chunks", "unfinished", "unfinished chunks"]


def message(name: str, **changes: Any) -> dict[str, Any]:
    """The vendor's example, under an id of its own."""
    fields = {
        "type": "message_received",
        "from": "1234567890",
        "to": "0987654321",
        "message": "Hello, World!",
        "message_id": f"id of {name}",
        "created_at": "2020-01-01T00:00:00Z",
        "sent_at": "2020-01-01T00:00:00Z",
    }
    return {**fields, **changes}


def encode(fields: Any) -> bytes:
    return json.dumps(fields).encode()


def basic(credentials: str) -> str:
    return f"Basic {base64.b64encode(credentials.encode()).decode()}"


@frozen
class Case:
    """One request and the status it gets.

    Attributes:
        path: as it stands in the request line.
        framing: how the body is sent. `trickled` is byte by byte; `unfinished` never ends, so that the answer
            must come before; servers that read the whole body first are not asked that.
        extra: headers beside the usual ones.
    """

    name: str
    status: int
    body: bytes
    method: str = "POST"
    path: str = f"{PREFIX}/{NEW}"
    content_type: str | None = "application/json"
    framing: Framing = "length"
    extra: tuple[tuple[str, str], ...] = ()

    @property
    def headers(self) -> list[tuple[str, str]]:
        """All but those that frame the body."""
        usual = [] if self.content_type is None else [("Content-Type", self.content_type)]
        return [*usual, *self.extra]

    @property
    def is_unfinished(self) -> bool:
        return self.framing.startswith("unfinished")


def case(name: str, status: int, *, body: bytes | None = None, auth: str | None = None, **changes: Any) -> Case:
    if auth is not None:
        changes["extra"] = (("Authorization", auth), *changes.get("extra", ()))
    return Case(name, status, encode(message(name)) if body is None else body, **changes)


def fields(name: str, status: int, **changes: Any) -> Case:
    """A message with other fields."""
    return case(name, status, body=encode(message(name, **changes)))


def without(name: str, status: int, key: str) -> Case:
    kept = message(name)
    del kept[key]
    return case(name, status, body=encode(kept))


def raw(name: str, status: int, before: str, after: str) -> Case:
    """A message whose JSON is changed by hand."""
    text = json.dumps(message(name), ensure_ascii=False)
    assert before in text
    return case(name, status, body=text.replace(before, after, 1).encode("utf-8", "surrogateescape"))


def padded(name: str, status: int, size: int, **changes: Any) -> Case:
    return case(name, status, body=encode(message(name)).ljust(size), **changes)


def nested(depth: int) -> str:
    return "[" * depth + "]" * depth


HELLO = '"Hello, World!"'
OPEN = f"{PREFIX}/"

AUTHENTICATION = [
    case("the new secret in the path", 200),
    case("the old secret in the path", 200, path=f"{PREFIX}/{OLD}"),
    case("the new secret as a password", 200, path=OPEN, auth=basic(f"cloudware:{NEW}")),
    case("the old secret as a password", 200, path=OPEN, auth=basic(f"cloudware:{OLD}")),
    case("a password without a user", 200, path=OPEN, auth=basic(f":{NEW}")),
    case("the scheme in small letters", 200, path=OPEN, auth=basic(f"a:{NEW}").replace("Basic", "basic")),
    case("the right path and a wrong password", 200, auth=basic("a:b")),
    case("a wrong path and the right password", 200, path=f"{PREFIX}/{GONE}", auth=basic(f"a:{NEW}")),
    case("a query behind the secret", 200, path=f"{PREFIX}/{NEW}?source=sms"),
    case("no secret", 401, path=OPEN),
    case("a wrong secret in the path", 401, path=f"{PREFIX}/wrong-secret-0123456789-ABCDEFGHIJK"),
    case("the secret before the last in the path", 401, path=f"{PREFIX}/{GONE}"),
    case("the secret before the last as a password", 401, path=OPEN, auth=basic(f"cloudware:{GONE}")),
    case("a wrong password", 401, path=OPEN, auth=basic("cloudware:wrong")),
    case("wrong both ways", 401, path=f"{PREFIX}/{GONE}", auth=basic("cloudware:wrong")),
    case("credentials without a colon", 401, path=OPEN, auth=basic(NEW)),
    case("the secret as the user", 401, path=OPEN, auth=basic(f"{NEW}:")),
    case("credentials that are no base64", 401, path=OPEN, auth=f"Basic {NEW}!"),
    case("no credentials", 401, path=OPEN, auth="Basic"),
    case("a bearer token", 401, path=OPEN, auth=f"Bearer {NEW}"),
    case("the secret less a letter", 401, path=f"{PREFIX}/{NEW[:-1]}"),
    case("the secret and a letter", 401, path=f"{PREFIX}/{NEW}x"),
    case("the secret in other case", 401, path=f"{PREFIX}/{NEW.swapcase()}"),
    case("the secret in the query", 401, path=f"{PREFIX}/?{NEW}"),
    case("the secret not at the end", 401, path=f"{PREFIX}/{NEW}/more"),
    case("a slash behind the secret", 401, path=f"{PREFIX}/{NEW}/"),
    case("a letter outside ASCII in the path", 401, path=f"{PREFIX}/caf%C3%A9"),
]

METHODS = [
    *(case(f"{method} with the secret", 405, method=method, body=b"") for method in ("GET", "HEAD", "OPTIONS")),
    *(case(f"{method} with the secret", 405, method=method) for method in ("PUT", "PATCH", "DELETE")),
    case("GET without the secret", 401, method="GET", path=OPEN, body=b""),
    case("PUT with a wrong secret", 401, method="PUT", path=f"{PREFIX}/{GONE}"),
]

LENGTHS = [
    padded("as long as may be", 200, MAX_BODY),
    padded("as long as may be, in chunks", 200, MAX_BODY, framing="chunked"),
    padded("a byte too long", 413, MAX_BODY + 1),
    padded("a byte too long, in chunks", 413, MAX_BODY + 1, framing="chunked"),
    padded("far too long", 413, 20 * MAX_BODY),
    padded("far too long, in chunks", 413, 20 * MAX_BODY, framing="chunked"),
    padded("too long by its header, before it came", 413, 20 * MAX_BODY, framing="unfinished"),
    padded("too long in chunks without end", 413, 2 * MAX_BODY, framing="unfinished chunks"),
    padded("too long and without the secret", 401, 2 * MAX_BODY, path=OPEN),
    padded("too long without the secret, before it came", 401, 20 * MAX_BODY, path=OPEN, framing="unfinished"),
    padded("too long for a PUT", 405, 2 * MAX_BODY, method="PUT"),
    padded("too long and no JSON", 413, 2 * MAX_BODY, content_type="text/plain"),
    padded("too long in chunks and no JSON", 413, 2 * MAX_BODY, content_type="text/plain", framing="chunked"),
    case("byte by byte", 200, framing="trickled"),
    case("byte by byte, in chunks", 200, framing="trickled chunks"),
    case("nothing", 400, body=b""),
    case("nothing, in chunks", 400, body=b"", framing="chunked"),
]

TYPES = [
    case("with a charset", 200, content_type="application/json; charset=utf-8"),
    case("in capitals", 200, content_type="Application/JSON"),
    case("with a semicolon", 200, content_type="application/json;"),
    case("with another charset, which JSON does not have", 200, content_type="application/json;charset=latin-1"),
    case("encoded as itself", 200, extra=(("Content-Encoding", "identity"),)),
    case("no content type", 415, content_type=None),
    case("plain text", 415, content_type="text/plain"),
    case("a form", 415, content_type="application/x-www-form-urlencoded"),
    case("a form in parts", 415, content_type="multipart/form-data; boundary=x"),
    case("text that is JSON", 415, content_type="text/json"),
    case("another kind of JSON", 415, content_type="application/problem+json"),
    case("nearly JSON", 415, content_type="application/jsonp"),
    case("a hard space behind it", 415, content_type="application/json\xa0"),
    case("two types", 415, content_type="application/json, text/plain"),
    case("compressed", 415, extra=(("Content-Encoding", "gzip"),)),
    case("neither JSON nor said to be", 415, content_type="text/plain", body=b"\xff"),
]

BODIES = [
    raw("a byte that is no UTF-8", 400, "Hello", "\udcff"),
    raw("a letter cut in half", 400, "Hello", "\udcc3"),
    raw("an overlong letter", 400, "Hello", "\udcc0\udcaf"),
    raw("half a surrogate pair as bytes", 400, "Hello", "\udced\udca0\udc80"),
    case("UTF-16", 400, body=json.dumps(message("UTF-16")).encode("utf-16")),
    case("a byte order mark", 200, body=b"\xef\xbb\xbf" + encode(message("a byte order mark"))),
    case("two byte order marks", 400, body=b"\xef\xbb\xbf\xef\xbb\xbf" + encode(message("two byte order marks"))),
    case("spaces around", 200, body=b" \r\n\t" + encode(message("spaces around")) + b"\n"),
    case("letters of other alphabets", 200, body=json.dumps(
        message("letters of other alphabets", message="Ẹ káàárọ̀ 👋🏾"), ensure_ascii=False).encode()),
    case("an array", 400, body=b"[]"),
    case("an array of messages", 400, body=encode([message("an array of messages")])),
    case("a string", 400, body=b'"Hello"'),
    case("a number", 400, body=b"42"),
    case("null", 400, body=b"null"),
    case("an object of nothing", 400, body=b"{}"),
    case("spaces only", 400, body=b"   "),
    case("cut off", 400, body=encode(message("cut off"))[:-1]),
    case("something behind", 400, body=encode(message("something behind")) + b"x"),
    case("two messages", 400, body=2 * encode(message("two messages"))),
    case("single quotes", 400, body=str(message("single quotes")).encode()),
    raw("a comma too many", 400, "}", ",}"),
    raw("a comment", 400, "{", "{/* hello */"),
    raw("NaN", 400, HELLO, f'{HELLO}, "cost": NaN'),
    raw("infinity", 400, HELLO, f'{HELLO}, "cost": -Infinity'),
    raw("a number of 3,500 digits", 200, HELLO, f'{HELLO}, "cost": {"9" * 3500}'),
    raw("a number too large for a float", 200, HELLO, f'{HELLO}, "cost": 1e999'),
    raw("nested 50 deep", 200, HELLO, f'{HELLO}, "cost": {nested(50)}'),
    raw("a key given twice", 200, HELLO, f'{HELLO}, "message": "Good bye"'),
    raw("a key given twice, wrong at last", 400, HELLO, f'{HELLO}, "message": null'),
    fields("an unknown key", 200, carrier="MTN"),
    fields("an unknown type", 200, type="message_failed"),
    fields("a sent message", 200, type="message_sent"),
    fields("an empty text", 200, message=""),
    fields("control characters", 200, message="\x01\x07\x1b[31m\x7f\r\n"),
    fields("a null character", 200, message="before\x00after"),
    raw("a control character as it is", 400, "Hello", "\x01"),
    fields("half a surrogate pair", 200, message="\ud83d"),
    *(without(f"without {key}", 400, key) for key in ("type", "from", "to", "message")),
    *(without(f"without {key}", 200, key) for key in ("message_id", "created_at", "sent_at")),
    *(fields(f"{key} is null", 400, **{key: None}) for key in ("type", "from", "to", "message")),
    *(fields(f"{key} is a number", 400, **{key: 5}) for key in ("type", "from", "to", "message")),
    fields("the text is an array", 400, message=["Hello"]),
    fields("the text is an object", 400, message={"text": "Hello"}),
    fields("the id is a number", 200, message_id=1234567890),
    fields("the id is null", 200, message_id=None, message="no id: null"),
    fields("the id is empty", 200, message_id="", message="no id: empty"),
    fields("the id is a fraction", 400, message_id=1.5),
    fields("the id is true", 400, message_id=True),
    fields("the id is an array", 400, message_id=[1]),
    fields("a day for a timestamp", 400, sent_at="2020-01-01"),
    fields("a number for a timestamp", 400, sent_at=1577836800),
    fields("the thirtieth of February", 400, sent_at="2020-02-30T00:00:00Z"),
    fields("a timestamp without an offset", 200, sent_at="2020-01-01T00:00:00"),
    fields("a timestamp that is null", 200, sent_at=None),
]  # fmt: skip

CASES = [*AUTHENTICATION, *METHODS, *LENGTHS, *TYPES, *BODIES]

# longer than the table's cap; for a receiver with a larger one, and for `parse` itself
LONG_BODIES = [
    raw("a number of 5,000 digits", 400, HELLO, f'{HELLO}, "cost": {"9" * 5000}'),
    raw("an id of 5,000 digits", 400, '"id of an id of 5,000 digits"', "9" * 5000),
    raw("nested 500 deep, with the message", 200, HELLO, f'{HELLO}, "cost": {nested(499)}'),
    raw("nested 501 deep", 400, HELLO, f'{HELLO}, "cost": {nested(500)}'),
    raw("nested 900 deep", 400, HELLO, f'{HELLO}, "cost": {nested(900)}'),
    raw("nested 100,000 deep", 400, HELLO, f'{HELLO}, "cost": {nested(100_000)}'),
    evolve(case("100,000 arrays", 400), body=nested(100_000).encode()),
    fields("a text of 60,000 letters", 200, message="x" * 60_000),
]
