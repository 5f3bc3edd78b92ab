"""Nothing shows a token; nothing but the models' own fields shows a number or a text."""

from __future__ import annotations

import copy
import html
import json
import pickle
import re
import traceback
from typing import Any
from urllib.parse import quote, quote_plus

import attrs
import pytest

from cloudware_async import (
    APIStatusError,
    AsyncCloudware,
    Cloudware,
    CloudwareError,
    Draft,
    InvalidArgumentError,
    Message,
    Page,
    Receipt,
    SendResult,
)
from cloudware_async._privacy import HIDDEN, Secret, mask_extra, mask_number, mask_text, scrub
from cloudware_async._wire import (
    VENDOR_URL,
    Answer,
    Failure,
    FailureKind,
    Listing,
    Place,
    error_from_failure,
    error_from_status,
    messages_request,
    read_base_url,
    read_cursor,
    read_filters,
    read_limit,
    read_page,
    read_receipt,
    read_token,
    send_request,
)

# planted, and looked for everywhere
TOKEN = "t0k3n-c4n4ry-8151"
NUMBER = "2348015559173"
SENDER = "40722008151"
TEXT = 'The c4n4ry "sings" / ünd 8151'
CANARIES = (TOKEN, NUMBER, SENDER, "c4n4ry", "8151", "5559173")

BASE = read_base_url("https://api.cloudware.chat/v1")
SEND = send_request(BASE, read_token(TOKEN), "/sms/send", f"+{NUMBER}", TEXT, SENDER)
FILTERS = {"to": NUMBER, "from": SENDER, "message": TEXT}
READ = messages_request(BASE, read_token(TOKEN), Place(FILTERS))
WIRE_MESSAGE = {"type": "message_received", "from": SENDER, "to": NUMBER, "message": TEXT}
MESSAGE = Message("message_received", SENDER, NUMBER, TEXT, extra={"device": SENDER, TEXT: NUMBER})


def cases(table: dict[str, Any]) -> dict[str, Any]:
    """A table for `parametrize`, each row under its name."""
    return {"argvalues": list(table.values()), "ids": list(table)}


def assert_private(shown: str) -> None:
    """None of what was planted is shown, as it is or as JSON or Python writes it."""
    for canary in CANARIES:
        assert canary not in shown


def refusal(status: int, body: bytes | str, request: Any = SEND, *headers: tuple[bytes, bytes]) -> APIStatusError:
    """The error of an answer that says this."""
    return error_from_status(Answer(status, list(headers), body if isinstance(body, bytes) else body.encode()), request)


# ---------------------------------------------------------------- tokens


@pytest.mark.parametrize(
    "show",
    [repr, str, ascii, "{}".format, "{!r:>40}".format, "%s".__mod__],
    ids=["repr", "str", "ascii", "format", "padded", "percent"],
)
def test_secret_is_not_shown(show):
    """A secret is shown as nothing but a secret."""
    shown = show(Secret(TOKEN))
    assert_private(shown)
    assert "Secret(" in shown


def test_secret_is_revealed():
    """One asks for it by name."""
    assert TOKEN == Secret(TOKEN).reveal()


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_secret_is_not_pickled(protocol):
    """A secret goes into no pickle of any protocol, nor does what holds it."""
    for holder in (Secret(TOKEN), [Secret(TOKEN)], SEND):
        with pytest.raises(TypeError, match="a Secret is not pickled") as caught:
            pickle.dumps(holder, protocol)
        assert_private(str(caught.value))


@pytest.mark.parametrize("duplicate", [copy.copy, copy.deepcopy])
def test_secret_is_not_copied(duplicate):
    """A secret is not copied."""
    with pytest.raises(TypeError, match="a Secret is not pickled"):
        duplicate(Secret(TOKEN))


def test_secret_has_no_attributes():
    """What looks at an object's attributes finds none, and none can be added."""
    secret = Secret(TOKEN)
    assert not hasattr(secret, "__dict__")
    with pytest.raises(AttributeError):
        secret.name = "value"


@pytest.mark.parametrize("client_class", [AsyncCloudware, Cloudware])
def test_client_is_private(client_class):
    """A client shows where it sends to and nothing more, and is not pickled."""
    client = client_class(TOKEN, from_=SENDER)
    for shown in (client, client.with_options(access_token=f"{TOKEN}-2"), client.messages(to=NUMBER, message=TEXT)):
        assert_private(repr(shown))
        assert_private(str(shown))
    assert f"{client_class.__name__}(base_url='https://api.cloudware.chat/v1')" == repr(client)
    with pytest.raises(TypeError):
        pickle.dumps(client)


# ---------------------------------------------------------------- masks


@pytest.mark.parametrize(
    ("number", "shown"),
    [
        (None, "None"),
        ("", "•••"),
        ("1", "•••"),
        ("123456789", "•••"),
        ("1234567890", "1234•••890"),
        ("2348012345678", "2348•••678"),
        ("+2348012345678", "+234•••678"),
        ("CLOUDWARE", "•••"),
        ("CLOUDWARE-SMS", "CLOU•••SMS"),
    ],
)
def test_masked_number(number, shown):
    """A number is shown by its ends, and not at all if it is short."""
    assert shown == mask_number(number)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (None, "None"),
        ("", "<0 characters>"),
        ("a", "<1 characters>"),
        ("Hello world", "<11 characters>"),
        ("👍", "<1 characters>"),
    ],
)
def test_masked_text(text, shown):
    """A text is shown by its length."""
    assert shown == mask_text(text)


@pytest.mark.parametrize(
    ("extra", "shown"),
    [({}, "<0 keys>"), ({"a": 1, "b": {"c": 2}}, "<2 keys>"), (None, "•••"), ([1], "•••"), ("ab", "•••")],
)
def test_masked_extra(extra, shown):
    """What is not documented is shown by how much of it there is."""
    assert shown == mask_extra(extra)


# ---------------------------------------------------------------- reprs

LISTING = read_page(
    Answer(200, [], json.dumps({"query": f"to={NUMBER}&message={TEXT}", "data": [WIRE_MESSAGE]}).encode()),
    READ,
    BASE,
    Place(FILTERS),
)
SHOWN = {
    "a message": MESSAGE,
    "a message with a wrong extra": Message("message_sent", SENDER, NUMBER, TEXT, extra=[TEXT]),
    "a receipt": Receipt(name=TEXT, description=f"to {NUMBER}", extra={"to": NUMBER, TEXT: TOKEN}),
    "a page": Page((MESSAGE,), f"to={NUMBER}", Place(FILTERS).cursor()),
    "a draft": Draft(NUMBER, TEXT, SENDER),
    "a result": SendResult(Draft(NUMBER, TEXT, SENDER), error=refusal(400, json.dumps(WIRE_MESSAGE))),
    "a send": SEND,
    "a read": READ,
    "an answer": Answer(200, [(b"X-Number", NUMBER.encode())], json.dumps(WIRE_MESSAGE).encode()),
    "a place": Place(FILTERS, f"to={NUMBER}", f"/{TOKEN}"),
    "a page as it was read": LISTING,
}


@pytest.mark.parametrize("shown", **cases(SHOWN))
def test_repr(shown):
    """Nothing that holds a token, a number or a text shows it."""
    assert_private(repr(shown))
    assert_private(str(shown))
    assert_private(repr([shown]))


def test_what_was_handed_in_for_a_draft():
    """A result shows no more of what was no draft, though it is in the report."""
    result = SendResult({"to": NUMBER, "message": TEXT}, error=InvalidArgumentError("each draft must be a Draft"))
    assert_private(repr(result))


@pytest.mark.parametrize("end", ["\n", "\r", "\x1b[2J", "\0", "\u2028", "\u202e", "\ud83d"], ids=ascii)
def test_repr_stays_on_one_line(end):
    """A number that is none, as a service may tell it, breaks no line of a log and can be written to one."""
    assert repr(Message("message_sent", f"123{end}456789{end}", f"{end}123456789", TEXT)).isprintable()


# ---------------------------------------------------------------- scrubbing

FORMS_OF_A_TEXT = {
    "as it is": TEXT,
    "in JSON": json.dumps({"message": TEXT}, ensure_ascii=False),
    "in JSON, escaped": json.dumps({"message": TEXT}),
    "in JSON, with upper-case escapes": json.dumps({"message": TEXT}).replace("\\u00fc", "\\u00FC"),
    "in JSON, with slashes escaped": json.dumps({"message": TEXT}).replace("/", "\\/"),
    "in JSON as Go writes it": json.dumps({"message": TEXT}).replace("&", "\\u0026").replace("<", "\\u003c"),
    "in JSON within JSON": json.dumps({"error": json.dumps({"message": TEXT, "token": TOKEN})}),
    "in HTML within JSON": json.dumps({"error": f"<p>{html.escape(TEXT)}</p>"}),
    "in HTML": html.escape(TEXT).replace("&#x27;", "&#39;"),
    "in HTML, by numbers": "".join(f"&#{ord(letter)};" for letter in TEXT),
    "in a URL": quote(TEXT, safe=""),
    "in a URL, in small letters": re.sub("%..", lambda match: match[0].lower(), quote(TEXT, safe="")),
    "in a form": quote_plus(TEXT),
    "a number in groups": f"+{NUMBER[:3]} ({NUMBER[3:6]}) {NUMBER[6:9]}-{NUMBER[9:]}",
    "beyond a long beginning": f"{'x' * 16_380}{TEXT}",
    "twice": f"{TEXT}{TEXT}",
    "beside itself in JSON": f"{TEXT} {json.dumps(TEXT)} {TEXT}",
    "among others": f"<{TOKEN}> to <{NUMBER}> from <{SENDER}>: <{TEXT}>",
}


@pytest.mark.parametrize("text", **cases(FORMS_OF_A_TEXT))
def test_scrub(text):
    """Private strings are taken out as they are and in each way that JSON writes them."""
    shown = scrub(text, (TOKEN, NUMBER, TEXT, SENDER))
    assert HIDDEN in shown
    assert_private(shown)


def test_scrub_keeps_the_rest():
    """What is not private stays."""
    assert '{"error":"no credit for •••"}' == scrub('{"error":"no credit for 2348015559173"}', (TOKEN, NUMBER))
    assert "no credit" == scrub("no credit", (TOKEN, NUMBER))
    assert "" == scrub("", (TOKEN, NUMBER))
    assert "no credit" == scrub("no credit", ())


def test_scrub_keeps_no_more_than_a_beginning():
    """Of a long text its beginning is kept, and nothing of what stands where it was cut."""
    assert "x" * 16_384 == scrub("x" * 1_000_000, (TOKEN,))
    text = json.dumps({"error": [TEXT] * 100_000})
    for length in range(16 * 16_384 - 100, 16 * 16_384 + 1000, 7):
        assert_private(scrub(text[:length] + "x" * 20_000, (TEXT,)))


def test_scrub_html():
    """What the service shows on a page is taken out too."""
    assert "<p>•••</p>" == scrub("<p>Tom &amp; &quot;Jerry&quot;</p>", ('Tom & "Jerry"',))


def test_scrub_a_number_without_its_plus():
    """A filter's number is taken out of what the service says back without the `+`, too."""
    request = messages_request(read_base_url(VENDOR_URL), Secret(TOKEN), Place({"phone": f"+{NUMBER}"}))
    assert "no such number: •••" == scrub(f"no such number: {NUMBER}", request.private)


def test_scrub_nothing():
    """An empty private string, as an empty filter is, is nowhere."""
    assert "no credit" == scrub("no credit", ("",))


@pytest.mark.parametrize(
    ("private", "text"),
    [
        ((NUMBER, f"Dear {NUMBER}, c4n4ry"), f"rejected: Dear {NUMBER}, c4n4ry"),
        ((NUMBER, "c4n4ry", f"{NUMBER} said c4n4ry 8151"), f"rejected: {NUMBER} said c4n4ry 8151"),
        (("123", "1234567890 c4n4ry"), "1234567890 c4n4ry"),
        ((NUMBER, f"+{NUMBER[:3]} {NUMBER[3:]}", f"a{NUMBER}c4n4ry"), f"a{NUMBER}c4n4ry"),
    ],
    ids=["a number in the text", "a number and a sender in the text", "a short number in the text", "no space between"],
)
def test_scrub_what_holds_another(private, text):
    """A private string that has another one in it is taken out whole, whichever comes first."""
    for order in (private, private[::-1]):
        assert_private(scrub(text, order))


# ---------------------------------------------------------------- errors

ECHOES = {
    "the request": SEND.body,
    "the request, escaped": json.dumps({"error": {"request": json.loads(SEND.body)}}),
    "the number as it was typed": f"+{NUMBER} is unknown",
    "the token": f"no such token: Bearer {TOKEN}",
    "a page of HTML": f"<p>{NUMBER}</p><p>{SENDER}</p>",
    "not UTF-8": b"\xff" + TEXT.encode() + b"\xff",
    "in the middle of much else": "x" * 10_000 + TEXT + "x" * 10_000,
    "where the body is cut": "x" * (16 * 1024 - len(TOKEN) + 1) + TOKEN,
    "where the body is cut, in the text": "x" * (16 * 1024 - 20) + TEXT,
}


@pytest.mark.parametrize("body", **cases(ECHOES))
def test_what_the_service_repeats(body):
    """An error keeps nothing private of what the service repeats of a send: not in its text, its body or its pickle."""
    for status in (100, 302, 400, 401, 404, 409, 422, 429, 500, 503):
        error = refusal(status, body)
        assert HIDDEN in error.body or len(body) > 16 * 1024
        assert_private(f"{error!r} {error} {vars(error)}")
        assert_private(pickle.dumps(error, 0).decode("raw-unicode-escape"))


@pytest.mark.parametrize(
    "body",
    [
        json.dumps(FILTERS),
        f"nothing from {SENDER} to {NUMBER} that says {TEXT}",
        f"no such token: {TOKEN}",
        f"Cannot GET {READ.target}",
    ],
    ids=["JSON", "words", "the token", "the URL"],
)
def test_what_the_service_repeats_of_a_listing(body):
    """Nor of a listing's filters, as they are and as they stand in its URL."""
    error = refusal(404, body, READ)
    assert_private(f"{error!r} {error} {vars(error)}")


def test_what_the_service_repeats_of_an_empty_filter():
    """An empty filter leaves the answer's body readable."""
    request = messages_request(BASE, read_token(TOKEN), Place({"to": ""}))
    assert "Not Found" == refusal(404, "Not Found", request).body


@pytest.mark.parametrize("name", [b"content-type", b"date", b"retry-after", b"x-request-id", b"x-number"])
def test_what_the_service_repeats_in_headers(name):
    """Nor of what stands in the headers."""
    error = refusal(400, "", SEND, (name, f"{TOKEN} {NUMBER}".encode()))
    assert_private(f"{vars(error)}")


WRONG_ARGUMENTS = {
    "a token": lambda: read_token(f"{TOKEN}\n"),
    "a base URL": lambda: read_base_url(f"https://me:{TOKEN}@api.cloudware.chat/v1"),
    "a base URL with a query": lambda: read_base_url(f"https://api.cloudware.chat/v1?token={TOKEN}"),
    "a number": lambda: send_request(BASE, SEND.token, "/sms/send", f"{NUMBER}{SENDER}", TEXT, None),
    "a message": lambda: send_request(BASE, SEND.token, "/sms/send", NUMBER, TEXT.encode(), None),
    "a cut message": lambda: send_request(BASE, SEND.token, "/sms/send", NUMBER, f"{TEXT}\ud83d", None),
    "a sender": lambda: send_request(BASE, SEND.token, "/sms/send", NUMBER, TEXT, int(SENDER)),
    "a filter": lambda: read_filters(to=int(NUMBER)),
    "a cut filter": lambda: read_filters(message=f"{TEXT}\ud83d"),
    "a limit": lambda: read_limit(NUMBER),
    "a cursor that is no string": lambda: read_cursor(int(NUMBER), {}),
    "a cursor of another listing": lambda: read_cursor(Place(FILTERS).cursor(), {"to": SENDER}),
}


@pytest.mark.parametrize("read", **cases(WRONG_ARGUMENTS))
def test_wrong_argument(read):
    """An error about an argument does not repeat it, nor does what led to it."""
    with pytest.raises(CloudwareError) as caught:
        read()
    error = caught.value
    assert_private(f"{error!r} {vars(error)}")
    assert (None, None) == (error.__cause__, error.__context__)
    last = traceback.TracebackException.from_exception(error).format_exception_only()
    assert_private("".join(last))


BAD_ANSWERS = {
    "no JSON": TEXT.encode(),
    "cut JSON": json.dumps({"data": [WIRE_MESSAGE]}).encode()[:-2],
    "not UTF-8": TEXT.encode() + b"\xff",
    "a status": json.dumps({"status": TEXT}).encode(),
    "no page": json.dumps({"data": TEXT}).encode(),
    "a text among the messages": json.dumps({"data": [TEXT]}).encode(),
    "a text for a timestamp": json.dumps({"data": [WIRE_MESSAGE | {"sent_at": TEXT}]}).encode(),
    "a number for a text": json.dumps({"data": [WIRE_MESSAGE | {"message": int(NUMBER)}]}).encode(),
    "a list for a number": json.dumps({"data": [WIRE_MESSAGE | {"to": [NUMBER]}]}).encode(),
    "a foreign link": json.dumps({"data": [], "next_page": f"https://evil.example/{NUMBER}?{TOKEN}"}).encode(),
    "a text for a link": json.dumps({"data": [], "next_page": TEXT}).encode(),
}


@pytest.mark.parametrize("body", **cases(BAD_ANSWERS))
def test_bad_answer(body):
    """An error about an answer names the place, not what stands there."""
    outcomes = [read_receipt(Answer(200, [], body), SEND), read_page(Answer(200, [], body), READ, BASE, Place(FILTERS))]
    errors = [outcome.error if isinstance(outcome, Listing) else outcome for outcome in outcomes]
    for error in errors:
        assert isinstance(error, CloudwareError)
        assert_private(f"{error!r} {vars(error)}")
        assert (None, None) == (error.__cause__, error.__context__)


@pytest.mark.parametrize("kind", FailureKind)
def test_failure(kind):
    """An error about a connection says nothing of what was to be sent."""
    error = error_from_failure(Failure(kind, written=True, reason="ConnectError"), SEND)
    assert_private(f"{error!r} {vars(error)}")


def test_looking_inside():
    """Only on purpose does one see it all."""
    shown = repr(attrs.asdict(MESSAGE))
    for canary in (NUMBER, SENDER, "c4n4ry"):
        assert canary in shown
