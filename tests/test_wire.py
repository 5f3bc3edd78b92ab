"""The API's rules, one table each: arguments become a request, an answer becomes a model or an error."""

from __future__ import annotations

import base64
import gc
import gzip
import json
import re
import sys
import zlib
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import attrs
import pytest

from cloudware_async import (
    APIConnectionError,
    APIResponseError,
    APIStatusError,
    APITimeoutError,
    AuthenticationError,
    BadRequestError,
    ConfigurationError,
    ConflictError,
    InvalidArgumentError,
    Message,
    NotFoundError,
    PaginationError,
    PermissionDeniedError,
    RateLimitError,
    Receipt,
    ServerError,
    UnprocessableEntityError,
    _wire,
)
from cloudware_async._retry import may_repeat
from cloudware_async._wire import (
    FILTERS,
    MEBIBYTE,
    VENDOR_URL,
    Answer,
    Failure,
    FailureKind,
    Listing,
    Malformed,
    Origin,
    Place,
    decode_body,
    error_from_failure,
    error_from_status,
    messages_request,
    read_base_url,
    read_cursor,
    read_filters,
    read_json,
    read_limit,
    read_message,
    read_number,
    read_page,
    read_receipt,
    read_retry_after,
    read_token,
    send_request,
)

BASE = read_base_url("https://api.cloudware.chat/v1")
TOKEN = read_token("canary-token")
SEND = send_request(BASE, TOKEN, "/sms/send", "2348012345678", "Hello", None)
READ = messages_request(BASE, TOKEN, Place())

LONE_SURROGATES = {"half a pair, the first": "\ud83d", "half a pair, the second": "a\ude00b"}
NO_STRINGS = {"a whole number": 2348012345678, "a fraction": 1.5, "bytes": b"2348012345678", "a list": ["1"]}
NOTHING = {"None": None, "empty": ""}


def cases(table: dict[str, Any]) -> dict[str, Any]:
    """A table for `parametrize`, each row under its name."""
    return {"argvalues": list(table.values()), "ids": list(table)}


def answer(body: Any = b"", status: int = 200, *headers: tuple[str, str | bytes], is_whole: bool = True) -> Answer:
    """An answer with these headers; a body that is no bytes is written as JSON."""
    raw = [(name.encode(), value if isinstance(value, bytes) else value.encode()) for name, value in headers]
    return Answer(status, raw, body if isinstance(body, bytes) else json.dumps(body).encode(), is_whole)


def assert_unchained(error: BaseException) -> None:
    """No chain shows what a lower floor held."""
    assert (None, None) == (error.__cause__, error.__context__)


# ---------------------------------------------------------------- numbers

GOOD_NUMBERS = {
    "the vendor's own": ("2348012345678", "2348012345678"),
    "a plus": ("+2348012345678", "2348012345678"),
    "spaces": ("+234 801 234 5678", "2348012345678"),
    "spaces around": (" 2348012345678 ", "2348012345678"),
    "dashes": ("234-801-234-5678", "2348012345678"),
    "dots": ("234.801.234.5678", "2348012345678"),
    "brackets": ("+(234) [801] 2345678", "2348012345678"),
    "a plus in brackets": ("(+234)8012345678", "2348012345678"),
    "leading zeros": ("00012", "00012"),
    "5 digits": ("12345", "12345"),
    "15 digits": ("123456789012345", "123456789012345"),
    "a plus and 15 digits": ("+123456789012345", "123456789012345"),
}
BAD_NUMBERS = {
    **NO_STRINGS,
    **NOTHING,
    **LONE_SURROGATES,
    "a plus alone": "+",
    "separators alone": " -.()[]",
    "4 digits": "1234",
    "4 digits and separators": "1-2-3-4",
    "16 digits": "1234567890123456",
    "Arabic-Indic digits": "٢٣٤٨٠١٢٣٤٥٦٧٨",
    "fullwidth digits": "２３４８０１２３４５６７８",
    "superscripts": "²³⁴⁸⁰¹²",
    "one foreign digit among ASCII": "234801234567８",
    "letters": "CLOUDWARE",
    "letters among digits": "2348O12345678",
    "plus in the middle": "234+8012345678",
    "plus at the end": "2348012345678+",
    "two pluses": "++2348012345678",
    "fullwidth plus": "＋2348012345678",
    "a slash": "234/8012345678",
    "a comma": "234,8012345678",
    "an en dash": "234–8012345678",
    "a no-break space": "234\u00a08012345678",
    "a tab": "234\t8012345678",
    "a newline at the end": "2348012345678\n",
    "a zero byte": "2348012345678\0",
    "braces": "{234}8012345678",
    "hexadecimal": "0x2348012345",
    "an exponent": "1e12345",
    "two numbers": "12345;12345",
}


@pytest.mark.parametrize(("to", "digits"), **cases(GOOD_NUMBERS))
def test_good_number(to, digits):
    """A number is reduced to its digits."""
    assert digits == read_number(to)


@pytest.mark.parametrize("to", **cases(BAD_NUMBERS))
def test_bad_number(to):
    """What is not 5 to 15 ASCII digits without its separators is refused, in words that do not repeat it."""
    with pytest.raises(InvalidArgumentError, match=r"^to must be a phone number .* 5 to 15 digits") as caught:
        send_request(BASE, TOKEN, "/sms/send", to, "Hello", None)

    assert not caught.value.may_have_been_sent
    assert_unchained(caught.value)


# ---------------------------------------------------------------- messages and senders

TEXTS = {
    "plain": "Hello",
    "one letter": "a",
    "one space": " ",
    "a newline": "\n",
    "control characters": "".join(map(chr, range(32))) + "\x7f",
    "quotes and backslashes": '"\\"/\\u0041',
    "an emoji with joiners": "👩‍👩‍👧‍👦",
    "right to left": "שלום \u202eعليكم\u202c",
    "combining marks": "Z͑ͫ̓ͪ̂ͫ̽͏̴̙̤̞͉͚̯̞̠͍A̴̵̜̰͔ͫ͗͢L̠ͨͧͩ͘G̴̻͈͍͔̹̑͗̎̅͛́Ǫ̵̹̻̝̳͂̌̌͘",
    "line separators": "\u2028\u2029\u0085",
    "the last code point": "\U0010ffff",
    "no characters": "\ufffe\uffff",
    "a byte order mark": "\ufeffHello",
    "1,600 letters": "ä" * 1600,
}


@pytest.mark.parametrize("text", **cases(TEXTS))
def test_text_on_the_wire(text):
    """Any text stands in the body as UTF-8 and comes back from it as it was."""
    request = send_request(BASE, TOKEN, "/sms/send", "+2348012345678", text, text)
    assert {"to": "2348012345678", "message": text, "from": text} == json.loads(request.body.decode())


@pytest.mark.parametrize("message", **cases(NO_STRINGS | NOTHING))
def test_bad_message(message):
    """A message is a string that is not empty."""
    with pytest.raises(InvalidArgumentError, match=r"^message must be a string that is not empty$") as caught:
        send_request(BASE, TOKEN, "/sms/send", "2348012345678", message, None)
    assert_unchained(caught.value)


@pytest.mark.parametrize("sender", **cases(NO_STRINGS | {"empty": "", "zero": 0, "false": False}))
def test_bad_sender(sender):
    """A sender is a string that is not empty; only None stands for no sender."""
    with pytest.raises(InvalidArgumentError, match=r"^from_ must be a string that is not empty$") as caught:
        send_request(BASE, TOKEN, "/sms/send", "2348012345678", "Hello", sender)
    assert_unchained(caught.value)


@pytest.mark.parametrize("text", **cases(LONE_SURROGATES))
@pytest.mark.parametrize("name", ["message", "from_"])
def test_lone_surrogate(name, text):
    """Half a surrogate pair is refused with a hint where it came from."""
    with pytest.raises(
        InvalidArgumentError, match=r"holds half of a surrogate pair, .* cut or decoded wrongly"
    ) as caught:
        send_request(BASE, TOKEN, "/sms/send", "2348012345678", **({"message": "Hello", "from_": None} | {name: text}))
    assert_unchained(caught.value)


# ---------------------------------------------------------------- tokens

GOOD_TOKENS = {
    "letters": "abc",
    "one character": "!",
    "what bearer tokens are made of": "a1-._~+/==",
    "every visible character": "".join(map(chr, range(0x21, 0x7F))),
}
BAD_TOKENS = {
    "a space before": " c4n4ry",
    "a space after": "c4n4ry ",
    "a space within": "c4n4ry c4n4ry",
    "a space alone": " ",
    "a newline": "c4n4ry\n",
    "a carriage return and header": "c4n4ry\r\nX-Evil: 1",
    "a tab": "c4n4ry\tc4n4ry",
    "a zero byte": "c4n4ry\0c4n4ry",
    "delete": "c4n4ry\x7fc4n4ry",
    "a letter outside ASCII": "c4n4ryé",
    "a no-break space": "c4n4ry\u00a0c4n4ry",
    "half a surrogate pair": "c4n4ry\ud83dc4n4ry",
    "bytes": b"c4n4ry",
    "a number": 5,
    "false": False,
}


@pytest.mark.parametrize("token", **cases(GOOD_TOKENS))
def test_good_token(token):
    """Visible ASCII characters are a token."""
    assert token == read_token(token).reveal()


@pytest.mark.parametrize("token", [None, ""])
def test_missing_token(token):
    """Without a token one is told where it can be put."""
    with pytest.raises(ConfigurationError, match=r"^no access token: .*access_token=… or set CLOUDWARE_ACCESS_TOKEN$"):
        read_token(token)


@pytest.mark.parametrize("token", **cases(BAD_TOKENS))
def test_bad_token(token):
    """What cannot stand in a header, or was copied with something beside it, is refused and not shown."""
    with pytest.raises(ConfigurationError, match=r"copy it again") as caught:
        read_token(token)
    assert "c4n4ry" not in str(caught.value)
    assert_unchained(caught.value)


# ---------------------------------------------------------------- base URLs

GOOD_BASE_URLS = {
    "the vendor's": (VENDOR_URL, "https://api.cloudware.chat/v1"),
    "a slash at the end": ("https://api.cloudware.chat/v1/", "https://api.cloudware.chat/v1"),
    "slashes at the end": ("https://api.cloudware.chat/v1//", "https://api.cloudware.chat/v1"),
    "no path": ("https://api.cloudware.chat", "https://api.cloudware.chat"),
    "a slash for a path": ("https://api.cloudware.chat/", "https://api.cloudware.chat"),
    "upper case": ("HTTPS://API.Cloudware.Chat/V1", "https://api.cloudware.chat/V1"),
    "the default port of https": ("https://api.cloudware.chat:443/v1", "https://api.cloudware.chat/v1"),
    "the default port of http": ("http://localhost:80/v1", "http://localhost/v1"),
    "the other's default port": ("http://localhost:443", "http://localhost:443"),
    "a port": ("http://127.0.0.1:8080/v1", "http://127.0.0.1:8080/v1"),
    "the first port": ("http://localhost:1", "http://localhost:1"),
    "the last port": ("http://localhost:65535", "http://localhost:65535"),
    "a port with zeros before it": ("http://localhost:008080", "http://localhost:8080"),
    "IPv6": ("http://[::1]/v1", "http://[::1]/v1"),
    "IPv6 and a port": ("http://[2001:DB8::1]:8080/v1", "http://[2001:db8::1]:8080/v1"),
    "an at sign in the path": ("https://localhost/@me", "https://localhost/@me"),
    "percent-encoding": ("https://localhost/a%20b", "https://localhost/a%20b"),
    "IPv6 that holds IPv4": ("http://[::ffff:127.0.0.1]/v1", "http://[::ffff:127.0.0.1]/v1"),
    "a name that is encoded": ("https://xn--mnchen-3ya.example/v1", "https://xn--mnchen-3ya.example/v1"),
    "a name with an underscore and a dash": ("http://sms_gate-way/v1", "http://sms_gate-way/v1"),
    "a name with a dot at its end": ("http://localhost./v1", "http://localhost./v1"),
    "a name of digits and letters": ("http://127.0.0.1.example/v1", "http://127.0.0.1.example/v1"),
    "30,000 characters": ("http://localhost/".ljust(30_000, "a"), "http://localhost/".ljust(30_000, "a")),
}
BAD_BASE_URLS = {
    **NO_STRINGS,
    **NOTHING,
    "bytes": b"https://api.cloudware.chat/v1",
    "no scheme": "api.cloudware.chat/v1",
    "no scheme but slashes": "//api.cloudware.chat/v1",
    "a path": "/v1",
    "ftp": "ftp://api.cloudware.chat/v1",
    "a WebSocket": "wss://api.cloudware.chat/v1",
    "a file": "file:///etc/passwd",
    "a script": "javascript:alert(1)",
    "a scheme alone": "https:",
    "one slash": "https:/api.cloudware.chat/v1",
    "no host": "https://",
    "no host but a path": "https:///v1",
    "no host but a port": "https://:443/v1",
    "no host but a query": "https://?a=b",
    "empty brackets": "http://[]/v1",
    "an open bracket": "http://[::1/v1",
    "brackets round a name": "http://[localhost]/v1",
    "something after the brackets": "http://[::1]evil.example/v1",
    "something before the brackets": "http://evil.example[::1]/v1",
    "an address of a future IP": "http://[v1.a]/v1",
    "a user": "https://me@api.cloudware.chat/v1",
    "a user and a password": "https://me:secret@api.cloudware.chat/v1",
    "an empty user": "https://@api.cloudware.chat/v1",
    "a space before": " https://api.cloudware.chat/v1",
    "a space after": "https://api.cloudware.chat/v1 ",
    "a space within": "https://api.cloudware.chat/v 1",
    "a newline": "https://api.cloudware.chat/v1\n",
    "a newline within": "https://api.cloud\nware.chat/v1",
    "a tab within": "ht\ttps://api.cloudware.chat/v1",
    "a zero byte": "https://api.cloudware.chat/v1\0",
    "delete": "https://api.cloudware.chat/v1\x7f",
    "backslashes": "https:\\\\api.cloudware.chat\\v1",
    "a backslash in the host": "https://evil.example\\@api.cloudware.chat/v1",
    "a letter outside ASCII in the host": "https://münchen.example/v1",
    "a letter outside ASCII in the path": "https://api.cloudware.chat/ä",
    "half a surrogate pair": "https://api.cloudware.chat/\ud83d",
    "port 0": "https://api.cloudware.chat:0/v1",
    "port 65536": "https://api.cloudware.chat:65536/v1",
    "port 99999": "https://api.cloudware.chat:99999/v1",
    "a negative port": "https://api.cloudware.chat:-1/v1",
    "a port with a plus": "https://api.cloudware.chat:+443/v1",
    "an empty port": "https://api.cloudware.chat:/v1",
    "a named port": "https://api.cloudware.chat:https/v1",
    "two ports": "https://api.cloudware.chat:443:443/v1",
    "fullwidth digits for a port": "https://api.cloudware.chat:４４３/v1",
    "a percent sign in the host": "http://local%68ost/v1",
    "a caret in the host": "http://local^host/v1",
    "an IPv6 address with a zone": "http://[fe80::1%25eth0]/v1",
    "half an IPv4 address": "http://127.1/v1",
    "an IPv4 address with zeros": "http://127.0.0.01/v1",
    "five numbers": "http://1.2.3.4.5/v1",
    "an IPv4 address with a dot at its end": "http://127.0.0.1./v1",
    "no address in brackets": "http://[::g]/v1",
    "an IPv4 address in brackets": "http://[127.0.0.1]/v1",
    "a dot for a host": "http://./v1",
    "30,001 characters": "http://localhost/".ljust(30_001, "a"),
}
# `urlsplit` takes these; what is made of them would end in an error of the HTTP library, not of ours
IMPOSSIBLE_HOSTS = {
    "an IPv4 address out of range": "http://999.999.999.999/v1",
    "a part of a name that is too long": f"http://{'a' * 64}.example/v1",
    "a part of a name that is empty": "http://api..example/v1",
    "a name that only looks encoded": "https://xn--/v1",
    "a name that only looks encoded, further on": "https://api.xn--zzzz.example/v1",
    "a name that only looks encoded, in upper case": "https://XN--ZZZZ/v1",
}


@pytest.mark.parametrize(("url", "shown"), **cases(GOOD_BASE_URLS))
def test_good_base_url(url, shown):
    """A base URL is kept in one form: lower-case, without the default port and without a slash at its end."""
    assert shown == str(read_base_url(url))


@pytest.mark.parametrize(
    ("url", "origin", "path"),
    [
        ("https://api.cloudware.chat/v1", Origin("https", "api.cloudware.chat", 443), "/v1"),
        ("http://LOCALHOST", Origin("http", "localhost", 80), ""),
        ("http://[::1]:8080/a/b/", Origin("http", "::1", 8080), "/a/b"),
    ],
)
def test_parts_of_a_base_url(url, origin, path):
    """A base URL is an origin and a path."""
    base = read_base_url(url)
    assert (origin, path) == (base.origin, base.path)


@pytest.mark.parametrize("url", **cases(BAD_BASE_URLS))
def test_bad_base_url(url):
    """What is no plain http(s) URL with a host is refused, and its password is not shown."""
    with pytest.raises(ConfigurationError, match=r"^base_url must be like 'https://api.cloudware.chat/v1'") as caught:
        read_base_url(url)
    assert "secret" not in str(caught.value)
    assert_unchained(caught.value)


@pytest.mark.parametrize("end", ["?a=b", "?", "/?", "#here", "#", "/v1?a#b"])
def test_base_url_with_more_than_a_path(end):
    """A query or a fragment is refused, even when it is empty."""
    with pytest.raises(ConfigurationError, match=r"^base_url must have no query \('\?…'\) and no fragment \('#…'\)$"):
        read_base_url(f"https://api.cloudware.chat{end}")


@pytest.mark.parametrize("url", **cases(IMPOSSIBLE_HOSTS))
def test_base_url_with_an_impossible_host(url):
    """A host that no request can be made to is refused at once, not when the first text is sent."""
    with pytest.raises(ConfigurationError):
        read_base_url(url)


# ---------------------------------------------------------------- requests

BODIES = {
    "without a sender": (("2348012345678", "Hello", None), b'{"to":"2348012345678","message":"Hello"}'),
    "with a sender": (
        ("+234 801 234 5678", "Hello", "CLOUDWARE"),
        b'{"to":"2348012345678","message":"Hello","from":"CLOUDWARE"}',
    ),
    "letters outside ASCII are written as they are": (
        ("12345", "é👍\u2028", "ñ"),
        '{"to":"12345","message":"é👍\u2028","from":"ñ"}'.encode(),
    ),
    "what JSON must escape is escaped": (
        ("12345", '"\\\n\0', None),
        b'{"to":"12345","message":"\\"\\\\\\n\\u0000"}',
    ),
}
TARGETS = {
    "no filter": ({}, "/v1/sms/messages"),
    "the vendor's own": (
        {"device_id": "2254", "phone": "+40722000000"},
        "/v1/sms/messages?device_id=2254&phone=%2B40722000000",
    ),
    "every filter, in their order": (
        {"device_id": "1", "phone": "2", "to": "3", "from": "4", "message": "5"},
        "/v1/sms/messages?device_id=1&phone=2&to=3&from=4&message=5",
    ),
    "None is left out": ({"to": None, "from": "4", "message": None}, "/v1/sms/messages?from=4"),
    "a space is %20": ({"message": "a b"}, "/v1/sms/messages?message=a%20b"),
    "what means something in a URL": (
        {"message": "&=#?/%+;:@"},
        "/v1/sms/messages?message=%26%3D%23%3F%2F%25%2B%3B%3A%40",
    ),
    "what means nothing": ({"message": "aZ09-._~"}, "/v1/sms/messages?message=aZ09-._~"),
    "UTF-8": ({"message": "é👍"}, "/v1/sms/messages?message=%C3%A9%F0%9F%91%8D"),
    "control characters": ({"message": "\r\n\0"}, "/v1/sms/messages?message=%0D%0A%00"),
    "nothing is reformatted": ({"to": "+234 (801)"}, "/v1/sms/messages?to=%2B234%20%28801%29"),
    "an empty one": ({"to": ""}, "/v1/sms/messages?to="),
}


@pytest.mark.parametrize("path", ["/sms/send", "/sms/queue"])
@pytest.mark.parametrize(("arguments", "body"), **cases(BODIES))
def test_request_of_a_send(arguments, body, path):
    """A send is a POST of compact JSON, whose answer is capped at 1 MiB."""
    request = send_request(BASE, TOKEN, path, *arguments)

    assert body == request.body
    assert ("POST", f"/v1{path}", True) == (request.method, request.target, request.is_send)
    assert (BASE.origin, TOKEN, MEBIBYTE) == (request.origin, request.token, request.max_body)


@pytest.mark.parametrize(("filters", "target"), **cases(TARGETS))
def test_request_of_a_listing(filters, target):
    """A listing is a GET; filters are sent as given, only percent-encoded; its answer is capped at 32 MiB."""
    request = messages_request(BASE, TOKEN, Place(read_filters(**filters)))

    assert target == request.target
    assert ("GET", None, False) == (request.method, request.body, request.is_send)
    assert (BASE.origin, TOKEN, 32 * 1024 * 1024) == (request.origin, request.token, request.max_body)


def test_what_is_private_in_a_request():
    """The token, the texts and the numbers, with and without what is written round their digits."""
    sent = send_request(BASE, TOKEN, "/sms/send", "+234 801 234 5678", "Hello", "Shop")
    assert {TOKEN.reveal(), "2348012345678", "+234 801 234 5678", "Hello", "Shop"} == {*sent.private}
    listed = messages_request(BASE, TOKEN, Place({"to": "+2348012345678", "message": "Hello+"}))
    assert {TOKEN.reveal(), "+2348012345678", "2348012345678", "Hello+"} == {*listed.private}


def test_request_under_no_path():
    """A base URL without a path adds nothing to the calls' own."""
    base = read_base_url("http://localhost")
    assert "/sms/send" == send_request(base, TOKEN, "/sms/send", "12345", "Hello", None).target
    assert "/sms/messages" == messages_request(base, TOKEN, Place()).target


@pytest.mark.parametrize("value", **cases(NO_STRINGS | {"an empty tuple": (), "false": False}))
@pytest.mark.parametrize("name", FILTERS)
def test_bad_filter(name, value):
    """A filter is a string; the error names the parameter, not the wire's key."""
    shown = "from_" if name == "from" else name
    with pytest.raises(InvalidArgumentError, match=f"^{shown} must be a string$") as caught:
        read_filters(**{name: value})
    assert_unchained(caught.value)


@pytest.mark.parametrize("value", **cases(LONE_SURROGATES))
@pytest.mark.parametrize("name", FILTERS)
def test_filter_with_half_a_surrogate_pair(name, value):
    """A filter that UTF-8 cannot carry is refused by its parameter's name."""
    shown = "from_" if name == "from" else name
    with pytest.raises(InvalidArgumentError, match=f"^{shown} holds half of a surrogate pair") as caught:
        read_filters(**{name: value})
    assert_unchained(caught.value)


@pytest.mark.parametrize(
    ("filters", "is_good"),
    [
        ({"message": "a" * (30_000 - len("message="))}, True),
        ({"message": "a" * (30_001 - len("message="))}, False),
        ({"message": "é" * 5000}, False),
        ({"to": "1" * 15_000, "message": "a" * 14_999}, False),
    ],
    ids=["30,000 characters", "30,001 characters", "fewer, but percent-encoded", "together"],
)
def test_length_of_filters(filters, is_good):
    """Filters are as long as a URL may be, or refused before anything is asked."""
    if is_good:
        assert filters == read_filters(**filters)
        return
    with pytest.raises(InvalidArgumentError, match=r"^the filters are too long for a URL$") as caught:
        read_filters(**filters)
    assert_unchained(caught.value)


@pytest.mark.parametrize("limit", [None, 0, 1, 10**30])
def test_good_limit(limit):
    """A limit is None or a whole number from 0."""
    assert limit == read_limit(limit)


@pytest.mark.parametrize("limit", [-1, 1.0, "1", True, False, b"1", [1], float("nan")])
def test_bad_limit(limit):
    """Any other limit is refused."""
    with pytest.raises(InvalidArgumentError, match=r"^limit must be a whole number of messages, or None for all$"):
        read_limit(limit)


# ---------------------------------------------------------------- receipts

DOCUMENTED = {
    "data": {
        "id": "12345",
        "name": "Example Resource",
        "description": "This is an example resource.",
        "created_at": "2023-01-01T00:00:00Z",
        "updated_at": "2023-01-01T00:00:01Z",
    },
    "status": "success",
}
ACCEPTED = {
    "as documented": (
        DOCUMENTED,
        Receipt(
            id="12345",
            status="success",
            name="Example Resource",
            description="This is an example resource.",
            created_at=datetime(2023, 1, 1, tzinfo=UTC),
            updated_at=datetime(2023, 1, 1, 0, 0, 1, tzinfo=UTC),
        ),
    ),
    "an object under data alone": ({"data": {}}, Receipt()),
    "an object under data, and an id": ({"data": {"id": "1"}}, Receipt(id="1")),
    "status alone": ({"status": "success"}, Receipt(status="success")),
    "status, and null under data": (
        {"status": "success", "data": None},
        Receipt(status="success", extra={"data": None}),
    ),
    "status, and a list under data": (
        {"status": "success", "data": [1]},
        Receipt(status="success", extra={"data": [1]}),
    ),
    "status, and a text under data": (
        {"status": "success", "data": "ok"},
        Receipt(status="success", extra={"data": "ok"}),
    ),
    "an id that is a number": ({"data": {"id": 12345}}, Receipt(id="12345")),
    "an id that is a large number": ({"data": {"id": 10**30}}, Receipt(id=str(10**30))),
    "an id that is 0": ({"data": {"id": 0}}, Receipt(id="0")),
    "an id that is empty": ({"data": {"id": ""}}, Receipt(id="")),
    "null wherever it may be": (
        {"data": dict.fromkeys(("id", "name", "description", "created_at", "updated_at"))},
        Receipt(),
    ),
    "unknown keys beside and under data": (
        {"status": "success", "cost": 3, "data": {"id": "1", "parts": [1, {"a": None}]}},
        Receipt(id="1", status="success", extra={"cost": 3, "parts": [1, {"a": None}]}),
    ),
    "an error beside the success": (
        {"status": "success", "error": "none"},
        Receipt(status="success", extra={"error": "none"}),
    ),
    "a timestamp without an offset": (
        {"data": {"created_at": "2023-01-01T00:00:00"}},
        Receipt(created_at=datetime(2023, 1, 1, tzinfo=UTC)),
    ),
}
NO_RECEIPT_STRINGS = {"a number": 5, "true": True, "a list": ["a"], "an object": {"a": 1}, "a fraction": 1.5}
NO_TIMESTAMPS = {
    "empty": "",
    "words": "yesterday",
    "a number": 1672531200,
    "a list": [],
    "an object": {},
    "false": False,
    "month 13": "2023-13-01T00:00:00Z",
    "offset 24:00": "2023-01-01T00:00:00+24:00",
    "a leap second after the last year": "9999-12-31T23:59:60Z",
}
MALFORMED_FIELDS = {
    **{
        f"{field}, {what}": (field, value)
        for field in ("name", "description")
        for what, value in NO_RECEIPT_STRINGS.items()
    },
    **{f"id, {what}": ("id", value) for what, value in NO_RECEIPT_STRINGS.items() if what != "a number"},
    **{
        f"{field}, {what}": (field, value)
        for field in ("created_at", "updated_at")
        for what, value in NO_TIMESTAMPS.items()
    },
}
UNKNOWN = {
    "empty": b"",
    "a space": b" ",
    "HTML": b"<!doctype html><title>OK</title>",
    "a word": b"OK",
    "an array": b"[]",
    "an array with a receipt": json.dumps([DOCUMENTED]).encode(),
    "null": b"null",
    "true": b"true",
    "a number": b"200",
    "a string": b'"success"',
    "truncated": json.dumps(DOCUMENTED).encode()[:-1],
    "two documents": b'{"status": "success"}{"status": "success"}',
    "an empty object": b"{}",
    "status error": b'{"status": "error"}',
    "status error, with an object under data": b'{"status": "error", "data": {"id": "1"}}',
    "status null, with an object under data": b'{"status": null, "data": {"id": "1"}}',
    "status in upper case": b'{"status": "SUCCESS"}',
    "status with a space": b'{"status": "success "}',
    "status true": b'{"status": true}',
    "status 200": b'{"status": 200, "data": {}}',
    "status in a list": b'{"status": ["success"], "data": {}}',
    "another status": b'{"status": "queued", "data": {"id": "1"}}',
    "an error": b'{"error": "no credit"}',
    "success true": b'{"success": true}',
    "an id alone": b'{"id": "1"}',
    "a list under data": b'{"data": [{"id": "1"}]}',
    "null under data": b'{"data": null}',
    "a text under data": b'{"data": "success"}',
    "not UTF-8": b'{"status": "success", "name": "\xff"}',
    "UTF-16": '{"status": "success"}'.encode("utf-16"),
    "NaN": b'{"status": "success", "cost": NaN}',
    "too deep": b'{"status": "success", "data": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    "a number of 5,000 digits": b'{"status": "success", "cost": ' + b"9" * 5000 + b"}",
    "the last status of two": b'{"status": "success", "status": "error"}',
}


@pytest.mark.parametrize(("body", "receipt"), **cases(ACCEPTED))
@pytest.mark.parametrize("status", [200, 201, 202, 204, 226, 299])
def test_accepted(body, receipt, status):
    """A 2xx answer that calls itself a success, or has no status and an object under data, is a receipt."""
    given = read_receipt(answer(body, status), SEND)
    assert isinstance(given, Receipt)
    # equality leaves extra out
    assert attrs.asdict(receipt) == attrs.asdict(given)


@pytest.mark.parametrize(("field", "value"), **cases(MALFORMED_FIELDS))
def test_malformed_field_of_a_receipt(field, value):
    """The text is out: a malformed optional field is kept in extra and hides nothing beside it."""
    fields = DOCUMENTED["data"] | {field: value}
    given = read_receipt(answer({"status": "success", "data": fields}), SEND)
    whole = read_receipt(answer(DOCUMENTED), SEND)

    assert isinstance(given, Receipt)
    assert {field: value} == given.extra
    assert attrs.evolve(whole, **{field: None}) == given


@pytest.mark.parametrize("body", **cases(UNKNOWN))
@pytest.mark.parametrize("status", [200, 204])
def test_unknown(body, status):
    """A 2xx answer that says nothing certain leaves it unknown, is not repeated, and says so."""
    error = read_receipt(answer(body, status), SEND)

    assert APIResponseError is type(error)
    assert (True, None, 0) == (error.may_have_been_sent, error.place, error.attempts)
    assert not may_repeat(error, resend_unknown=False)
    assert f"success (HTTP {status}), but its answer " in str(error)
    assert "The text may have gone out. Do not resend it blindly" in str(error)
    assert_unchained(error)


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        (answer(b"{}", is_whole=False), "is too large, or compressed in a way that was not asked for"),
        (answer(b"{}", 200, ("Content-Encoding", "br")), "is too large, or compressed in a way that was not asked for"),
        (answer(b"{"), "is not JSON"),
        (answer(b"\xff"), "is not UTF-8"),
        (answer(b"[" * 100_000), "is nested too deeply"),
        (answer(b"{}"), "does not say that the text was accepted"),
    ],
    ids=["over the cap", "compressed unasked", "not JSON", "not UTF-8", "deep", "not accepted"],
)
def test_why_a_receipt_cannot_be_read(given, problem):
    """The error says what is wrong with the answer."""
    error = read_receipt(given, SEND)
    assert isinstance(error, APIResponseError)
    assert f"but its answer {problem}. " in str(error)


def test_receipt_with_a_byte_order_mark():
    """A byte order mark before the JSON is ignored."""
    assert Receipt(status="success") == read_receipt(answer(b'\xef\xbb\xbf{"status": "success"}'), SEND)


def test_compressed_receipt():
    """A receipt compressed unasked is read all the same."""
    compressed = answer(gzip.compress(json.dumps(DOCUMENTED).encode()), 200, ("Content-Encoding", "gzip"))
    assert read_receipt(answer(DOCUMENTED), SEND) == read_receipt(compressed, SEND)


@pytest.mark.parametrize("status", [100, 199, 300, 404, 500])
def test_no_receipt(status):
    """Any other status is an error, even with a receipt in its body."""
    error = read_receipt(answer(DOCUMENTED, status), SEND)
    assert isinstance(error, APIStatusError)
    assert status == error.status_code


# ---------------------------------------------------------------- statuses

STATUS_CLASSES = {
    400: BadRequestError,
    401: AuthenticationError,
    403: PermissionDeniedError,
    404: NotFoundError,
    409: ConflictError,
    422: UnprocessableEntityError,
    429: RateLimitError,
    **dict.fromkeys(range(500, 600), ServerError),
}
NO_SUCCESS = [status for status in range(100, 1000) if not 200 <= status < 300]
# nothing of the text went out: every 4xx but those two
CERTAIN = {*range(400, 500)} - {408, 409}
SOME_STATUSES = [
    100,
    101,
    103,
    199,
    300,
    301,
    302,
    303,
    304,
    307,
    308,
    399,
    400,
    401,
    402,
    403,
    404,
    405,
    407,
    408,
    409,
]
SOME_STATUSES += [
    410,
    413,
    418,
    422,
    423,
    425,
    426,
    428,
    429,
    431,
    451,
    499,
    500,
    501,
    502,
    503,
    504,
    507,
    511,
    599,
    600,
    999,
]
STATUS_TEXTS = {
    100: "The service answered with no success (HTTP 100).",
    101: "The service answered with no success (HTTP 101).",
    300: "The service answered with a redirect, which is not followed: check base_url (HTTP 300).",
    302: "The service answered with a redirect, which is not followed: check base_url (HTTP 302).",
    399: "The service answered with a redirect, which is not followed: check base_url (HTTP 399).",
    400: "The service did not understand the request (HTTP 400).",
    401: "The service does not know the access token: check CLOUDWARE_ACCESS_TOKEN or access_token=… (HTTP 401).",
    403: "The access token may not do this (HTTP 403).",
    404: "There is nothing at this address: check base_url (HTTP 404).",
    409: "The service speaks of a conflict (HTTP 409).",
    418: "The service answered with no success (HTTP 418).",
    422: "The service does not accept these values (HTTP 422).",
    429: "Too many requests (HTTP 429).",
    500: "The service failed (HTTP 500).",
    599: "The service failed (HTTP 599).",
    600: "The service answered with no success (HTTP 600).",
}
UNKNOWN_TEXT = (
    "The text may have gone out. Do not resend it blindly: look for it in the listing or ask the recipient "
    "(the page on errors says more)."
)


def test_class_of_every_status():
    """Each status has its class: its own, `ServerError` from 500 to 599, else `APIStatusError` itself."""
    for status in NO_SUCCESS:
        error = error_from_status(answer(b"", status), SEND)
        assert (STATUS_CLASSES.get(status, APIStatusError), status) == (type(error), error.status_code)


@pytest.mark.parametrize("status", SOME_STATUSES)
def test_status_of_a_send(status):
    """Of a send, a 4xx certainly did nothing, save 408 and 409; any other status leaves it unknown."""
    error = read_receipt(answer(b"", status), SEND)
    assert (status not in CERTAIN) == error.may_have_been_sent


def test_every_status_of_a_send():
    """The rule holds for each status that there can be."""
    unknown = {status for status in NO_SUCCESS if error_from_status(answer(b"", status), SEND).may_have_been_sent}
    assert {*NO_SUCCESS} - CERTAIN == unknown


def test_every_status_of_a_read():
    """A read texts nobody, whatever its answer."""
    for status in NO_SUCCESS:
        error = read_page(answer(b"", status), READ, BASE, Place())
        assert isinstance(error, STATUS_CLASSES.get(status, APIStatusError))
        assert (status, False) == (error.status_code, error.may_have_been_sent)


def test_statuses_that_are_repeated():
    """A send is repeated after 425 and 429; a read also after 408 and 5xx; nothing else may fare better."""
    repeated = {
        request.method: {
            status
            for status in NO_SUCCESS
            if may_repeat(error_from_status(answer(b"", status), request), resend_unknown=False)
        }
        for request in (SEND, READ)
    }
    assert {"POST": {425, 429}, "GET": {408, 425, 429, *range(500, 600)}} == repeated


def test_statuses_that_are_repeated_on_wish():
    """With `resend_unknown` a send is repeated after every unknown end too."""
    repeated = {
        status for status in NO_SUCCESS if may_repeat(error_from_status(answer(b"", status), SEND), resend_unknown=True)
    }
    assert {*NO_SUCCESS} - CERTAIN | {425, 429} == repeated


@pytest.mark.parametrize(("status", "text"), STATUS_TEXTS.items())
def test_text_of_a_status(status, text):
    """The text says what happened; of a send also whether the text may have gone out and what to do."""
    end = "This request sent nothing." if status in CERTAIN else UNKNOWN_TEXT

    assert f"{text} {end}" == str(error_from_status(answer(b"", status), SEND))
    assert text == str(error_from_status(answer(b"", status), READ))


def test_503_with_retry_after():
    """A 503 that says when to come back refused the text; it is repeated."""
    error = read_receipt(answer(b"", 503, ("Retry-After", "5")), SEND)

    assert ServerError is type(error)
    assert (False, 5.0) == (error.may_have_been_sent, error.retry_after)
    assert may_repeat(error, resend_unknown=False)
    assert "The service failed (HTTP 503). It asks to wait 5 seconds. This request sent nothing." == str(error)


@pytest.mark.parametrize("value", ["", "soon", "-1", "nan", "Sun, 06 Nov 1994 08:49:37 GMT"])
def test_503_with_an_unreadable_retry_after(value):
    """A 503 whose `Retry-After` says nothing is as one without: unknown, and not repeated."""
    error = read_receipt(answer(b"", 503, ("Retry-After", value)), SEND)
    assert (True, None) == (error.may_have_been_sent, error.retry_after)
    assert not may_repeat(error, resend_unknown=False)


@pytest.mark.parametrize("status", [100, 302, 408, 409, 500, 502, 504, 599])
def test_retry_after_of_another_status(status):
    """Elsewhere `Retry-After` is told but makes nothing certain."""
    error = read_receipt(answer(b"", status, ("Retry-After", "5")), SEND)
    assert (True, 5.0) == (error.may_have_been_sent, error.retry_after)
    assert not may_repeat(error, resend_unknown=False)


@pytest.mark.parametrize(
    ("value", "seconds"), [("0", "0"), ("1", "1"), ("120", "120"), ("86400", "86400"), ("1234567", "1234567")]
)
def test_text_of_a_retry_after(value, seconds):
    """The text says how many seconds the service asks to wait, in plain digits."""
    error = error_from_status(answer(b"", 429, ("Retry-After", value)), READ)
    assert f"Too many requests (HTTP 429). It asks to wait {seconds} seconds." == str(error)


# ---------------------------------------------------------------- what an error keeps of the answer


@pytest.mark.parametrize(
    ("body", "kept"),
    [
        (b"", ""),
        (b'{"error": "no credit"}', '{"error": "no credit"}'),
        ("trop pressé".encode(), "trop pressé"),
        (b"\xff\xfe", "\ufffd\ufffd"),
        (b"a" * 16 * 1024, "a" * 16 * 1024),
        (b"a" * 16 * 1024 + b"b", "a" * 16 * 1024),
    ],
    ids=["empty", "JSON", "UTF-8", "not UTF-8", "16 KiB", "one byte more"],
)
def test_kept_body(body, kept):
    """An error keeps the first 16 KiB of the answer's body as text."""
    assert kept == error_from_status(answer(body, 400), SEND).body


@pytest.mark.parametrize(
    "given",
    [
        answer(b"{}", 400, is_whole=False),
        answer(b"{}", 400, ("Content-Encoding", "br")),
        answer(b"{}", 400, ("Content-Encoding", "gzip")),
    ],
    ids=["over the cap", "unknown coding", "not what the coding says"],
)
def test_unreadable_body(given):
    """An error whose answer's body cannot be had keeps None."""
    error = error_from_status(given, SEND)
    assert (BadRequestError, None) == (type(error), error.body)


def test_compressed_body():
    """The body is kept as it was before its compression."""
    given = answer(gzip.compress(b"no credit"), 400, ("Content-Encoding", "gzip"))
    assert "no credit" == error_from_status(given, SEND).body


def test_kept_headers():
    """An error keeps four headers under lower-case names, and no cookie."""
    given = answer(
        b"",
        400,
        ("Content-Type", "text/html"),
        ("DATE", "Sun, 06 Nov 1994 08:49:37 GMT"),
        ("retry-after", " 5\t"),
        ("X-Request-Id", b"\tXcaf\xe9X "),
        ("Set-Cookie", "session=1"),
        ("X-Request-Ids", "X"),
        ("Server", "nginx"),
        ("Authorization", "Bearer canary-token"),
    )
    assert {
        "content-type": "text/html",
        "date": "Sun, 06 Nov 1994 08:49:37 GMT",
        "retry-after": "5",
        # read as UTF-8, as the private strings that are taken out of it are
        "x-request-id": "Xcaf\ufffdX",
    } == error_from_status(given, SEND).headers


def test_repeated_header():
    """A header that stands there twice says nothing and is not kept."""
    given = answer(b"", 400, ("X-Request-Id", "1"), ("x-request-id", "2"), ("Date", "today"))
    assert {"date": "today"} == error_from_status(given, SEND).headers


# ---------------------------------------------------------------- failures

FAILURE_CLASSES = {
    FailureKind.CONNECT: APIConnectionError,
    FailureKind.CERTIFICATE: APIConnectionError,
    FailureKind.CONNECT_TIMEOUT: APITimeoutError,
    FailureKind.NO_CONNECTION: APITimeoutError,
    FailureKind.TIMEOUT: APITimeoutError,
    FailureKind.BROKEN: APIConnectionError,
    FailureKind.STRAY: APIConnectionError,
}
# what happened, and what the text names to look at
FAILURE_TEXTS = {
    FailureKind.CONNECT: ("Could not connect to the service (Why)", "the network, the proxy and base_url"),
    FailureKind.CERTIFICATE: ("The service's TLS certificate is not trusted (Why)", "SSL_CERT_FILE"),
    FailureKind.CONNECT_TIMEOUT: ("Could not connect to the service within connect_timeout (Why).", ""),
    FailureKind.NO_CONNECTION: ("No connection was free before the timeout (Why)", "max_connections"),
    FailureKind.TIMEOUT: ("No whole answer came within the timeout (Why).", ""),
    FailureKind.BROKEN: ("The connection broke before a whole answer came (Why).", ""),
    FailureKind.STRAY: ("The connection held an answer that belongs to no request of ours (Why).", ""),
}
# these kinds end before a request is written, whatever the witness says
EARLY = {FailureKind.CONNECT, FailureKind.CERTIFICATE, FailureKind.CONNECT_TIMEOUT, FailureKind.NO_CONNECTION}


@pytest.mark.parametrize("written", [True, False], ids=["written", "not written"])
@pytest.mark.parametrize("kind", FailureKind)
def test_failure_of_a_send(kind, written):
    """The kind decides first, then whether a byte was written; the text says so."""
    error = error_from_failure(Failure(kind, written=written, reason="Why"), SEND)
    unknown = written and kind not in EARLY

    assert (FAILURE_CLASSES[kind], unknown) == (type(error), error.may_have_been_sent)
    begin, hint = FAILURE_TEXTS[kind]
    assert str(error).startswith(begin)
    assert hint in str(error)
    assert str(error).endswith(f". {UNKNOWN_TEXT if unknown else 'This request sent nothing.'}")
    assert (not unknown and kind is not FailureKind.CERTIFICATE) == may_repeat(error, resend_unknown=False)
    assert (kind is not FailureKind.CERTIFICATE) == may_repeat(error, resend_unknown=True)


@pytest.mark.parametrize("written", [True, False], ids=["written", "not written"])
@pytest.mark.parametrize("kind", FailureKind)
def test_failure_of_a_read(kind, written):
    """A read that fails texted nobody, and is repeated unless the certificate is at fault."""
    error = error_from_failure(Failure(kind, written=written, reason="Why"), READ)

    assert (FAILURE_CLASSES[kind], False) == (type(error), error.may_have_been_sent)
    begin, hint = FAILURE_TEXTS[kind]
    assert str(error).startswith(begin)
    assert hint in str(error)
    assert str(error).endswith(".")
    assert "sent" not in str(error)
    assert (kind is not FailureKind.CERTIFICATE) == may_repeat(error, resend_unknown=False)


@pytest.mark.parametrize("kind", FailureKind)
def test_failure_without_a_reason(kind):
    """Without a reason nothing stands in its place."""
    error = error_from_failure(Failure(kind, written=True), READ)
    begin, _ = FAILURE_TEXTS[kind]
    assert str(error).startswith(begin.replace(" (Why)", ""))


# ---------------------------------------------------------------- Retry-After

NOW = "Sun, 06 Nov 1994 08:49:37 GMT"
RETRY_AFTER_SECONDS = {
    "0": ("0", 0.0),
    "a digit": ("5", 5.0),
    "digits": ("120", 120.0),
    "leading zeros": ("007", 7.0),
    "white space around": (" 5\t", 5.0),
    "ten digits": ("1000000000", 1e9),
    "the most that is told apart": ("9999999999", 9999999999.0),
    "a little more": ("10000000001", 1e10),
    "12 digits": ("999999999999", 1e10),
    "13 digits": ("1000000000000", 1e10),
    "5,000 nines": ("9" * 5000, 1e10),
    "5,000 zeros": ("0" * 5000, 0.0),
    "5,000 zeros and a digit": ("0" * 5000 + "7", 7.0),
}
RETRY_AFTER_DATES = {
    "the form to send": ("Sun, 06 Nov 1994 08:50:07 GMT", 30.0),
    "the form of RFC 850": ("Sunday, 06-Nov-94 08:50:07 GMT", 30.0),
    "the form of asctime": ("Sun Nov  6 08:50:07 1994", 30.0),
    "asctime with a zero before the day": ("Sun Nov 06 08:50:07 1994", 30.0),
    "now": (NOW, 0.0),
    "a second ago": ("Sun, 06 Nov 1994 08:49:36 GMT", 0.0),
    "long ago": ("Thu, 01 Jan 1970 00:00:00 GMT", 0.0),
    "tomorrow": ("Mon, 07 Nov 1994 08:49:37 GMT", 86400.0),
    "the wrong weekday": ("Mon, 06 Nov 1994 08:50:07 GMT", 30.0),
}
NO_RETRY_AFTER = {
    "empty": "",
    "white space": " ",
    "nan": "nan",
    "infinity": "inf",
    "a minus": "-1",
    "minus zero": "-0",
    "a plus": "+1",
    "a fraction": "1.5",
    "an underscore": "1_0",
    "an exponent": "1e3",
    "hexadecimal": "0x10",
    "fullwidth digits": "１０",
    "Arabic-Indic digits": "١٠",
    "a comma": "5, 6",
    "two numbers": "5 6",
    "a unit": "5s",
    "a word": "soon",
    "a vertical tab": "5\x0b",
    "a newline": "5\n",
    "not ASCII": b"\xff",
    "another zone": "Sun, 06 Nov 1994 08:50:07 UTC",
    "an offset": "Sun, 06 Nov 1994 08:50:07 +0000",
    "no zone": "Sun, 06 Nov 1994 08:50:07",
    "lower case": "sun, 06 nov 1994 08:50:07 gmt",
    "no weekday": "06 Nov 1994 08:50:07 GMT",
    "one digit for a day": "Sun, 6 Nov 1994 08:50:07 GMT",
    "two digits for a year": "Sun, 06 Nov 94 08:50:07 GMT",
    "no seconds": "Sun, 06 Nov 1994 08:50 GMT",
    "no such month": "Sun, 06 Foo 1994 08:50:07 GMT",
    "no such day": "Thu, 31 Feb 1994 08:50:07 GMT",
    "day 0": "Sun, 00 Nov 1994 08:50:07 GMT",
    "hour 24": "Sun, 06 Nov 1994 24:00:00 GMT",
    "minute 60": "Sun, 06 Nov 1994 08:60:00 GMT",
    "second 61": "Sun, 06 Nov 1994 08:50:61 GMT",
    "RFC 3339": "1994-11-06T08:50:07Z",
    "something after": "Sun, 06 Nov 1994 08:50:07 GMT!",
    "something before": "x Sun, 06 Nov 1994 08:50:07 GMT",
}


@pytest.mark.parametrize(("value", "seconds"), **cases(RETRY_AFTER_SECONDS))
def test_retry_after_in_seconds(value, seconds):
    """ASCII digits are seconds; more than 10,000,000,000 of them are as many."""
    assert seconds == read_retry_after(answer(b"", 429, ("Retry-After", value)))


@pytest.mark.parametrize(("value", "seconds"), **cases(RETRY_AFTER_DATES))
def test_retry_after_as_a_date(value, seconds):
    """A date is measured against the answer's own; the past is 0."""
    assert seconds == read_retry_after(answer(b"", 429, ("Retry-After", value), ("Date", NOW)))


@pytest.mark.parametrize(
    "now", [NOW, "Sunday, 06-Nov-94 08:49:37 GMT", "Sun Nov  6 08:49:37 1994"], ids=["RFC 9110", "RFC 850", "asctime"]
)
def test_forms_of_the_date(now):
    """The answer's own date is read in each of the three forms too."""
    assert 30.0 == read_retry_after(answer(b"", 429, ("Retry-After", "Sun, 06 Nov 1994 08:50:07 GMT"), ("Date", now)))


@pytest.mark.parametrize("value", **cases(NO_RETRY_AFTER))
def test_no_retry_after(value):
    """Anything else is ignored."""
    assert None is read_retry_after(answer(b"", 429, ("Retry-After", value), ("Date", NOW)))


@pytest.mark.parametrize(
    "headers",
    [
        (),
        (("Date", NOW),),
        (("Retry-After", NOW),),
        (("Retry-After", NOW), ("Date", "yesterday")),
        (("Retry-After", NOW), ("Date", NOW), ("Date", NOW)),
        (("Retry-After", "5"), ("Retry-After", "5")),
        (("Retry-After", "5"), ("RETRY-AFTER", NOW), ("Date", NOW)),
    ],
    ids=[
        "no header",
        "a Date alone",
        "no Date",
        "an unreadable Date",
        "two Dates",
        "the same twice",
        "two different ones",
    ],
)
def test_retry_after_without_what_it_needs(headers):
    """A date without the answer's own, or a header that stands there twice, is ignored."""
    assert None is read_retry_after(answer(b"", 429, *headers))


@pytest.mark.parametrize("name", ["retry-after", "Retry-After", "RETRY-AFTER", "rEtRy-aFtEr"])
def test_case_of_a_header(name):
    """A header's name has no case."""
    assert 5.0 == read_retry_after(answer(b"", 429, (name, "5")))


# ---------------------------------------------------------------- compressed bodies

PLAIN = b'{"status": "success"}'
DECODED = {
    "no coding": (PLAIN, ()),
    "identity": (PLAIN, ("identity",)),
    "Identity": (PLAIN, (" Identity ",)),
    "gzip": (gzip.compress(PLAIN), ("gzip",)),
    "GZip": (gzip.compress(PLAIN), ("GZip",)),
    "x-gzip": (gzip.compress(PLAIN), ("x-gzip",)),
    "deflate": (zlib.compress(PLAIN), ("deflate",)),
    "compressed in blocks": (zlib.compress(PLAIN, 0), ("deflate",)),
}
NOT_DECODED = {
    "truncated gzip": (gzip.compress(PLAIN)[:-1], ("gzip",)),
    "half a gzip": (gzip.compress(PLAIN)[:20], ("gzip",)),
    "gzip with a wrong checksum": (gzip.compress(PLAIN)[:-8] + b"\0" * 8, ("gzip",)),
    "gzip with something after it": (gzip.compress(PLAIN) + b"x", ("gzip",)),
    "two gzip members": (gzip.compress(PLAIN) * 2, ("gzip",)),
    "no gzip at all": (PLAIN, ("gzip",)),
    "empty, called gzip": (b"", ("gzip",)),
    "gzip called deflate": (gzip.compress(PLAIN), ("deflate",)),
    "deflate called gzip": (zlib.compress(PLAIN), ("gzip",)),
    "truncated deflate": (zlib.compress(PLAIN)[:-1], ("deflate",)),
    "deflate without its header": (zlib.compress(PLAIN)[2:-4], ("deflate",)),
    "a bomb": (zlib.compress(b"\0" * 10_000_000), ("deflate",)),
    "a gzip bomb": (gzip.compress(b"\0" * 10_000_000), ("gzip",)),
    "brotli": (PLAIN, ("br",)),
    "zstd": (PLAIN, ("zstd",)),
    "an empty coding": (PLAIN, ("",)),
    "two codings": (gzip.compress(gzip.compress(PLAIN)), ("gzip, gzip",)),
    "two headers": (gzip.compress(PLAIN), ("gzip", "gzip")),
    "identity and another": (gzip.compress(PLAIN), ("identity", "gzip")),
}


@pytest.mark.parametrize(("body", "codings"), **cases(DECODED))
def test_decoded_body(body, codings):
    """A body is given as it was before its coding."""
    assert PLAIN == decode_body(answer(body, 200, *(("Content-Encoding", coding) for coding in codings)), 1000)


@pytest.mark.parametrize(("body", "codings"), **cases(NOT_DECODED))
def test_body_that_cannot_be_decoded(body, codings):
    """A body that is broken, too large, or coded in a way we do not know, is None."""
    assert None is decode_body(answer(body, 200, *(("content-encoding", coding) for coding in codings)), 1000)


@pytest.mark.parametrize("coding", ["gzip", "deflate"])
@pytest.mark.parametrize(("length", "is_read"), [(999, True), (1000, True), (1001, False)])
def test_cap_on_a_decoded_body(coding, length, is_read):
    """A body may be as long as the cap, and no longer."""
    body = (gzip.compress if coding == "gzip" else zlib.compress)(b"a" * length)
    given = decode_body(answer(body, 200, ("Content-Encoding", coding)), 1000)
    assert (b"a" * length if is_read else None) == given


def test_body_over_its_cap():
    """Of a body that was cut off at the cap nothing is given."""
    assert None is decode_body(answer(PLAIN, is_whole=False), 1000)


# ---------------------------------------------------------------- JSON

DEEP = 100_000
GOOD_JSON = {
    "an object": (b'{"a": [1, 2.5, "x", true, false, null]}', {"a": [1, 2.5, "x", True, False, None]}),
    "a string": (b'"x"', "x"),
    "white space around": (b' \t\r\n{"a": 1}\n', {"a": 1}),
    "a byte order mark": (b'\xef\xbb\xbf{"a": 1}', {"a": 1}),
    "UTF-8": ('{"é": "👍"}'.encode(), {"é": "👍"}),
    "escapes": (b'"\\u00e9\\ud83d\\udc4d\\n\\/"', "é👍\n/"),
    "a zero byte, escaped": (b'"\\u0000"', "\0"),
    "duplicate keys: the last one counts": (b'{"a": 1, "a": 2}', {"a": 2}),
    "100 levels": (b"[" * 100 + b"]" * 100, json.loads("[" * 100 + "]" * 100)),
    "a number of 1,000 digits": (b"9" * 1000, 10**1000 - 1),
}
BAD_JSON = {
    "empty": (b"", "is not JSON"),
    "a byte order mark alone": (b"\xef\xbb\xbf", "is not JSON"),
    "two byte order marks": (b"\xef\xbb\xbf\xef\xbb\xbf{}", "is not JSON"),
    "HTML": (b"<html>", "is not JSON"),
    "NaN": (b"NaN", "is not JSON"),
    "Infinity": (b'{"a": Infinity}', "is not JSON"),
    "-Infinity": (b"[-Infinity]", "is not JSON"),
    "a comma too many": (b"[1,]", "is not JSON"),
    "single quotes": (b"{'a': 1}", "is not JSON"),
    "a comment": (b"{} // ok", "is not JSON"),
    "two documents": (b"{}{}", "is not JSON"),
    "truncated": (b'{"a": ', "is not JSON"),
    "truncated in a string": (b'{"a": "b', "is not JSON"),
    "a bare newline in a string": (b'"a\nb"', "is not JSON"),
    "a bare zero byte": (b'"\0"', "is not JSON"),
    "fullwidth digits": ("１".encode(), "is not JSON"),
    "not UTF-8": (b'"\xff"', "is not UTF-8"),
    "cut in a character": ('"é'.encode()[:-1], "is not UTF-8"),
    "a surrogate in UTF-8": (b'"\xed\xa0\x80"', "is not UTF-8"),
    "an overlong form": (b'"\xc0\xaf"', "is not UTF-8"),
    "UTF-16": ("{}".encode("utf-16"), "is not UTF-8"),
    "Latin-1": ('"é"'.encode("latin-1"), "is not UTF-8"),
    "deep arrays": (b"[" * DEEP + b"]" * DEEP, "is nested too deeply"),
    "deep objects": (b'{"a":' * DEEP + b"1" + b"}" * DEEP, "is nested too deeply"),
    "deep and truncated": (b"[" * DEEP, "is nested too deeply"),
    "too many lists": (b"[" + b"[]," * 4_000_001 + b"1]", "holds too many values"),
    "too many objects": (b"[" + b"{}," * 4_000_001 + b"1]", "holds too many values"),
    "too many numbers": (b"[" + b"0," * 8_000_001 + b"1]", "holds too many values"),
    "a number of 5,000 digits": (b"9" * 5000, "is not JSON"),
    "a negative number of 5,000 digits": (b"-" + b"9" * 5000, "is not JSON"),
}


@pytest.mark.parametrize(("body", "value"), **cases(GOOD_JSON))
def test_good_json(body, value):
    """JSON as RFC 8259 has it is read, a byte order mark ignored."""
    assert value == read_json(body)


@pytest.mark.parametrize(("body", "problem"), **cases(BAD_JSON))
def test_bad_json(body, problem):
    """Anything else is malformed, however deep or large it is, and says how."""
    with pytest.raises(Malformed) as caught:
        read_json(body)
    assert ("", problem) == (caught.value.place, caught.value.problem)
    assert_unchained(caught.value)


# ---------------------------------------------------------------- messages

MESSAGE = {
    "type": "message_received",
    "from": "1234567890",
    "to": "0987654321",
    "message": "Hello, World!",
    "message_id": "1234567890",
    "created_at": "2020-01-01T00:00:00Z",
    "sent_at": "2020-01-01T00:00:01Z",
}
NEEDED = {key: MESSAGE[key] for key in ("type", "from", "to", "message")}
MOMENT = datetime(2020, 1, 1, tzinfo=UTC)


def at_offset(moment: datetime, **offset: int) -> datetime:
    """The same clock time at another offset."""
    return moment.replace(tzinfo=timezone(timedelta(**offset)))


READ_MESSAGES = {
    "as documented": (
        MESSAGE,
        Message(
            "message_received",
            "1234567890",
            "0987654321",
            "Hello, World!",
            "1234567890",
            MOMENT,
            MOMENT + timedelta(seconds=1),
        ),
    ),
    "only what is needed": (NEEDED, Message("message_received", "1234567890", "0987654321", "Hello, World!")),
    "null wherever it may be": (
        NEEDED | {"message_id": None, "created_at": None, "sent_at": None},
        Message("message_received", "1234567890", "0987654321", "Hello, World!"),
    ),
    "an unknown type": (
        NEEDED | {"type": "message_lost"},
        Message("message_lost", "1234567890", "0987654321", "Hello, World!"),
    ),
    "empty strings": (dict.fromkeys(NEEDED, ""), Message("", "", "", "")),
    "an id that is a number": (
        NEEDED | {"message_id": 12345},
        Message("message_received", "1234567890", "0987654321", "Hello, World!", "12345"),
    ),
    "an id that is a large number": (
        NEEDED | {"message_id": -(10**30)},
        Message("message_received", "1234567890", "0987654321", "Hello, World!", str(-(10**30))),
    ),
    "unknown keys, some with our own names": (
        NEEDED | {"parts": [1], "from_": "a", "extra": {"b": None}, "received": False},
        Message(
            "message_received",
            "1234567890",
            "0987654321",
            "Hello, World!",
            extra={"parts": [1], "from_": "a", "extra": {"b": None}, "received": False},
        ),
    ),
    "numbers are kept as they are": (
        NEEDED | {"from": "+40 722", "to": "CLOUDWARE"},
        Message("message_received", "+40 722", "CLOUDWARE", "Hello, World!"),
    ),
}
NO_STRING = {"null": None, "a number": 5, "true": True, "a list": [], "an object": {}}
NO_ID = {"a fraction": 1.5, "true": True, "false": False, "a list": [], "an object": {}}
BAD_MESSAGES = {
    **{
        f"{key} is {what}": (MESSAGE | {key: value}, key, "is not a string")
        for key in NEEDED
        for what, value in NO_STRING.items()
    },
    **{
        f"{key} is missing": ({other: value for other, value in MESSAGE.items() if other != key}, key, "is missing")
        for key in NEEDED
    },
    **{
        f"message_id is {what}": (MESSAGE | {"message_id": value}, "message_id", "is not a string or a whole number")
        for what, value in NO_ID.items()
    },
    "from is only from_": ({**NEEDED, "from_": "1"} | {"from": None}, "from", "is not a string"),
    "null": (None, "", "is not an object"),
    "a list": ([MESSAGE], "", "is not an object"),
    "a string": ("message", "", "is not an object"),
    "a number": (5, "", "is not an object"),
}
TIMESTAMPS = {
    "the vendor's own": ("2020-01-01T00:00:00Z", MOMENT),
    "lower-case t and z": ("2020-01-01t00:00:00z", MOMENT),
    "a space": ("2020-01-01 00:00:00Z", MOMENT),
    "no offset is UTC": ("2020-01-01T00:00:00", MOMENT),
    "no offset, with a fraction": ("2020-01-01T00:00:00.5", MOMENT + timedelta(milliseconds=500)),
    "one digit of a fraction": ("2020-01-01T00:00:00.5Z", MOMENT + timedelta(milliseconds=500)),
    "three digits": ("2020-01-01T00:00:00.123Z", MOMENT + timedelta(milliseconds=123)),
    "six digits": ("2020-01-01T00:00:00.123456Z", MOMENT + timedelta(microseconds=123456)),
    "nine digits": ("2020-01-01T00:00:00.123456789Z", MOMENT + timedelta(microseconds=123456)),
    "thirty digits": (f"2020-01-01T00:00:00.{'9' * 30}Z", MOMENT + timedelta(microseconds=999999)),
    "an offset east": ("2020-01-01T00:00:00+05:30", at_offset(MOMENT, hours=5, minutes=30)),
    "an offset west": ("2020-01-01T00:00:00-08:00", at_offset(MOMENT, hours=-8)),
    "the largest offset": ("2020-01-01T00:00:00+23:59", at_offset(MOMENT, hours=23, minutes=59)),
    "an unknown offset": ("2020-01-01T00:00:00-00:00", MOMENT),
    "a leap day": ("2020-02-29T12:00:00Z", datetime(2020, 2, 29, 12, tzinfo=UTC)),
    "a leap second": ("2016-12-31T23:59:60Z", datetime(2017, 1, 1, tzinfo=UTC)),
    "a leap second with a fraction": ("2016-12-31T23:59:60.25z", datetime(2017, 1, 1, 0, 0, 0, 250000, UTC)),
    "a leap second at an offset": (
        "2017-01-01T05:29:60+05:30",
        at_offset(datetime(2017, 1, 1, 5, 30, tzinfo=UTC), hours=5, minutes=30),
    ),
    "a leap second without an offset": ("2016-12-31T23:59:60", datetime(2017, 1, 1, tzinfo=UTC)),
    "the last hour": ("2020-01-01T23:59:59Z", datetime(2020, 1, 1, 23, 59, 59, tzinfo=UTC)),
    "the first moment": ("0001-01-01T00:00:00Z", datetime(1, 1, 1, tzinfo=UTC)),
    "the last moment": ("9999-12-31T23:59:59.999999Z", datetime(9999, 12, 31, 23, 59, 59, 999999, UTC)),
}
NOT_RFC_3339 = {
    "empty": "",
    "words": "yesterday",
    "a number": 1577836800,
    "a fraction": 1577836800.5,
    "true": True,
    "a list": ["2020-01-01T00:00:00Z"],
    "an object": {},
    "a date alone": "2020-01-01",
    "the basic format": "20200101T000000Z",
    "a basic time": "2020-01-01T000000Z",
    "a week date": "2020-W01-3T00:00:00Z",
    "a day of the year": "2020-001T00:00:00Z",
    "hour 24": "2020-01-01T24:00:00Z",
    "hour 25": "2020-01-01T25:00:00Z",
    "no seconds": "2020-01-01T00:00Z",
    "one digit for a month": "2020-1-01T00:00:00Z",
    "two digits for a year": "20-01-01T00:00:00Z",
    "five digits for a year": "12020-01-01T00:00:00Z",
    "a sign before the year": "+2020-01-01T00:00:00Z",
    "a comma for a point": "2020-01-01T00:00:00,5Z",
    "a point alone": "2020-01-01T00:00:00.Z",
    "an offset without a colon": "2020-01-01T00:00:00+0000",
    "an offset of hours": "2020-01-01T00:00:00+00",
    "an offset with seconds": "2020-01-01T00:00:00+00:00:00",
    "a space before the offset": "2020-01-01T00:00:00 Z",
    "two offsets": "2020-01-01T00:00:00ZZ",
    "a zone's name": "2020-01-01T00:00:00 UTC",
    "an underscore for T": "2020-01-01_00:00:00Z",
    "two spaces": "2020-01-01  00:00:00Z",
    "a space before": " 2020-01-01T00:00:00Z",
    "a newline after": "2020-01-01T00:00:00Z\n",
    "a minus sign of typography": "2020-01-01T00:00:00−08:00",
    "fullwidth digits": "２０２０-01-01T00:00:00Z",
    "Arabic-Indic digits": "٢٠٢٠-01-01T00:00:00Z",
    "an HTTP date": "Wed, 01 Jan 2020 00:00:00 GMT",
}
NO_MOMENTS = {
    "year 0": "0000-01-01T00:00:00Z",
    "month 0": "2020-00-01T00:00:00Z",
    "month 13": "2020-13-01T00:00:00Z",
    "day 0": "2020-01-00T00:00:00Z",
    "30 February": "2020-02-30T00:00:00Z",
    "29 February of another year": "2021-02-29T00:00:00Z",
    "minute 60": "2020-01-01T00:60:00Z",
    "second 61": "2020-01-01T00:00:61Z",
    "second 99": "2020-01-01T00:00:99Z",
    "offset 24:00": "2020-01-01T00:00:00+24:00",
    "offset 99:99": "2020-01-01T00:00:00-99:99",
    "a leap second after the last year": "9999-12-31T23:59:60Z",
}


@pytest.mark.parametrize(("value", "message"), **cases(READ_MESSAGES))
def test_message(value, message):
    """A message is read with the wire's names; what is not documented is kept in extra."""
    assert attrs.asdict(message) == attrs.asdict(read_message(value))


@pytest.mark.parametrize(("value", "place", "problem"), **cases(BAD_MESSAGES))
def test_bad_message_of_a_listing(value, place, problem):
    """A message is read strictly: what is wrong is named by the wire's name, and not shown."""
    with pytest.raises(Malformed) as caught:
        read_message(value)
    assert (place, problem) == (caught.value.place, caught.value.problem)
    assert_unchained(caught.value)


@pytest.mark.parametrize("field", ["created_at", "sent_at"])
@pytest.mark.parametrize(("text", "moment"), **cases(TIMESTAMPS))
def test_timestamp(text, moment, field):
    """A timestamp of RFC 3339 is read to the microsecond, always aware, at its own offset."""
    given = getattr(read_message(NEEDED | {field: text}), field)
    assert (moment, moment.utcoffset()) == (given, given.utcoffset())


@pytest.mark.parametrize("field", ["created_at", "sent_at"])
@pytest.mark.parametrize(
    ("value", "problem"),
    **cases(
        {name: (value, "is not an RFC 3339 timestamp") for name, value in NOT_RFC_3339.items()}
        | {name: (value, "is not a moment in time") for name, value in NO_MOMENTS.items()}
    ),
)
def test_bad_timestamp(value, problem, field):
    """Anything else is malformed: other forms of ISO 8601, and moments that there are not."""
    with pytest.raises(Malformed) as caught:
        read_message(MESSAGE | {field: value})
    assert (field, problem) == (caught.value.place, caught.value.problem)
    assert_unchained(caught.value)


# ---------------------------------------------------------------- pages


def page(*data: Any, **more: Any) -> Answer:
    """The answer of a listing."""
    return answer({"query": "phone=1", "data": list(data), "next_page": None} | more)


def listing(given: Answer, place: Place | None = None) -> Listing:
    """A page that could be read, at least in part."""
    outcome = read_page(given, READ, BASE, place or Place())
    assert isinstance(outcome, Listing)
    return outcome


BAD_PAGES = {
    "empty": (b"", None, "it is not JSON"),
    "HTML": (b"<html>", None, "it is not JSON"),
    "not UTF-8": (b"\xff", None, "it is not UTF-8"),
    "too deep": (b"[" * DEEP, None, "it is nested too deeply"),
    "an array": (b"[]", None, "it is not an object"),
    "null": (b"null", None, "it is not an object"),
    "a string": (b'"data"', None, "it is not an object"),
    "an empty object": (b"{}", "data", "data is missing"),
    "null under data": (b'{"data": null}', "data", "data is missing"),
    "an object under data": (b'{"data": {}}', "data", "data is not a list"),
    "a string under data": (b'{"data": ""}', "data", "data is not a list"),
    "false under data": (b'{"data": false}', "data", "data is not a list"),
    "a receipt": (json.dumps(DOCUMENTED).encode(), "data", "data is not a list"),
}
BAD_FIELDS = {
    "data[0]": (0, None, "is not an object"),
    "data[1]": (1, [], "is not an object"),
    "data[2].type": (2, MESSAGE | {"type": None}, "is not a string"),
    "data[3].to": (3, MESSAGE | {"to": 5}, "is not a string"),
    "data[0].from": (0, MESSAGE | {"from": 5}, "is not a string"),
    "data[2].message": (2, {**NEEDED, "message": None}, "is not a string"),
    "data[1].message_id": (1, MESSAGE | {"message_id": 1.5}, "is not a string or a whole number"),
    "data[0].created_at": (0, MESSAGE | {"created_at": "now"}, "is not an RFC 3339 timestamp"),
    "data[1].sent_at": (1, MESSAGE | {"sent_at": "2020-13-01T00:00:00Z"}, "is not a moment in time"),
    "data[3].sent_at": (3, MESSAGE | {"sent_at": 0}, "is not an RFC 3339 timestamp"),
}


def test_documented_page():
    """The documented listing is read, with what comes after it."""
    given = listing(
        answer(
            {
                "query": "device_id=2254&phone=+40722000000",
                "data": [MESSAGE, NEEDED],
                "next_page": "https://api.cloudware.chat/v1/sms/messages?token=TOKEN_FOR_NEXT_PAGE",
            }
        )
    )
    assert (read_message(MESSAGE), read_message(NEEDED)) == given.messages
    assert "device_id=2254&phone=+40722000000" == given.query
    assert Place(query="token=TOKEN_FOR_NEXT_PAGE") == given.next
    assert None is given.error


@pytest.mark.parametrize("status", [200, 201, 206, 299])
def test_empty_page(status):
    """A page without messages is one, whatever its 2xx."""
    assert Listing((), None, Place(is_end=True)) == listing(answer({"data": []}, status))


@pytest.mark.parametrize("query", [None, 5, [], {}, True])
def test_malformed_query(query):
    """The service's own account of the filters is told only if it is a string; it breaks nothing."""
    given = listing(page(MESSAGE, query=query))
    assert (1, None, None) == (len(given.messages), given.query, given.error)


@pytest.mark.parametrize(("body", "place", "problem"), **cases(BAD_PAGES))
def test_bad_page(body, place, problem):
    """A page that cannot be read as a whole is an error that says why and texted nobody."""
    error = read_page(answer(body), READ, BASE, Place())

    assert APIResponseError is type(error)
    assert (place, False, None) == (error.place, error.may_have_been_sent, error.page)
    assert f"The service's answer cannot be read: {problem}." == str(error)
    assert not may_repeat(error, resend_unknown=True)
    assert_unchained(error)


@pytest.mark.parametrize(
    "given",
    [answer({"data": []}, is_whole=False), answer({"data": []}, 200, ("Content-Encoding", "br"))],
    ids=["over the cap", "compressed unasked"],
)
def test_page_without_a_body(given):
    """A page whose body cannot be had says so."""
    error = read_page(given, READ, BASE, Place())
    text = "The service's answer cannot be read: it is too large, or compressed in a way that was not asked for."
    assert (APIResponseError, text) == (type(error), str(error))


@pytest.mark.parametrize("place", BAD_FIELDS)
def test_place_of_a_malformed_message(place):
    """One malformed message is named by its place; the others, and what comes after the page, are read."""
    index, value, problem = BAD_FIELDS[place]
    data = [MESSAGE | {"message_id": str(number)} for number in range(4)]
    data[index] = value
    given = listing(page(*data, next_page=f"{VENDOR_URL}/sms/messages?token=2"))

    assert (APIResponseError, place) == (type(given.error), given.error.place)
    assert f"The service's answer cannot be read: {place} {problem}." == str(given.error)
    assert [str(number) for number in range(4) if number != index] == [sms.message_id for sms in given.messages]
    assert "token=2" == given.next.query
    assert_unchained(given.error)


def test_several_malformed_messages():
    """Of several malformed messages the first is named, and none is handed out."""
    given = listing(page(MESSAGE, NEEDED | {"to": 1}, MESSAGE, NEEDED | {"from": 1}, None))
    assert ("data[1].to", 2) == (given.error.place, len(given.messages))


def test_several_malformed_fields():
    """Of several malformed fields one is named."""
    given = listing(page({"type": 1, "from": 2, "to": 3, "message": 4}))
    assert "data[0].type" == given.error.place


def test_whole_page_in_its_order():
    """Messages are handed out in the service's order, alike ones too."""
    given = listing(page(*({**NEEDED, "message_id": number} for number in (3, 1, 2, 1))))
    assert ["3", "1", "2", "1"] == [sms.message_id for sms in given.messages]


# ---------------------------------------------------------------- next_page

NEXT = "https://api.cloudware.chat/v1/sms/messages"
FOLLOWED = {
    "the vendor's own": (f"{NEXT}?token=TOKEN_FOR_NEXT_PAGE", "/v1/sms/messages?token=TOKEN_FOR_NEXT_PAGE"),
    "the default port spelled out": (
        "https://api.cloudware.chat:443/v1/sms/messages?token=2",
        "/v1/sms/messages?token=2",
    ),
    "the default port with zeros": (
        "https://api.cloudware.chat:0443/v1/sms/messages?token=2",
        "/v1/sms/messages?token=2",
    ),
    "upper-case scheme and host": ("HTTPS://API.CLOUDWARE.CHAT/v1/sms/messages?token=2", "/v1/sms/messages?token=2"),
    "a fragment is left out": (f"{NEXT}?token=2#page", "/v1/sms/messages?token=2"),
    "a fragment with a question mark": (f"{NEXT}#?token=2", "/v1/sms/messages"),
    "no query": (NEXT, "/v1/sms/messages"),
    "an empty query": (f"{NEXT}?", "/v1/sms/messages"),
    "another path": ("https://api.cloudware.chat/v2/list?token=2", "/v2/list?token=2"),
    "a path in another case": ("https://api.cloudware.chat/V1/sms/messages?token=2", "/V1/sms/messages?token=2"),
    "no path": ("https://api.cloudware.chat?token=2", "/?token=2"),
    "no path, no query": ("https://api.cloudware.chat", "/"),
    "a slash for a path": ("https://api.cloudware.chat/", "/"),
    "slashes within the path": ("https://api.cloudware.chat/v1//list?token=2", "/v1//list?token=2"),
    "nothing is decoded or encoded again": (f"{NEXT}?token=%2B+%20&a=b=c", "/v1/sms/messages?token=%2B+%20&a=b=c"),
    "two question marks": (f"{NEXT}?token=2?3", "/v1/sms/messages?token=2?3"),
    "a URL in the query": (f"{NEXT}?back=https://evil.example/@", "/v1/sms/messages?back=https://evil.example/@"),
    "an at sign in the path": ("https://api.cloudware.chat/@evil.example", "/@evil.example"),
    "three dots": ("https://api.cloudware.chat/v1/.../list", "/v1/.../list"),
    "a name that begins with a dot": ("https://api.cloudware.chat/v1/.list", "/v1/.list"),
    "a name that begins with two dots": ("https://api.cloudware.chat/..list", "/..list"),
    "a name that ends with dots": ("https://api.cloudware.chat/list../", "/list../"),
    "dots in the query": (f"{NEXT}?back=/../list", "/v1/sms/messages?back=/../list"),
    "30,000 characters": (f"{NEXT}?token=".ljust(30_000, "2"), f"{NEXT}?token=".ljust(30_000, "2")[26:]),
}
NOT_FOLLOWED = {
    "another host": "https://evil.example/v1/sms/messages?token=2",
    "a host below": "https://evil.api.cloudware.chat/v1/sms/messages?token=2",
    "a host above": "https://cloudware.chat/v1/sms/messages?token=2",
    "a host that begins alike": "https://api.cloudware.chat.evil.example/v1/sms/messages?token=2",
    "a host that ends alike": "https://evilapi.cloudware.chat/v1/sms/messages?token=2",
    "a host with a dot at its end": "https://api.cloudware.chat./v1/sms/messages?token=2",
    "another port": "https://api.cloudware.chat:444/v1/sms/messages?token=2",
    "the other's default port": "https://api.cloudware.chat:80/v1/sms/messages?token=2",
    "port 0": "https://api.cloudware.chat:0/v1/sms/messages?token=2",
    "an empty port": "https://api.cloudware.chat:/v1/sms/messages?token=2",
    "port 99999": "https://api.cloudware.chat:99999/v1/sms/messages?token=2",
    "fullwidth digits for a port": "https://api.cloudware.chat:４４３/v1/sms/messages?token=2",
    "http": "http://api.cloudware.chat/v1/sms/messages?token=2",
    "http on the same port": "http://api.cloudware.chat:443/v1/sms/messages?token=2",
    "ftp": "ftp://api.cloudware.chat/v1/sms/messages?token=2",
    "a user": "https://me@api.cloudware.chat/v1/sms/messages?token=2",
    "a user and a password": "https://me:secret@api.cloudware.chat/v1/sms/messages?token=2",
    "an empty user": "https://@api.cloudware.chat/v1/sms/messages?token=2",
    "our host as a user": "https://api.cloudware.chat@evil.example/v1/sms/messages?token=2",
    "our host and port as a user": "https://api.cloudware.chat:443@evil.example/v1/sms/messages?token=2",
    "no scheme": "//api.cloudware.chat/v1/sms/messages?token=2",
    "no scheme, another host": "//evil.example/v1/sms/messages?token=2",
    "no slashes": "https:api.cloudware.chat/v1/sms/messages?token=2",
    "one slash": "https:/api.cloudware.chat/v1/sms/messages?token=2",
    "three slashes": "https:///api.cloudware.chat/v1/sms/messages?token=2",
    "a path that begins with two slashes": "https://api.cloudware.chat//evil.example/sms/messages?token=2",
    "relative": "/v1/sms/messages?token=2",
    "a query alone": "?token=2",
    "a token alone": "TOKEN_FOR_NEXT_PAGE",
    "a script": "javascript:alert(1)",
    "backslashes": "https:\\\\api.cloudware.chat\\v1\\sms\\messages?token=2",
    "a backslash before our host": "https://evil.example\\@api.cloudware.chat/v1/sms/messages?token=2",
    "a backslash after our host": "https://api.cloudware.chat\\@evil.example/v1/sms/messages?token=2",
    "a backslash in the path": "https://api.cloudware.chat/v1\\sms/messages?token=2",
    "a backslash in the query": f"{NEXT}?token=\\2",
    "a space": f"{NEXT}?token=2 3",
    "a space before": f" {NEXT}?token=2",
    "a newline": f"{NEXT}?token=2\n",
    "a header": f"{NEXT}?token=2 HTTP/1.1\r\nX-Evil: 1",
    "a tab in the scheme": "ht\ttps://api.cloudware.chat/v1/sms/messages?token=2",
    "a newline in the host": "https://api.cloud\nware.chat/v1/sms/messages?token=2",
    "a zero byte": f"{NEXT}?token=\0",
    "delete": f"{NEXT}?token=\x7f",
    "a letter outside ASCII": f"{NEXT}?token=é",
    "a dot that is none": "https://api。cloudware。chat/v1/sms/messages?token=2",
    "half a surrogate pair": f"{NEXT}?token=\ud83d",
    "something before the brackets": "https://api.cloudware.chat[::1]/v1/sms/messages?token=2",
    "something after the brackets": "https://[::1]api.cloudware.chat/v1/sms/messages?token=2",
    "an open bracket": "https://[::1/v1/sms/messages",
    "a step up": "https://api.cloudware.chat/v1/../list",
    "a step up at the beginning": "https://api.cloudware.chat/../list",
    "a step up at the end": "https://api.cloudware.chat/v1/..",
    "a step up, and a fragment": "https://api.cloudware.chat/v1/..#a",
    "a step nowhere": "https://api.cloudware.chat/v1/./list",
    "a step nowhere at the end": "https://api.cloudware.chat/v1/.?token=2",
    "30,001 characters": f"{NEXT}?token=".ljust(30_001, "2"),
    "a space alone": " ",
    "a number": 2,
    "zero": 0,
    "true": True,
    "false": False,
    "a list": [NEXT],
    "an empty list": [],
    "an object": {"href": NEXT},
}


@pytest.mark.parametrize("filters", [{}, {"phone": "+40"}], ids=["no filter", "a filter"])
@pytest.mark.parametrize(("url", "target"), **cases(FOLLOWED))
def test_followed_link(url, target, filters):
    """A link on the origin of the base URL is followed as it stands there; the walk's filters go along unsent."""
    given = listing(page(next_page=url), Place(filters))

    assert (target, None) == (given.next.target(BASE), given.error)
    assert (filters, False) == (given.next.filters, given.next.is_end)


@pytest.mark.parametrize("url", **cases(NOT_FOLLOWED))
def test_link_that_is_not_followed(url):
    """Any other link ends the walk with an error, after the page's messages; what comes next is the page itself."""
    place = Place({"phone": "1"}, "token=1")
    given = listing(page(MESSAGE, next_page=url), place)

    assert PaginationError is type(given.error)
    assert not given.error.may_have_been_sent
    assert re.match("The page's next_page is not an absolute URL on the origin of base_url", str(given.error))
    assert "evil" not in str(given.error)
    assert (1, place) == (len(given.messages), given.next)


@pytest.mark.parametrize("link", [{"next_page": None}, {"next_page": ""}, {}], ids=["null", "empty", "absent"])
def test_last_page(link):
    """A link that is null, empty or absent ends the walk; the filters are kept."""
    given = listing(answer({"data": [MESSAGE]} | link), Place({"phone": "1"}, "token=1"))
    assert (Place({"phone": "1"}, is_end=True), None) == (given.next, given.error)


def test_malformed_message_beside_a_foreign_link():
    """Of a page that is wrong in both ways the message is named, and the foreign link is not followed either."""
    place = Place(query="token=1")
    given = listing(page(NEEDED | {"to": 1}, next_page="https://evil.example/"), place)
    assert (APIResponseError, place) == (type(given.error), given.next)


@pytest.mark.parametrize(
    ("base_url", "link", "target"),
    [
        (
            "http://127.0.0.1:8080/relay/v1",
            "http://127.0.0.1:8080/relay/v1/sms/messages?token=2",
            "/relay/v1/sms/messages?token=2",
        ),
        ("http://127.0.0.1:8080/relay/v1", "http://127.0.0.1:8080/v1/sms/messages?token=2", "/v1/sms/messages?token=2"),
        ("http://127.0.0.1:8080/relay/v1", f"{NEXT}?token=2", None),
        ("http://127.0.0.1:8080", "http://127.0.0.1:8080/sms/messages?token=2", "/sms/messages?token=2"),
        ("http://localhost:8080", "http://127.0.0.1:8080/sms/messages?token=2", None),
        ("http://localhost", "http://localhost:80/sms/messages?token=2", "/sms/messages?token=2"),
        ("http://localhost", "https://localhost/sms/messages?token=2", None),
        ("http://[::1]:8080", "http://[::1]:8080/sms/messages?token=2", "/sms/messages?token=2"),
    ],
    ids=[
        "a relay's own",
        "the same origin, another path",
        "the vendor's, through a relay",
        "no path",
        "another name for the same",
        "http's port",
        "https for http",
        "IPv6",
    ],
)
def test_link_through_a_relay(base_url, link, target):
    """What counts is the origin of the base URL, whichever it is."""
    base = read_base_url(base_url)
    given = read_page(page(next_page=link), READ, base, Place())
    assert target == (None if given.error else given.next.target(base))


@pytest.mark.parametrize(
    "base_url",
    [
        *(url for url, _ in GOOD_BASE_URLS.values() if len(url) < 10_000),
        "https://localhost//v1",
        "https://localhost/v1//sms",
        "https://localhost/v1/../v2",
        "https://localhost/./v1",
    ],
)
def test_own_link_is_followed(base_url):
    """Whatever base URL is taken, a link below it is followed; a path that is rewritten on the way is not taken."""
    try:
        base = read_base_url(base_url)
    except ConfigurationError:
        assert base_url not in {url for url, _ in GOOD_BASE_URLS.values()}
        return
    given = read_page(page(next_page=f"{base}/sms/messages?token=2"), READ, base, Place())
    assert (f"{base.path}/sms/messages?token=2", None) == (given.next.target(base), given.error)


# ---------------------------------------------------------------- cursors

PLACES = {
    "the first page": Place(),
    "the first page of some": Place({"phone": "+40 722", "message": "é👍\n\0"}),
    "every filter": Place(dict.fromkeys(FILTERS, "1")),
    "an empty filter": Place({"to": ""}),
    "a token": Place(query="token=TOKEN_FOR_NEXT_PAGE"),
    "a token and filters": Place({"to": "1"}, "token=2&a=%20?/"),
    "an empty query": Place({"to": "1"}, ""),
    "another path": Place(query="token=2", path="/v2/list"),
    "the root": Place(query="", path="/"),
    "the end": Place(is_end=True),
    "the end of some": Place({"to": "1"}, is_end=True),
    "all that there is to say": Place({"to": "1"}, "token=2", "/v2/list", is_end=True),
    "a long query": Place(query="2" * 30_000),
    "a long path": Place(path="/".ljust(30_001, "a")),
}


def cursor_of(value: Any) -> str:
    """A cursor that says this."""
    raw = value if isinstance(value, bytes) else json.dumps(value).encode()
    return base64.urlsafe_b64encode(raw).decode().rstrip("=")


FOREIGN_CURSORS = {
    "empty": "",
    "a word": "TOKEN_FOR_NEXT_PAGE",
    "a URL": f"{NEXT}?token=2",
    "not base64": "%%%%",
    "not ASCII": "é",
    "half a surrogate pair": "\ud83d",
    "a character too many": cursor_of({"v": 1}) + "A",
    "padding within": "e30=e30=",
    "foreign characters within": f"{cursor_of({'v': 1})[:4]}!*!*{cursor_of({'v': 1})[4:]}",
    "lines": f"{cursor_of({'v': 1})[:4]}\r\n\r\n{cursor_of({'v': 1})[4:]}",
    "a newline": cursor_of({"v": 1}) + "\n",
    "empty JSON": cursor_of(b""),
    "not JSON": cursor_of(b"{"),
    "not UTF-8": cursor_of(b"\xff"),
    "NaN": cursor_of(b'{"v": NaN}'),
    "too deep": cursor_of(b"[" * DEEP),
    "a number of 5,000 digits": cursor_of(b'{"v": ' + b"1" * 5000 + b"}"),
    "a list": cursor_of([1]),
    "a number": cursor_of(1),
    "no version": cursor_of({"query": "token=2"}),
    "another version": cursor_of({"v": 2}),
    "a version in words": cursor_of({"v": "1"}),
    "an unknown key": cursor_of({"v": 1, "origin": "https://evil.example"}),
    "filters that are a list": cursor_of({"v": 1, "filters": ["to"]}),
    "filters that are null": cursor_of({"v": 1, "filters": None}),
    "an unknown filter": cursor_of({"v": 1, "filters": {"limit": "1"}}),
    "the parameter's name of a filter": cursor_of({"v": 1, "filters": {"from_": "1"}}),
    "a filter that is a number": cursor_of({"v": 1, "filters": {"to": 1}}),
    "a filter that is null": cursor_of({"v": 1, "filters": {"to": None}}),
    "a filter with half a surrogate pair": cursor_of({"v": 1, "filters": {"to": "\ud83d"}}),
    "a query that is a number": cursor_of({"v": 1, "query": 2}),
    "a query that is a list": cursor_of({"v": 1, "query": ["token=2"]}),
    "a query with a space": cursor_of({"v": 1, "query": "token=2 HTTP/1.1"}),
    "a query with a newline": cursor_of({"v": 1, "query": "token=2\r\nX-Evil: 1"}),
    "a query with a newline at its end": cursor_of({"v": 1, "query": "token=2\n"}),
    "a query with a fragment": cursor_of({"v": 1, "query": "token=2#page"}),
    "a query with a backslash": cursor_of({"v": 1, "query": "token=\\"}),
    "a query outside ASCII": cursor_of({"v": 1, "query": "token=é"}),
    "a query that is too long": cursor_of({"v": 1, "query": "2" * 30_001}),
    "a path that is too long": cursor_of({"v": 1, "path": "/".ljust(30_002, "a")}),
    "filters that are too long": cursor_of({"v": 1, "filters": {"to": "2" * 30_000}}),
    "a path that is a number": cursor_of({"v": 1, "path": 2}),
    "an empty path": cursor_of({"v": 1, "path": ""}),
    "a relative path": cursor_of({"v": 1, "path": "sms/messages"}),
    "a path that names a user": cursor_of({"v": 1, "path": "@evil.example/"}),
    "a path that names a port": cursor_of({"v": 1, "path": ":444/"}),
    "a path that names a host": cursor_of({"v": 1, "path": "//evil.example/"}),
    "a path that is a URL": cursor_of({"v": 1, "path": "https://evil.example/"}),
    "a path with a backslash": cursor_of({"v": 1, "path": "/\\evil.example/"}),
    "a path with a query": cursor_of({"v": 1, "path": "/a?b"}),
    "a path with a fragment": cursor_of({"v": 1, "path": "/a#b"}),
    "a path with a space": cursor_of({"v": 1, "path": "/a b"}),
    "a path with a newline at its end": cursor_of({"v": 1, "path": "/a\n"}),
    "an end in words": cursor_of({"v": 1, "is_end": "yes"}),
    "an end that is a number": cursor_of({"v": 1, "is_end": 1}),
    "an end that is null": cursor_of({"v": 1, "is_end": None}),
}


@pytest.mark.parametrize("place", **cases(PLACES))
def test_cursor_and_back(place):
    """A cursor is one word that may stand in a URL, and gives the place that it was made from."""
    cursor = place.cursor()
    assert re.fullmatch(r"[A-Za-z0-9_-]+", cursor)
    assert place == read_cursor(cursor, {})


def test_many_cursors_and_back():
    """So it is for each of many pages, whatever its cursor ends with."""
    places = [Place(query=f"token={number}") for number in range(1000)]
    cursors = [place.cursor() for place in places]
    assert places == [read_cursor(cursor, {}) for cursor in cursors]
    assert 1000 == len({*cursors})


@pytest.mark.parametrize("place", **cases(PLACES))
def test_cursor_leads_to_the_same_request(place):
    """What is asked for with a cursor is what would have been asked for without."""
    assert place.target(BASE) == read_cursor(place.cursor(), {}).target(BASE)


def test_cursor_keeps_no_origin():
    """A cursor names a place on whichever origin it is used."""
    cursor = listing(page(next_page=f"{NEXT}?token=2")).next.cursor()
    raw = base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4))

    assert {"v": 1, "query": "token=2"} == json.loads(raw)
    assert "/relay/sms/messages?token=2" == read_cursor(cursor, {}).target(read_base_url("http://localhost/relay"))


def test_no_cursor():
    """Without a cursor the walk begins with the first page of the filters."""
    assert Place({"to": "1"}) == read_cursor(None, {"to": "1"})


@pytest.mark.parametrize("cursor", **cases(FOREIGN_CURSORS))
def test_foreign_cursor(cursor):
    """What is no cursor of ours is refused before anything is asked, and kept on the error."""
    with pytest.raises(PaginationError, match=r"^This is no cursor of this package: .* Nothing was asked\.$") as caught:
        read_cursor(cursor, {})

    assert (cursor, False, 0) == (caught.value.cursor, caught.value.may_have_been_sent, caught.value.attempts)
    assert_unchained(caught.value)


@pytest.mark.parametrize(
    "cursor", [1, b"e30", ["e30"], True, Place()], ids=["a number", "bytes", "a list", "true", "a place"]
)
def test_cursor_that_is_no_string(cursor):
    """A cursor that is no string is a wrong argument."""
    with pytest.raises(InvalidArgumentError, match=r"^cursor must be a string from \.cursor, or None$"):
        read_cursor(cursor, {})


def test_cursor_beside_its_own_filters():
    """Filters beside a cursor may be repeated, in any order."""
    place = Place({"to": "1", "from": "2"}, "token=2")
    assert place == read_cursor(place.cursor(), {"from": "2", "to": "1"})


@pytest.mark.parametrize(
    "filters", [{"to": "2"}, {"from": "1"}, {"to": "1", "from": "2"}], ids=["value", "name", "more"]
)
@pytest.mark.parametrize("place", [Place(query="token=2"), Place({"to": "1"}, "token=2")], ids=["none", "one"])
def test_cursor_beside_other_filters(place, filters):
    """Other filters than the cursor's are refused: the service's token would not know them."""
    with pytest.raises(InvalidArgumentError, match=r"^the cursor belongs to a listing with other filters"):
        read_cursor(place.cursor(), filters)


# ---------------------------------------------------------------- places


def test_marks():
    """A walk knows a page again by what is asked for, whichever way it was named."""
    assert Place({"to": "1"}).mark == Place(query="to=1").mark
    assert Place({"to": "1"}, "token=2").mark == Place(query="token=2", is_end=True).mark


def test_marks_of_different_pages():
    """Another query or another path is another page."""
    places = [Place(), Place({"to": "1"}), Place(query="to=2"), Place(path="/"), Place(path="/", query="to=1")]
    assert len(places) == len({place.mark for place in places})


def test_depth_does_not_depend_on_the_caller():
    """JSON that is too deep for Python is malformed however high the caller's own limit is."""
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(limit * 2)
    try:
        with pytest.raises(Malformed, match="is nested too deeply"):
            read_json(b"[" * DEEP)
    finally:
        sys.setrecursionlimit(limit)


def test_500_levels_are_read():
    """Levels are counted alike on every stack, and not in strings: 500 are read, one more is not."""
    text = '[{"\\"' * 1000
    value = json.loads("[" * 499 + json.dumps(text) + "]" * 499)
    assert [text, value] == read_json(json.dumps([text, value]).encode())
    assert [[], {}] * 1000 == read_json(json.dumps([[], {}] * 1000).encode())
    with pytest.raises(Malformed, match="is nested too deeply"):
        read_json(json.dumps([text, [value]]).encode())


@pytest.mark.parametrize("end", [b"", b'"', b"\\", b'"]'], ids=repr)
def test_a_string_of_quotes_is_looked_at_once(end):
    """Levels before a string of nothing but escaped quotes are counted while one waits, whether or not it ends."""
    with pytest.raises(Malformed, match="is nested too deeply"):
        read_json(b"[" * 501 + b'"' + b'\\"' * 500_000 + end)


def test_levels_that_strings_hide():
    """Where closing brackets in strings hide how deep it is, Python's own bound tells."""
    # what is finalized at that bound fails: so not what other tests left behind
    gc.collect()
    with pytest.raises(Malformed, match="is nested too deeply"):
        read_json(b'["]",' * DEEP)


def test_a_page_of_malformed_messages():
    """After a hundred of them only what has the documented form is read, for the rest would take too long."""
    good, other = dict(TO_THE_LETTER), {"type": "other", "from": "1", "to": "2", "message": "Hello"}
    data = [other, *[{}] * 100, other, good]
    answer = Answer(200, [], json.dumps({"data": data}).encode())
    page = read_page(answer, READ, BASE, Place())
    assert "data[1].type" == page.error.place
    assert ["Hello", "Hello, World!"] == [message.message for message in page.messages]
    fewer = Answer(200, [], json.dumps({"data": data[1:2] + data[3:]}).encode())
    assert 101 == len(data[1:2] + data[3:])
    assert 2 == len(read_page(fewer, READ, BASE, Place()).messages)


# ---------------------------------------------------------------- the fast pass

TO_THE_LETTER = {
    "type": "message_received",
    "from": "1234567890",
    "to": "0987654321",
    "message": "Hello, World!",
    "message_id": "1234567890",
    "created_at": "2020-01-01T00:00:00Z",
    "sent_at": "2020-12-31T23:59:59Z",
}
OTHERWISE = {
    **{
        f"without {name}": {key: value for key, value in TO_THE_LETTER.items() if key != name} for name in TO_THE_LETTER
    },
    **{f"{name} a number": TO_THE_LETTER | {name: 5} for name in TO_THE_LETTER},
    **{f"{name} null": TO_THE_LETTER | {name: None} for name in TO_THE_LETTER},
    "one more key": TO_THE_LETTER | {"other": 1},
    "one other key": {key: value for key, value in TO_THE_LETTER.items() if key != "sent_at"} | {"other": 1},
    **{
        f"{name} {value}": TO_THE_LETTER | {name: value}
        for name in ("created_at", "sent_at")
        for value in (
            "2020-01-01T24:00:00Z",
            "2020-01-01 00:00:00Z",
            "2020-01-01T00:00:00",
            "2020-01-01T00:00:00+00:00",
            "2020-01-01T00:00:00.1Z",
            "2020-01-01T00:00:00Zx",
            "2020-13-01T00:00:00Z",
            "",
        )
    },
    "a list": [TO_THE_LETTER],
    "null": None,
    "a string": "message",
}


def test_the_documented_form_is_read_by_the_fast_pass():
    """It makes the same message as the converter, which reads all other forms."""
    message = _wire._read_documented(TO_THE_LETTER)
    assert message is not None
    assert message == _wire._converter.structure(TO_THE_LETTER, Message)
    assert {} == message.extra


@pytest.mark.parametrize("value", OTHERWISE.values(), ids=OTHERWISE)
def test_any_other_form_is_left_to_the_converter(value):
    """The fast pass reads the documented form to the letter, and nothing else."""
    assert None is _wire._read_documented(value)


RECEIPT_TO_THE_LETTER = {
    "id": "1",
    "name": "Example",
    "description": "A text",
    "created_at": "2020-01-01T00:00:00Z",
    "updated_at": "2020-12-31T23:59:59Z",
}
RECEIPT_OTHERWISE = {
    **{
        f"without {name}": {key: value for key, value in RECEIPT_TO_THE_LETTER.items() if key != name}
        for name in RECEIPT_TO_THE_LETTER
    },
    **{f"{name} a number": RECEIPT_TO_THE_LETTER | {name: 5} for name in RECEIPT_TO_THE_LETTER},
    **{f"{name} null": RECEIPT_TO_THE_LETTER | {name: None} for name in RECEIPT_TO_THE_LETTER},
    "one more key": RECEIPT_TO_THE_LETTER | {"other": 1},
    **{
        f"{name} {value}": RECEIPT_TO_THE_LETTER | {name: value}
        for name in ("created_at", "updated_at")
        for value in (
            "2020-01-01T24:00:00Z",
            "2020-01-01 00:00:00Z",
            "2020-01-01T00:00:00+00:00",
            "2020-13-01T00:00:00Z",
        )
    },
    "a list": [RECEIPT_TO_THE_LETTER],
    "null": None,
}


def test_the_documented_receipt_is_read_by_the_fast_pass():
    """It makes the same receipt as the slow one, which reads all other forms."""
    value = {"data": RECEIPT_TO_THE_LETTER, "status": "success"}
    receipt = _wire._read_documented_receipt(value)
    assert receipt is not None
    assert receipt == attrs.evolve(_wire._structure_receipt(value | {"other": 1}), extra={})
    assert {} == receipt.extra


@pytest.mark.parametrize(
    "value",
    [
        *({"data": data, "status": "success"} for data in RECEIPT_OTHERWISE.values()),
        {"data": RECEIPT_TO_THE_LETTER},
        {"data": RECEIPT_TO_THE_LETTER, "status": "failure"},
        {"data": RECEIPT_TO_THE_LETTER, "status": "success", "other": 1},
        {"data": RECEIPT_TO_THE_LETTER, "other": "success"},
        [RECEIPT_TO_THE_LETTER],
        None,
    ],
)
def test_any_other_receipt_is_left_to_the_slow_pass(value):
    """The fast pass reads the documented receipt to the letter, and nothing else."""
    assert None is _wire._read_documented_receipt(value)
