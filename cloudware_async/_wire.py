"""The API in one file: arguments become a request, an answer becomes a model or an error.

Rule 1: a wrong argument is refused here, before anything is sent.
Rule 2: a status decides first. For a send: 2xx with a readable body is accepted; 425, 429 and 503 with
        `Retry-After` are refusals that pass; 408, 409, 1xx, 3xx and 5xx leave it unknown; other 4xx reject it.
Rule 3: a receipt is read tolerantly, for the text is out; a listed message is read strictly.
Rule 4: the token goes to the base URL's origin and nowhere else; what the service links to is checked.
Rule 5: nothing that the service says raises anything but this package's errors, however large or deep it is.

What the service documents is on the vendor's page; each reading of what it does not is named where it is made.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
import zlib
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from enum import Enum
from ipaddress import ip_address
from itertools import accumulate
from typing import TYPE_CHECKING, Any, NoReturn, cast
from urllib.parse import quote, urlencode, urlsplit

import attrs
import cattrs
from cattrs.gen import make_dict_structure_fn, override

from cloudware_async._errors import (
    APIConnectionError,
    APIResponseError,
    APIStatusError,
    APITimeoutError,
    AuthenticationError,
    BadRequestError,
    CloudwareError,
    ConfigurationError,
    ConflictError,
    InvalidArgumentError,
    NotFoundError,
    PaginationError,
    PermissionDeniedError,
    RateLimitError,
    ServerError,
    UnprocessableEntityError,
)
from cloudware_async._models import Message, Receipt
from cloudware_async._privacy import Secret, mask_text, scrub

if TYPE_CHECKING:
    from collections.abc import Callable

VENDOR_URL = "https://api.cloudware.chat/v1"
MEBIBYTE = 1024 * 1024

# ---------------------------------------------------------------- the client's settings

_TOKEN = re.compile(r"[!-~]+")
# what may stand in a URL as it goes over the wire (RFC 3986), no longer than any server takes it, and no backslash,
# which browsers take for a slash
_URL = re.compile(r"[!-\[\]-~]{1,30000}")
# a host or an IPv6 address in brackets, and perhaps a port: no user info
_AUTHORITY = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(:[0-9]+)?")
_DOTTED = re.compile(r"[0-9.]+")
_DEFAULT_PORTS = {"http": 80, "https": 443}


@attrs.frozen
class Origin:
    """Scheme, host and port: where the token may go."""

    scheme: str
    host: str
    port: int

    @property
    def authority(self) -> str:
        """Host and port as the `Host` header has them."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == _DEFAULT_PORTS[self.scheme] else f"{host}:{self.port}"

    def __str__(self) -> str:
        return f"{self.scheme}://{self.authority}"


@attrs.frozen
class Base:
    """A base URL: its origin and the path before `/sms/…`, without a slash at its end."""

    origin: Origin
    path: str

    def __str__(self) -> str:
        return f"{self.origin}{self.path}"


def read_token(token: object) -> Secret:
    """Check an access token: visible ASCII characters (RFC 6750, 2.1).

    Raises:
        ConfigurationError: it is missing, or no such string.
    """
    if token is None or token == "":
        raise ConfigurationError("no access token: pass access_token=… or set CLOUDWARE_ACCESS_TOKEN")
    if not isinstance(token, str) or not _TOKEN.fullmatch(token):
        raise ConfigurationError(
            "the access token has a space, a line end, a control character or a letter outside ASCII in it: "
            "copy it again, without quotes or a newline"
        )
    return Secret(token)


def read_base_url(url: object) -> Base:
    """Check a base URL: `http` or `https`, a host, perhaps a port and a path.

    Raises:
        ConfigurationError: it is not of that form.
    """
    origin, rest = _split(url)
    if origin is None:
        raise ConfigurationError(
            "base_url must be like 'https://api.cloudware.chat/v1': http or https, a host, no user name, "
            "no spaces and no letters outside ASCII"
        )
    if "?" in rest or "#" in rest:
        raise ConfigurationError("base_url must have no query ('?…') and no fragment ('#…')")
    if rest.startswith("//") or {".", ".."} & set(rest.split("/")):
        raise ConfigurationError("base_url must have a path that stays as it is: no '.', no '..' and no '//' in front")
    return Base(origin, rest.rstrip("/"))


def _split(url: object) -> tuple[Origin | None, str]:
    """Take an absolute URL apart into its origin and all that follows; the origin is None if it is no plain one."""
    if not isinstance(url, str) or not _URL.fullmatch(url):
        return None, ""
    try:
        parts = urlsplit(url)
        port = parts.port
        host = parts.hostname
    except ValueError:
        return None, ""
    # brackets, dots and digits are checked here, for no request could be made to what is wrong about them
    if host is None or not _AUTHORITY.fullmatch(parts.netloc) or not _is_host(host):
        return None, ""
    scheme = parts.scheme
    if scheme not in _DEFAULT_PORTS or port == 0:
        return None, ""
    rest = url[len(scheme) + len("://") + len(parts.netloc) :]
    return Origin(scheme, host, port if port is not None else _DEFAULT_PORTS[scheme]), rest


def _is_host(host: str) -> bool:
    try:
        if ":" in host:
            return ip_address(host).version == 6
        if _DOTTED.fullmatch(host):
            ip_address(host)
        labels = host.removesuffix(".").split(".")
        # what only looks encoded (RFC 5890) fails when it is decoded, or is empty then
        is_decodable = all(label[4:].encode().decode("punycode") for label in labels if label.startswith("xn--"))
        # RFC 1035, 2.3.4
        return is_decodable and all(1 <= len(label) <= 63 for label in labels)
    except ValueError:
        return False


# ---------------------------------------------------------------- requests


@attrs.frozen
class Request:
    """All that a backend needs to know of a request.

    Attributes:
        target: path and query, as they stand in the request line.
        token: goes into the `Authorization` header.
        body: the JSON of a send, or None for a read.
        max_body: the most bytes of the answer's body that are read, raw and decoded.
        private: what is scrubbed from what the service says back.
    """

    origin: Origin
    target: str = attrs.field(repr=mask_text)
    token: Secret
    body: bytes | None = attrs.field(default=None, repr=False)
    max_body: int = 32 * MEBIBYTE
    private: tuple[str, ...] = attrs.field(default=(), repr=False)

    @property
    def is_send(self) -> bool:
        return self.body is not None

    @property
    def method(self) -> str:
        return "GET" if self.body is None else "POST"


_SEPARATORS = str.maketrans("", "", " -.()[]")
_NUMBER = re.compile(r"\+?([0-9]{5,15})")
_encode_json = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode


def read_number(to: object) -> str:
    """Reduce a recipient's number to what the API takes: digits with the country code, no `+` (vendor page).

    Raises:
        InvalidArgumentError: without `+`, spaces, dashes, dots and brackets it is not 5 to 15 ASCII digits.
    """
    match = _NUMBER.fullmatch(to.translate(_SEPARATORS)) if isinstance(to, str) else None
    if match is None:
        raise InvalidArgumentError(
            "to must be a phone number with its country code, 5 to 15 digits: '2348012345678' or '+234 801 234 5678'"
        )
    return match[1]


def _read_text(name: str, value: object) -> str:
    if not isinstance(value, str) or not value:
        raise InvalidArgumentError(f"{name} must be a string that is not empty")
    return value


def _encode(name: str, text: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError:
        pass
    raise InvalidArgumentError(
        f"{name} holds half of a surrogate pair, which no text can carry: it was cut or decoded wrongly"
    )


def send_request(base: Base, token: Secret, path: str, to: object, message: object, from_: object) -> Request:
    """Turn the arguments of a send into a request (vendor page, "Send a message" and "Queue a message").

    Raises:
        InvalidArgumentError: `to` is no number, `message` is empty, or one of them is no string that UTF-8 can carry.
    """
    number = read_number(to)
    fields = {"to": number, "message": _read_text("message", message)}
    if from_ is not None:
        fields["from"] = _read_text("from_", from_)
    body = _encode("message or from_", _encode_json(fields))
    # the number as it was typed is as private as its digits
    private = (token.reveal(), *fields.values(), cast("str", to))
    return Request(base.origin, f"{base.path}{path}", token, body, MEBIBYTE, private)


# ---------------------------------------------------------------- answers


@attrs.frozen
class Answer:
    """A whole answer: a status, the headers as they came, and the body, raw.

    Attributes:
        is_whole: false if the body was longer than the request's `max_body`; `body` is then only its beginning.
    """

    status: int
    headers: list[tuple[bytes, bytes]] = attrs.field(repr=False)
    body: bytes = attrs.field(repr=False)
    is_whole: bool = True

    def header(self, name: bytes) -> bytes | None:
        """Give the value of a header that stands there exactly once."""
        values = [value for key, value in self.headers if key.lower() == name]
        return values[0].strip(b" \t") if len(values) == 1 else None


class FailureKind(Enum):
    """How a request can end without an answer."""

    CONNECT = "could not connect"
    CERTIFICATE = "the certificate is not trusted"
    CONNECT_TIMEOUT = "could not connect in time"
    NO_CONNECTION = "no connection was free in time"
    TIMEOUT = "the time ran out"
    BROKEN = "the connection broke"
    STRAY = "an answer that was none to this request"


@attrs.frozen
class Failure:
    """A request that ended without an answer.

    Attributes:
        written: false only if it is certain that no byte of the request was written.
        reason: the name of the exception at its root, for the error's text.
    """

    kind: FailureKind
    written: bool
    reason: str = ""


_UNKNOWN = (
    "The text may have gone out. Do not resend it blindly: look for it in the listing or ask the recipient "
    "(the page on errors says more)."
)
_FAILURE_TEXTS = {
    FailureKind.CONNECT: "Could not connect to the service{}: check the network, the proxy and base_url.",
    FailureKind.CERTIFICATE: "The service's TLS certificate is not trusted{}: check base_url and SSL_CERT_FILE.",
    FailureKind.CONNECT_TIMEOUT: "Could not connect to the service within connect_timeout{}.",
    FailureKind.NO_CONNECTION: "No connection was free before the timeout{}: raise max_connections.",
    FailureKind.TIMEOUT: "No whole answer came within the timeout{}.",
    FailureKind.BROKEN: "The connection broke before a whole answer came{}.",
    FailureKind.STRAY: "The connection held an answer that belongs to no request of ours{}.",
}
NEVER_WRITTEN = frozenset(
    {FailureKind.CONNECT, FailureKind.CERTIFICATE, FailureKind.CONNECT_TIMEOUT, FailureKind.NO_CONNECTION}
)
_TIMEOUTS = frozenset({FailureKind.CONNECT_TIMEOUT, FailureKind.NO_CONNECTION, FailureKind.TIMEOUT})


def error_from_failure(failure: Failure, request: Request) -> APIConnectionError:
    """Say what a request without an answer means for the text; the kind of the failure decides first."""
    unknown = request.is_send and failure.written and failure.kind not in NEVER_WRITTEN
    text = _FAILURE_TEXTS[failure.kind].format(f" ({failure.reason})" if failure.reason else "")
    if request.is_send:
        text = f"{text} {_UNKNOWN if unknown else 'This request sent nothing.'}"
    error_class = APITimeoutError if failure.kind in _TIMEOUTS else APIConnectionError
    error = error_class(text, may_have_been_sent=unknown)
    error._passing = failure.kind is not FailureKind.CERTIFICATE  # noqa: SLF001 (the tree's own)
    return error


_STATUS_ERRORS: dict[int, tuple[type[APIStatusError], str]] = {
    400: (BadRequestError, "The service did not understand the request"),
    401: (
        AuthenticationError,
        "The service does not know the access token: check CLOUDWARE_ACCESS_TOKEN or access_token=…",
    ),
    403: (PermissionDeniedError, "The access token may not do this"),
    404: (NotFoundError, "There is nothing at this address: check base_url"),
    409: (ConflictError, "The service speaks of a conflict"),
    422: (UnprocessableEntityError, "The service does not accept these values"),
    429: (RateLimitError, "Too many requests"),
}
_KEPT_HEADERS = (b"content-type", b"date", b"retry-after", b"x-request-id")


def error_from_status(answer: Answer, request: Request) -> APIStatusError:
    """Say of an answer that is no success what it means for the text (rule 2)."""
    status = answer.status
    retry_after = read_retry_after(answer)
    refused = status in (425, 429) or (status == 503 and retry_after is not None)
    rejected = 400 <= status < 500 and status not in (408, 409)
    unknown = request.is_send and not refused and not rejected
    if status in _STATUS_ERRORS:
        error_class, text = _STATUS_ERRORS[status]
    elif 500 <= status < 600:
        error_class, text = ServerError, "The service failed"
    elif 300 <= status < 400:
        error_class, text = (
            APIStatusError,
            "The service answered with a redirect, which is not followed: check base_url",
        )
    else:
        error_class, text = APIStatusError, "The service answered with no success"
    text = f"{text} (HTTP {status})."
    if retry_after is not None:
        text = f"{text} It asks to wait {retry_after:.0f} seconds."
    if request.is_send:
        text = f"{text} {_UNKNOWN if unknown else 'This request sent nothing.'}"
    body = decode_body(answer, request.max_body)
    error = error_class(
        text,
        may_have_been_sent=unknown,
        status_code=status,
        body=None if body is None else scrub(body.decode(errors="replace"), request.private),
        retry_after=retry_after,
        headers={
            name.decode(): scrub(value.decode(errors="replace"), request.private)
            for name in _KEPT_HEADERS
            if (value := answer.header(name)) is not None
        },
    )
    error._passing = refused or status == 408 or 500 <= status < 600  # noqa: SLF001 (the tree's own)
    return error


_RETRY_AFTER_SECONDS = re.compile(rb"[0-9]+")
# RFC 9110, 5.6.7: the form to send and the two obsolete ones
_HTTP_DATE = re.compile(
    rb"[A-Z][a-z]{2}, [0-9]{2} [A-Z][a-z]{2} [0-9]{4} [0-9]{2}:[0-9]{2}:[0-9]{2} GMT"
    rb"|[A-Z][a-z]{5,8}, [0-9]{2}-[A-Z][a-z]{2}-[0-9]{2} [0-9]{2}:[0-9]{2}:[0-9]{2} GMT"
    rb"|[A-Z][a-z]{2} [A-Z][a-z]{2} [ 0-9][0-9] [0-9]{2}:[0-9]{2}:[0-9]{2} [0-9]{4}"
)


def read_retry_after(answer: Answer) -> float | None:
    """Read `Retry-After` (RFC 9110, 10.2.3): ASCII digits, or a date measured against the answer's own `Date`.

    Anything else is None: `float()` would take `nan`, `1_0` and `1e3`.
    """
    value = answer.header(b"retry-after")
    if value is None:
        return None
    if _RETRY_AFTER_SECONDS.fullmatch(value):
        # more digits than a year has seconds are only "very long"; int() refuses thousands of them
        return float(min(int(value.lstrip(b"0")[:12] or b"0"), 10**10))
    until = _read_http_date(value)
    now = _read_http_date(answer.header(b"date"))
    if until is None or now is None:
        return None
    return max(0.0, (until - now).total_seconds())


def _read_http_date(value: bytes | None) -> datetime | None:
    if value is None or not _HTTP_DATE.fullmatch(value):
        return None
    try:
        moment = parsedate_to_datetime(value.decode("ascii"))
    except (ValueError, TypeError, OverflowError):
        return None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def decode_body(answer: Answer, max_body: int) -> bytes | None:
    """Give an answer's body as it was before its content coding, or None if it cannot be had within the cap."""
    if not answer.is_whole:
        return None
    codings = [value.strip().lower() for key, value in answer.headers if key.lower() == b"content-encoding"]
    if not codings or codings == [b"identity"]:
        return answer.body
    if codings not in ([b"gzip"], [b"x-gzip"], [b"deflate"]):
        return None
    decompressor = zlib.decompressobj(zlib.MAX_WBITS if codings == [b"deflate"] else zlib.MAX_WBITS | 16)
    try:
        body = decompressor.decompress(answer.body, max_body)
    except zlib.error:
        return None
    return body if decompressor.eof and not decompressor.unused_data else None


# ---------------------------------------------------------------- bodies


class Malformed(ValueError):  # noqa: N818 (never leaves the package)
    """A value that cannot be read, with its place (`to`, or empty for the whole)."""

    def __init__(self, place: str, problem: str) -> None:
        super().__init__(place, problem)
        self.place = place
        self.problem = problem


def _refuse_constant(name: str) -> NoReturn:
    # json takes NaN and Infinity, RFC 8259 does not
    raise ValueError(name)


_json_decoder = json.JSONDecoder(parse_constant=_refuse_constant)


_MOST_LEVELS = 500
# a page of the largest size holds some hundred thousand messages; of more values it would take seconds to read
_MOST_VALUES = 8_000_000
# one that does not end is one too: else each quote in it would be looked at to the end of the body
_STRING = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"?', re.DOTALL)
_NO_BRACKETS = bytes({*range(256)} - {*b"[]{}"})
_STEPS = dict(zip(b"[{]}", (1, 1, -1, -1), strict=True))


def _is_deep(body: bytes) -> bool:
    levels = accumulate(map(_STEPS.__getitem__, body.translate(None, _NO_BRACKETS)))
    return any(map(_MOST_LEVELS.__lt__, levels))


def _is_too_deep(body: bytes) -> bool:
    """Say whether JSON has more than 500 levels; what hides them is left to Python's own bound.

    That bound depends on the stack of whoever asks, and at it whatever is finalized just then fails.
    """
    # brackets within strings are looked at twice, for a page has none as a rule
    has_many = body.count(b"[") + body.count(b"{") > _MOST_LEVELS
    return has_many and _is_deep(body) and _is_deep(_STRING.sub(b"", body))


def read_json(body: bytes) -> Any:
    """Read JSON (RFC 8259: UTF-8, a byte order mark ignored, no NaN).

    Raises:
        Malformed: it is none, has more than 500 levels, may have more than eight million values, or holds a number of
            thousands of digits.
    """
    if len(body) > _MOST_VALUES and sum(map(body.count, (b",", b"[", b"{"))) > _MOST_VALUES:
        raise Malformed("", "holds too many values")
    if _is_too_deep(body):
        raise Malformed("", "is nested too deeply")
    problem = "is not JSON"
    try:
        return _json_decoder.decode((body[3:] if body.startswith(b"\xef\xbb\xbf") else body).decode())
    except UnicodeDecodeError:
        problem = "is not UTF-8"
    except RecursionError:
        problem = "is nested too deeply"
    except ValueError:
        pass
    raise Malformed("", problem)


# RFC 3339, 5.6; without an offset it is read as UTC (our ruling)
_TIMESTAMP = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt ]([01][0-9]|2[0-3]):[0-9]{2}:([0-9]{2})(\.[0-9]+)?([Zz]|[+-][0-9]{2}:[0-9]{2})?"
)


def _structure_string(value: Any, _: Any) -> str:
    # cattrs would take str(value), which makes 'None' of None
    if type(value) is not str:
        raise TypeError("is not a string")
    return value


def _structure_timestamp(value: Any, _: Any) -> datetime | None:
    if value is None:
        return None
    match = _TIMESTAMP.fullmatch(value) if type(value) is str else None
    if match is None:
        raise TypeError("is not an RFC 3339 timestamp")
    # RFC 3339 knows leap seconds, datetime does not
    is_leap = match[2] == "60"
    text = value.upper() if not is_leap else f"{value[:17]}59{value[19:]}".upper()
    moment = datetime.fromisoformat(text)
    if is_leap:
        moment += timedelta(seconds=1)
    return moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)


def _structure_id(value: Any, _: Any) -> str | None:
    if value is None or type(value) is str:
        return value
    if type(value) is int:
        return str(value)
    raise TypeError("is not a string or a whole number")


_MESSAGE_KEYS = frozenset({"type", "from", "to", "message", "message_id", "created_at", "sent_at"})
_converter = cattrs.Converter(detailed_validation=True)
_converter.register_structure_hook(str, _structure_string)
_structure_fields = make_dict_structure_fn(
    Message,
    _converter,
    from_=override(rename="from"),
    message_id=override(struct_hook=_structure_id),
    created_at=override(struct_hook=_structure_timestamp),
    sent_at=override(struct_hook=_structure_timestamp),
    extra=override(omit=True),
)


@_converter.register_structure_hook
def _structure_message(value: Any, _: Any) -> Message:
    if type(value) is not dict:
        raise TypeError("is not an object")
    message = _structure_fields(value, Message)
    message.extra.update((key, item) for key, item in value.items() if key not in _MESSAGE_KEYS)
    return message


_read_iso = datetime.fromisoformat


def _read_documented(value: Any) -> Message | None:
    """Read a message that has the documented form to the letter; None for any other, which the converter reads.

    This is the fast pass: it does at half the cost what the converter would.
    """
    # first, so that megabytes of what is no message at all are passed over quickly
    if type(value) is not dict or len(value) != 7:
        return None
    try:
        kind, sender, to, text = value["type"], value["from"], value["to"], value["message"]
        name, created, sent = value["message_id"], value["created_at"], value["sent_at"]
        if (
            type(kind) is type(sender) is type(to) is type(text) is type(name) is str
            # every third character from the fifth on: `2020-01-01T00:00:00Z`
            and created[4::3] == sent[4::3] == "--T::Z"
            and len(created) == len(sent) == 20
            # which some Pythons read as the next day's midnight
            and created[11:13] != "24" != sent[11:13]
        ):
            return Message(kind, sender, to, text, name, _read_iso(created), _read_iso(sent))
    except (KeyError, TypeError, ValueError):
        pass
    return None


def read_message(value: Any) -> Message:
    """Read one message as a listing or a webhook tells it, strictly (rule 3).

    Raises:
        Malformed: it is no such message; `place` is the wire's name of the bad field.
    """
    message = _read_documented(value)
    if message is not None:
        return message
    try:
        return _converter.structure(value, Message)
    except Exception as error:  # noqa: BLE001 (a group of whatever the fields raised)
        place, problem = _find_place(error)
    raise Malformed(place, problem)


def _find_place(error: Exception) -> tuple[str, str]:
    if not isinstance(error, cattrs.ClassValidationError):
        return "", str(error)
    (cause, note), *_ = error.group_exceptions()[0]
    name = "from" if note.name == "from_" else note.name
    return name, "is missing" if isinstance(cause, KeyError) else _describe(cause)


def _describe(cause: Exception) -> str:
    return str(cause) if type(cause) is TypeError else "is not a moment in time"


def read_receipt(answer: Answer, request: Request) -> Receipt | CloudwareError:
    """Read the answer to a send (rules 2 and 3)."""
    if not 200 <= answer.status < 300:
        return error_from_status(answer, request)
    try:
        value = read_json(_decoded(answer, request))
        return _structure_receipt(value)
    except Malformed as malformed:
        problem = malformed.problem
    return APIResponseError(
        f"The service answered with success (HTTP {answer.status}), but its answer {problem}. {_UNKNOWN}",
        may_have_been_sent=True,
    )


def _decoded(answer: Answer, request: Request) -> bytes:
    body = decode_body(answer, request.max_body)
    if body is None:
        raise Malformed("", "is too large, or compressed in a way that was not asked for")
    return body


def _read_documented_receipt(value: Any) -> Receipt | None:
    """Read a receipt that has the documented form to the letter; None for any other (as `_read_documented` does)."""
    try:
        data = value["data"]
        name, title, description = data["id"], data["name"], data["description"]
        created, updated = data["created_at"], data["updated_at"]
        if (
            len(value) == 2
            and len(data) == 5
            and value["status"] == "success"
            and type(name) is type(title) is type(description) is str
            and created[4::3] == updated[4::3] == "--T::Z"
            and len(created) == len(updated) == 20
            and created[11:13] != "24" != updated[11:13]
        ):
            return Receipt(name, "success", title, description, _read_iso(created), _read_iso(updated))
    except (KeyError, TypeError, ValueError):
        pass
    return None


def _structure_receipt(value: Any) -> Receipt:
    """Take for accepted what `status` calls a success, or what has no `status` and an object under `data`."""
    receipt = _read_documented_receipt(value)
    if receipt is not None:
        return receipt
    data = value.get("data") if isinstance(value, dict) else None
    is_accepted = isinstance(value, dict) and (
        value["status"] == "success" if "status" in value else isinstance(data, dict)
    )
    if not is_accepted:
        raise Malformed("", "does not say that the text was accepted")
    extra = {key: item for key, item in value.items() if key != "status"}
    known: dict[str, Any] = {}
    if isinstance(data, dict):
        del extra["data"]
        for name, item in data.items():
            structure = _RECEIPT_FIELDS.get(name)
            if structure is not None:
                try:
                    known[name] = structure(item, None)
                    continue
                except (TypeError, ValueError, OverflowError):
                    pass  # malformed: it stays in extra
            extra[name] = item
    return Receipt(status=value.get("status"), extra=extra, **known)


def _structure_optional_string(value: Any, _: Any) -> str | None:
    return None if value is None else _structure_string(value, _)


_RECEIPT_FIELDS: dict[str, Callable[[Any, Any], Any]] = {
    "id": _structure_id,
    "name": _structure_optional_string,
    "description": _structure_optional_string,
    "created_at": _structure_timestamp,
    "updated_at": _structure_timestamp,
}


# ---------------------------------------------------------------- listings

_DOTS = re.compile(r"/\.{1,2}(/|$)")
_MAX_QUERY = 30_000
FILTERS = ("device_id", "phone", "to", "from", "message")
LISTING = "/sms/messages"


@attrs.frozen
class Place:
    """A place in a walk: what a cursor says. It keeps the page's token and the filters, not the origin.

    Attributes:
        filters: what the walk lists, by the wire's names.
        query: the query of the page's URL, or None for the first page, which the filters make.
        path: the path of the page's URL where it is not the listing's own, or None.
        is_end: whether the walk is over.
    """

    filters: dict[str, str] = attrs.field(factory=dict, repr=False)
    query: str | None = attrs.field(default=None, repr=mask_text)
    path: str | None = attrs.field(default=None, repr=mask_text)
    is_end: bool = False

    @property
    def full_query(self) -> str:
        """The query of the page's URL; filters are sent as given, only percent-encoded (`+` is `%2B`)."""
        return urlencode(self.filters, quote_via=quote, safe="") if self.query is None else self.query

    @property
    def mark(self) -> int:
        """A number by which a walk knows the page again."""
        return hash((self.path, self.full_query))

    def target(self, base: Base) -> str:
        """Give path and query of the page's URL."""
        query = self.full_query
        path = f"{base.path}{LISTING}" if self.path is None else self.path
        return f"{path}?{query}" if query else path

    def cursor(self) -> str:
        """Write this place as a cursor."""
        fields: dict[str, Any] = {
            "v": 1,
            **attrs.asdict(self, filter=lambda _, value: bool(value) or value == ""),
        }
        return base64.urlsafe_b64encode(_encode_json(fields).encode()).decode().rstrip("=")


def read_filters(**filters: object) -> dict[str, str]:
    """Check the filters of a listing, by the wire's names; None is left out.

    Raises:
        InvalidArgumentError: one is no string that UTF-8 can carry, or together they are longer than a URL may be.
    """
    given: dict[str, str] = {}
    for name, value in filters.items():
        if value is None:
            continue
        shown = "from_" if name == "from" else name
        if not isinstance(value, str):
            raise InvalidArgumentError(f"{shown} must be a string")
        _encode(shown, value)
        given[name] = value
    if len(Place(given).full_query) > _MAX_QUERY:
        raise InvalidArgumentError("the filters are too long for a URL")
    return given


def read_limit(limit: object) -> int | None:
    """Check the limit of a listing: a whole number from 0, or None.

    Raises:
        InvalidArgumentError: it is neither.
    """
    if limit is None:
        return None
    if isinstance(limit, bool) or not isinstance(limit, int) or limit < 0:
        raise InvalidArgumentError("limit must be a whole number of messages, or None for all")
    return limit


def read_cursor(cursor: object, filters: dict[str, str]) -> Place:
    """Read a cursor that `Place.cursor` wrote; filters given beside it must be its own.

    Raises:
        InvalidArgumentError: it is no string, or the filters are others than the cursor's.
        PaginationError: it is no cursor of ours.
    """
    if cursor is None:
        return Place(filters)
    if not isinstance(cursor, str):
        raise InvalidArgumentError("cursor must be a string from .cursor, or None")
    place = _parse_cursor(cursor)
    if place is None:
        error = PaginationError(
            "This is no cursor of this package: pass what .cursor gave, unchanged. Nothing was asked."
        )
        error.cursor = cursor
        raise error
    if filters and filters != place.filters:
        raise InvalidArgumentError("the cursor belongs to a listing with other filters: leave the filters out")
    return place


def _parse_cursor(cursor: str) -> Place | None:
    try:
        raw = base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True)
        fields = read_json(raw)
    except (Malformed, binascii.Error, ValueError):
        return None
    if (
        type(fields) is not dict
        or fields.pop("v", None) != 1
        or not fields.keys() <= {"filters", "query", "path", "is_end"}
    ):
        return None
    filters = fields.get("filters", {})
    query, path = fields.get("query"), fields.get("path")
    if type(filters) is not dict or type(fields.get("is_end", False)) is not bool:
        return None
    if not all(key in FILTERS and type(value) is str for key, value in filters.items()):
        return None
    if query is not None and (
        type(query) is not str or not re.fullmatch(r"[!-\[\]-~]{0,30000}", query) or "#" in query
    ):
        return None
    # a path that began with two slashes would name a host
    if path is not None and (
        type(path) is not str or not re.fullmatch(r"/(?!/)[!-\[\]-~]{0,30000}", path) or {"?", "#"} & {*path}
    ):
        return None
    try:
        read_filters(**filters)
    except InvalidArgumentError:
        return None
    return Place(**fields)


def messages_request(base: Base, token: Secret, place: Place) -> Request:
    """Turn a place in a walk into a request (vendor page, "Get a list of received messages")."""
    values = place.filters.values()
    # a number is as private without its `+`
    private = (token.reveal(), *values, *(value.removeprefix("+") for value in values))
    return Request(base.origin, place.target(base), token, private=private)


@attrs.frozen
class Listing:
    """A page as it was read, and what comes after it.

    Attributes:
        next: the place of the next page; its `is_end` is true if there is none.
        error: what is wrong with the page (a malformed message) or with its link, to be raised after its messages.
        sound: how many of the messages stand before what is wrong.
    """

    messages: tuple[Message, ...]
    query: str | None = attrs.field(repr=mask_text)
    next: Place
    error: APIResponseError | PaginationError | None = None
    sound: int = 0


def read_page(answer: Answer, request: Request, base: Base, place: Place) -> Listing | CloudwareError:
    """Read a page of a listing, strictly (rules 2 to 4); `place` is its own."""
    if not 200 <= answer.status < 300:
        return error_from_status(answer, request)
    try:
        value = read_json(_decoded(answer, request))
        if type(value) is not dict:
            raise Malformed("", "is not an object")
        data = value.get("data")
        if type(data) is not list:
            raise Malformed("data", "is missing" if data is None else "is not a list")
    except Malformed as malformed:
        return _page_error(malformed.place, malformed.problem)
    error: APIResponseError | PaginationError | None
    messages, error, sound = _read_messages(data)
    query = value.get("query")
    following = _follow(base, place, value.get("next_page"))
    if following is None:
        error = error or PaginationError(
            "The page's next_page is not an absolute URL on the origin of base_url, so it is not followed: "
            "the access token goes to one origin only. Behind a relay, its links must name the relay."
        )
        following = place
    return Listing(messages, query if type(query) is str else None, following, error, sound)


# after so many the rest of a page is read in the fast pass only: to find what is wrong takes longer than a call may
_MOST_MALFORMED = 100


def _read_messages(data: list[Any]) -> tuple[tuple[Message, ...], APIResponseError | None, int]:
    """Read what can be read of a page, and say where the first message is that cannot, and how many come before it."""
    messages = tuple(map(_read_documented, data))
    if all(messages):
        return cast("tuple[Message, ...]", messages), None, len(messages)
    readable: list[Message] = []
    error, count, sound = None, 0, len(data)
    for index, item in enumerate(data):
        if count == _MOST_MALFORMED:
            readable.extend(filter(None, messages[index:]))
            break
        try:
            readable.append(messages[index] or read_message(item))
        except Malformed as malformed:
            count += 1
            if error is None:
                place = f"data[{index}].{malformed.place}" if malformed.place else f"data[{index}]"
                error, sound = _page_error(place, malformed.problem), index
    return tuple(readable), error, sound


def _page_error(place: str, problem: str) -> APIResponseError:
    subject = f"{place} {problem}" if place else f"it {problem}"
    return APIResponseError(f"The service's answer cannot be read: {subject}.", place=place or None)


def _follow(base: Base, place: Place, next_page: object) -> Place | None:
    """Give the place that `next_page` names, or None if it may not be followed. Absent, null and empty end the walk."""
    if next_page is None or next_page == "":
        return Place(place.filters, is_end=True)
    origin, rest = _split(next_page)
    if origin != base.origin:
        return None
    path, _, query = rest.partition("#")[0].partition("?")
    # what would name a host, and what HTTP libraries rewrite on the way
    if path.startswith("//") or _DOTS.search(path):
        return None
    return Place(place.filters, query, None if path == f"{base.path}{LISTING}" else path or "/")
