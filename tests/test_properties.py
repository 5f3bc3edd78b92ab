"""What holds for every input: decisions stay within their bounds, and what a server says raises nothing of its own."""

from __future__ import annotations

import base64
import contextlib
import gzip
import json
import math
import random
import re
import zlib
from typing import Any
from urllib.parse import parse_qsl

import httpx
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from cloudware_async import (
    APIConnectionError,
    CloudwareError,
    ConfigurationError,
    InvalidArgumentError,
    Message,
    PaginationError,
    Receipt,
    RetryPolicy,
)
from cloudware_async._privacy import HIDDEN, Secret, scrub
from cloudware_async._retry import RetryBudget, decide
from cloudware_async._wire import (
    FILTERS,
    Answer,
    Failure,
    FailureKind,
    Listing,
    Malformed,
    Place,
    decode_body,
    error_from_failure,
    error_from_status,
    messages_request,
    read_base_url,
    read_cursor,
    read_filters,
    read_json,
    read_message,
    read_number,
    read_page,
    read_receipt,
    read_retry_after,
    send_request,
)

# a busy machine makes no property false
settings.register_profile("cloudware", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("cloudware")

BASE = read_base_url("https://api.cloudware.chat/v1")
TOKEN = Secret("token")
SEND = send_request(BASE, TOKEN, "/sms/send", "2348012345678", "Hello", None)
READ = messages_request(BASE, TOKEN, Place())
# lone surrogates too
any_text = st.text(st.characters(exclude_categories=()), max_size=50)
seconds = st.floats(min_value=0, max_value=1e6)


def is_carried(text):
    """Whether UTF-8 can carry a text."""
    return not any("\ud800" <= letter <= "\udfff" for letter in text)


# dates of HTTP in each of its forms, but for the numbers and names in them
http_dates = st.one_of(
    st.from_regex(form, fullmatch=True)
    for form in (
        rb"(Sun|Xyz), [0-9]{2} (Nov|Feb|Xyz) [0-9]{4} [0-9]{2}:[0-9]{2}:[0-9]{2} GMT",
        rb"(Sunday|Xyzabcd), [0-9]{2}-(Nov|Feb|Xyz)-[0-9]{2} [0-9]{2}:[0-9]{2}:[0-9]{2} GMT",
        rb"(Sun|Xyz) (Nov|Feb|Xyz) [ 0-9][0-9] [0-9]{2}:[0-9]{2}:[0-9]{2} [0-9]{4}",
    )
)
headers = st.lists(
    st.tuples(
        st.sampled_from([b"Retry-After", b"Date", b"Content-Encoding", b"Content-Type", b"X-Request-Id"])
        | st.binary(max_size=10),
        st.binary(max_size=40) | st.sampled_from([b"1", b"gzip", b"deflate", b"identity"]) | http_dates,
    ),
    max_size=4,
)
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=10), inner, max_size=4),
    max_leaves=12,
)
bodies = st.binary(max_size=200) | values.map(lambda value: json.dumps(value).encode())
# RFC 3339 in form, and at times in substance
timestamps = st.from_regex(
    r"(0000|0001|2020|9999)-(12|[01][0-9])-(31|[0-3][0-9])[Tt ](23|[0-2][0-9]):(59|[0-6][0-9]):(59|60|[0-9]{2})"
    r"(\.[0-9]{1,9})?([Zz]|[+-][0-9]{2}:[0-9]{2})?",
    fullmatch=True,
)
message_like = st.fixed_dictionaries(
    {},
    optional={
        name: values | timestamps | st.sampled_from(["2020-01-01T00:00:00Z", "1234567890"])
        for name in ("type", "from", "to", "message", "message_id", "created_at", "sent_at", "other")
    },
)


@given(
    attempts=st.integers(1, 10),
    attempt=st.integers(1, 20),
    elapsed=seconds,
    timeout=seconds,
    tokens=st.floats(0, 10),
    unknown=st.booleans(),
    passing=st.booleans(),
    resend=st.booleans(),
    seed=st.integers(),
)
def test_a_retry_stays_within_its_bounds(attempts, attempt, elapsed, timeout, tokens, unknown, passing, resend, seed):
    """It is never negative, never past the timeout, never one attempt too many, and never of an unknown send."""
    failure = APIConnectionError("no", may_have_been_sent=unknown)
    failure._passing = passing
    policy = RetryPolicy(max_attempts=attempts, resend_unknown=resend, random=random.Random(seed).random)
    budget = RetryBudget(tokens=tokens)
    delay = decide(policy, budget, failure, attempt=attempt, elapsed=elapsed, timeout=timeout)
    if delay is None:
        assert tokens == budget.tokens
        return
    assert 0 <= delay < timeout - elapsed
    assert attempt < attempts
    assert resend if unknown else passing
    assert tokens - 1 == budget.tokens


failures = st.builds(
    lambda kind, written, request: error_from_failure(Failure(kind, written=written), request),
    st.sampled_from(FailureKind),
    st.booleans(),
    st.sampled_from([SEND, READ]),
) | st.builds(
    lambda status, raw, request: error_from_status(Answer(status, raw, b""), request),
    st.sampled_from([101, 302, 400, 408, 409, 425, 429, 500, 503]),
    st.lists(st.tuples(st.just(b"Retry-After"), st.integers(0, 300).map(lambda value: b"%d" % value)), max_size=1),
    st.sampled_from([SEND, READ]),
)


@given(
    ends=st.lists(st.tuples(failures, st.floats(0, 20)), min_size=1, max_size=12),
    attempts=st.integers(1, 8),
    resend=st.booleans(),
    timeout=st.floats(0.01, 1000),
    seed=st.integers(),
)
def test_a_call_stays_within_its_bounds(ends, attempts, resend, timeout, seed):
    """Of a whole call too: its attempts are counted, its pauses end before its timeout, an unknown send is its last."""
    policy = RetryPolicy(max_attempts=attempts, resend_unknown=resend, random=random.Random(seed).random)
    budget, elapsed, made = RetryBudget(), 0.0, 0
    for failure, seconds_taken in ends:
        made += 1
        elapsed += seconds_taken
        delay = decide(policy, budget, failure, attempt=made, elapsed=elapsed, timeout=timeout)
        if delay is None:
            break
        assert not failure.may_have_been_sent or resend
        # the sum may be rounded up
        assert elapsed + delay <= math.nextafter(timeout, math.inf)
        elapsed += delay
    assert made <= attempts
    assert 10 - budget.tokens <= attempts - 1


numbers = st.floats() | st.integers() | st.sampled_from([10**400, -(10**400), math.nan, math.inf, -math.inf])


@given(answer=numbers | values, elapsed=seconds, timeout=seconds, number=numbers)
def test_any_policy_is_kept_within_bounds(answer, elapsed, timeout, number):
    """Whatever a policy of one's own says, or its random numbers are, the wait is within its bounds or refused."""

    class Own(RetryPolicy):
        def delay(self, attempt: int, failure: CloudwareError, elapsed: float) -> Any:
            return answer

    failure = APIConnectionError("no")
    failure._passing = True
    policies = [Own()]
    if isinstance(number, float):
        policies.append(RetryPolicy(random=lambda: number))
    for policy in policies:
        try:
            delay = decide(policy, RetryBudget(), failure, attempt=1, elapsed=elapsed, timeout=timeout)
        except ConfigurationError:
            continue
        assert delay is None or 0 <= delay < timeout - elapsed


@given(status=st.integers(100, 999), raw=headers, body=bodies, is_whole=st.booleans())
def test_any_answer_to_a_send_is_a_receipt_or_an_error(status, raw, body, is_whole):
    """Nothing else comes of it, and only what says so is accepted."""
    result = read_receipt(Answer(status, raw, body, is_whole), SEND)
    assert isinstance(result, Receipt | CloudwareError)
    if isinstance(result, Receipt):
        assert 200 <= status < 300
        assert is_whole


@given(
    status=st.sampled_from([200, 201, 204]),
    body=st.fixed_dictionaries(
        {},
        optional={
            "status": st.just("success") | values,
            "other": values,
            "data": values
            | st.fixed_dictionaries(
                {},
                optional=dict.fromkeys(
                    ("id", "name", "description", "created_at", "updated_at", "status", "data", "extra"),
                    values | timestamps,
                ),
            ),
        },
    ),
)
@example(status=200, body={"status": "success", "data": {"created_at": "9999-12-31T23:59:60Z"}})
def test_what_is_accepted(status, body):
    """A success is accepted by the two rules and no other, whatever stands beside; nothing of it is lost."""
    try:
        raw = json.dumps(body, allow_nan=False).encode()
    except ValueError:
        return
    result = read_receipt(Answer(status, [], raw), SEND)
    accepted = body["status"] == "success" if "status" in body else isinstance(body.get("data"), dict)
    assert accepted == isinstance(result, Receipt)
    if not accepted:
        assert result.may_have_been_sent
        return
    kept = {"other": body["other"]} if "other" in body else {}
    assert kept.items() <= result.extra.items()
    fields = body["data"] if isinstance(body.get("data"), dict) else {}
    for name in ("name", "description"):
        told = getattr(result, name)
        assert fields.get(name) == (result.extra[name] if told is None and name in result.extra else told)


@given(status=st.integers(100, 999), raw=headers, body=bodies)
def test_any_answer_to_a_listing_is_a_page_or_an_error(status, raw, body):
    """Nothing else comes of it, and a read never may have been sent."""
    result = read_page(Answer(status, raw, body), READ, BASE, Place())
    assert isinstance(result, Listing | CloudwareError)
    if isinstance(result, CloudwareError):
        assert not result.may_have_been_sent


@given(data=st.lists(message_like | values, max_size=5), next_page=values)
def test_any_page_is_read_or_its_place_is_named(data, next_page):
    """What can be read is kept in its order, and what cannot is named by its place."""
    try:
        body = json.dumps({"data": data, "next_page": next_page}, allow_nan=False).encode()
    except ValueError:
        return
    result = read_page(Answer(200, [], body), READ, BASE, Place())
    assert isinstance(result, Listing)

    readable = []
    for item in data:
        with contextlib.suppress(Malformed):
            readable.append(read_message(item))
    assert readable == list(result.messages)
    if len(readable) < len(data):
        index = int(re.match(r"data\[(\d+)\]", result.error.place)[1])
        assert index == len([*takewhile_readable(data)])


def takewhile_readable(data):
    for item in data:
        try:
            yield read_message(item)
        except Malformed:
            return


hosts = st.sampled_from(["api.cloudware.chat", "API.cloudware.chat", "evil.example", "api.cloudware.chat.", ""])
links = st.builds(
    "{}{}{}{}{}{}".format,
    st.sampled_from(["https://", "HTTPS://", "http://", "//", "https:/", "https:\\\\", "https:///", "", "ftp://"]),
    st.sampled_from(["", "", "", "me@", "@", "evil.example@", "evil.example\\@", "api.cloudware.chat:443@"]),
    hosts,
    st.sampled_from(
        ["", "", ":443", ":0443", ":80", ":", ":0", ":99999", "@evil.example", "\\@evil.example", ".evil.example"]
    ),
    st.sampled_from(["", "/", "//", "/\\", "/v1/sms/messages", "//evil.example/", "/../", "/./a", "/a/..", "/v1//a"])
    | any_text,
    st.sampled_from(["", "?token=2", "?", "#", "?a#b", "#?", "?//evil.example", "?\n"]) | any_text,
)


@given(links | any_text.map(lambda rest: f"{BASE}{rest}") | any_text)
def test_a_link_leads_home_or_nowhere(link):
    """What is followed is, read by another library too, the base URL's origin, and stands in a request line as it is."""
    result = read_page(Answer(200, [], json.dumps({"data": [], "next_page": link}).encode()), READ, BASE, Place())
    assert isinstance(result, Listing)
    if link == "":
        assert result.next.is_end
        return
    if result.error is not None:
        assert isinstance(result.error, PaginationError)
        assert result.next == Place()
        return
    target = result.next.target(BASE)
    assert re.fullmatch(r"/(?!/)[!-~]*", target)
    for url in (httpx.URL(f"{BASE.origin}{target}"), httpx.URL(link)):
        assert ("https", "api.cloudware.chat", b"") == (url.scheme, url.host, url.userinfo)
        # of an upper-case scheme httpx does not know the default port
        assert url.port in (None, 443)
    assert read_cursor(result.next.cursor(), {}) == result.next


@given(values | message_like)
def test_any_value_is_a_message_or_malformed(value):
    """A webhook's body is one or the other."""
    try:
        read_message(value)
    except Malformed as malformed:
        assert malformed.problem


@given(st.binary(max_size=100))
def test_any_bytes_are_json_or_malformed(body):
    """Bytes are read or refused."""
    with contextlib.suppress(Malformed):
        read_json(body)


@given(
    coding=st.sampled_from([b"gzip", b"x-gzip", b"deflate"]),
    body=st.binary(max_size=300),
    cut=st.integers(0, 400),
    flipped=st.none() | st.tuples(st.integers(0, 400), st.integers(1, 255)),
    cap=st.integers(1, 400),
)
def test_any_compressed_body_is_read_or_nothing(coding, body, cut, flipped, cap):
    """A compressed body comes out as it went in and within the cap, or not at all."""
    raw = bytearray((zlib.compress if coding == b"deflate" else gzip.compress)(body)[:cut])
    whole = bytes(raw)
    if flipped is not None and flipped[0] < len(raw):
        raw[flipped[0]] ^= flipped[1]
    found = decode_body(Answer(200, [(b"Content-Encoding", coding)], bytes(raw)), cap)
    assert found is None or len(found) <= cap
    if whole == bytes(raw) and len(body) <= cap and cut == 400:
        assert body == found
    # gzip's header has fields that nothing depends on; the checksum guards the rest
    assert found in (None, body)


@given(
    headers
    | st.tuples(http_dates | st.binary(max_size=12) | st.from_regex(rb"[0-9]{1,40}", fullmatch=True), http_dates).map(
        lambda pair: [(b"Retry-After", pair[0]), (b"Date", pair[1])]
    )
)
def test_retry_after_is_a_number_of_seconds_or_nothing(raw):
    """It is never negative, always finite, and never raises."""
    found = read_retry_after(Answer(429, raw, b""))
    assert found is None or 0 <= found < math.inf
    assert error_from_status(Answer(429, raw, b""), SEND).retry_after == found


filters_like = st.dictionaries(st.sampled_from([*FILTERS, "from_", "limit", ""]), values | any_text, max_size=3)
fields_like = st.fixed_dictionaries(
    {},
    optional={
        "v": st.just(1) | values,
        "filters": filters_like | values,
        "query": st.sampled_from(["token=2", "a b", "a#b", ""]) | values | any_text,
        "path": st.sampled_from(["/", "/a", "//evil.example/", "/a?b", "@evil.example/", "/../", ":444/"])
        | values
        | any_text,
        "is_end": values,
        "other": values,
    },
)
cursors = st.one_of(
    any_text,
    st.text("ABCDEFabcdef0123456789-_+/=", max_size=60),
    st.binary().map(lambda raw: base64.urlsafe_b64encode(raw).decode().rstrip("=")),
    (fields_like | fields_like.map(lambda fields: fields | {"v": 1})).map(
        lambda fields: base64.urlsafe_b64encode(json.dumps(fields).encode()).decode().rstrip("=")
    ),
)


@given(cursors)
def test_any_cursor_is_ours_or_refused(cursor):
    """A string that is none of ours is refused with an error of ours; what is taken leads home."""
    try:
        place = read_cursor(cursor, {})
    except PaginationError as error:
        assert cursor == error.cursor
        return
    target = place.target(BASE)
    assert re.fullmatch(r"/(?!/)[!-~]*", target)
    assert "api.cloudware.chat" == httpx.URL(f"{BASE.origin}{target}").host
    assert read_cursor(place.cursor(), {}) == place


texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=50)


@given(
    filters=st.dictionaries(st.sampled_from(["device_id", "phone", "to", "from", "message"]), texts),
    query=st.none() | st.from_regex(r"[a-z0-9=&%+._~-]{0,40}", fullmatch=True),
    is_end=st.booleans(),
)
def test_a_cursor_comes_back_as_it_was(filters, query, is_end):
    """A place is the same after it was written down and read again, and so is what it asks for."""
    place = Place(read_filters(**filters), query, None, is_end)
    again = read_cursor(place.cursor(), {})
    assert place == again
    assert place.target(BASE) == again.target(BASE)


@given(st.dictionaries(st.sampled_from(FILTERS), st.none() | any_text))
def test_any_filter_goes_out_as_it_is_or_not_at_all(filters):
    """A filter comes out of the URL as it went in, or it is refused with an error about the argument."""
    try:
        given_filters = read_filters(**filters)
    except InvalidArgumentError:
        assert not all(map(is_carried, filter(None, filters.values())))
        return
    path, _, query = messages_request(BASE, TOKEN, Place(given_filters)).target.partition("?")
    assert "/v1/sms/messages" == path
    expected = [(name, value) for name, value in filters.items() if value is not None]
    assert expected == parse_qsl(query, keep_blank_values=True, strict_parsing=bool(query))


@given(any_text, st.none() | any_text)
def test_any_text_goes_out_as_it_is_or_not_at_all(message, sender):
    """A text is in the body as it was given, or it is refused with an error about the argument."""
    is_good = message != "" != sender and is_carried(message) and is_carried(sender or "")
    try:
        request = send_request(BASE, TOKEN, "/sms/send", "2348012345678", message, sender)
    except InvalidArgumentError:
        assert not is_good
        return
    assert is_good
    expected = {"to": "2348012345678", "message": message} | ({} if sender is None else {"from": sender})
    assert expected == json.loads(request.body)


@given(any_text | st.text("0123456789 -.()[]+", max_size=25) | values)
def test_any_number_is_digits_or_refused(to):
    """What is made of a number is its own digits, in their order, and 5 to 15 of them."""
    try:
        number = read_number(to)
    except InvalidArgumentError:
        return
    assert re.fullmatch(r"[0-9]{5,15}", number)
    assert number == re.sub(r"[^0-9]", "", to)


@given(st.lists(st.text(max_size=12).filter(lambda text: not set(text) & set(HIDDEN)), max_size=4), st.data())
def test_nothing_private_is_left(private, data):
    """However private strings are strung together, none of them is there after scrubbing."""
    pieces = st.sampled_from(private or [""]) | st.text('ab {}"\\/', max_size=5)
    text = "".join(data.draw(st.lists(pieces, max_size=8)))
    for whole in (text, json.dumps({"error": text})):
        shown = scrub(whole, tuple(private))
        assert not [value for value in private if value and value in shown]


@given(kind=any_text, sender=any_text, to=any_text, message=any_text)
def test_any_message_can_be_shown(kind, sender, to, message):
    """A message is shown on one line that any log can carry, whatever the service put into it."""
    assert repr(Message(kind, sender, to, message, kind)).isprintable()
