"""Who may post, and what a request must look like. Pure.

Rule 1: the order is: the secret (401), the method (405), the length (413), the content type (415), the body (400).
        Whoever lacks the secret learns nothing else, not even what the method should be.
Rule 2: the secret is the last segment of the path, or the password of HTTP basic auth. Every candidate is
        compared with every secret, as digests of bytes, in constant time.
Rule 3: without a secret nothing starts, unless `allow_unauthenticated=True` is spelled out.
Rule 4: secrets are compared by digest, and kept where no `repr` shows them; neither does one show a header or a path.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import math
import re
import secrets
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import attrs

from cloudware_async._errors import ConfigurationError, WebhookAuthenticationError
from cloudware_async._privacy import Secret
from cloudware_async._wire import read_base_url

Headers = Mapping[str, str] | Iterable[tuple[str | bytes, str | bytes]]

MAX_BODY = 64 * 1024
_STRENGTH = 128  # bits
# different ones, of which random digits of that strength have fewer once in a billion; a placeholder like 'xxx…' has
_LEAST_LETTERS = 6
# what a URL carries as it is (RFC 3986, "unreserved")
_SECRET = re.compile(r"[A-Za-z0-9._~-]+")
_ALPHABETS = ((r"[0-9]+", 10), (r"[0-9a-f]+|[0-9A-F]+", 16), (r"[0-9a-z._~-]+|[0-9A-Z._~-]+", 36), (r".+", 64))
_CONTENT_LENGTH = re.compile(r"[0-9]+")


def new_secret() -> str:
    """Make a secret for a webhook: 256 random bits, in letters that a URL carries as they are."""
    return secrets.token_urlsafe(32)


def webhook_url(base: str, secret: str) -> str:
    """Give the URL to enter at the service: `base` with the secret as its last segment.

    Args:
        base: where the receiver is reached from outside, like `https://example.com/webhooks`.
        secret: what `new_secret()` gave.

    Raises:
        ConfigurationError: `base` is no plain http or https URL, or the secret is too weak.
    """
    (checked,) = read_secrets(secret)
    try:
        where = read_base_url(base)
    except ConfigurationError:
        where = None
    if where is None:
        raise ConfigurationError(
            "base must be like 'https://example.com/webhooks': http or https, a host, no user name, "
            "no '?', no '#', no spaces and no letters outside ASCII"
        )
    return f"{where}/{checked.reveal()}"


def read_secrets(secret: str | Sequence[str]) -> tuple[Secret, ...]:
    """Check one secret, or the two of a rotation.

    Raises:
        ConfigurationError: there is none or there are more than two, or one is no string, holds what a URL does
            not carry as it is, or has less than 128 bits.
    """
    given: object = (secret,) if isinstance(secret, str) else secret
    # bytes are a sequence too, of numbers
    if not isinstance(given, Sequence) or not 1 <= len(given) <= 2 or not all(isinstance(each, str) for each in given):
        raise ConfigurationError("secret takes a string, or a sequence of one or two strings: the new and the old")
    for each in given:
        if not _SECRET.fullmatch(each):
            raise ConfigurationError(
                "a webhook's secret is made of the letters A-Z and a-z, digits, '-', '.', '_' and '~': "
                "make one with new_secret()"
            )
        if _most_bits(each) < _STRENGTH or len(set(each)) < _LEAST_LETTERS:
            raise ConfigurationError(
                "a webhook's secret must have at least 128 bits (22 random letters and digits, or 32 hexadecimal "
                "digits): make one with new_secret()"
            )
    return tuple(Secret(each) for each in given)


def _most_bits(secret: str) -> float:
    """Give the bits of a secret whose letters were drawn at random from the smallest usual alphabet they fit in."""
    size = next(size for alphabet, size in _ALPHABETS if re.fullmatch(alphabet, secret))
    return len(secret) * math.log2(size)


@attrs.frozen(repr=False)
class Head:
    """Of a head, what the rules ask for; a header that stands there twice counts as none, but for encodings."""

    method: str
    path: str
    authorization: str | None
    content_length: str | None
    content_type: str | None
    content_encoding: str


def read_head(method: str, path: str, headers: Headers) -> Head:
    """Pick from a request's head what the rules ask for."""
    found: dict[str, list[str]] = {}
    pairs: Any = headers.items() if isinstance(headers, Mapping) else headers
    for name, value in pairs:
        found.setdefault(_text(name).lower(), []).append(_text(value).strip(" \t"))

    def single(name: str) -> str | None:
        values = found.get(name, [])
        return values[0] if len(values) == 1 else None

    return Head(
        method=method,
        path=path,
        authorization=single("authorization"),
        content_length=single("content-length"),
        content_type=single("content-type"),
        content_encoding=", ".join(found.get("content-encoding", [])),
    )


def _text(value: str | bytes) -> str:
    return value if isinstance(value, str) else value.decode("latin-1")


class Gate:
    """The rules that a request must pass before its body is read, and the one after it.

    Args:
        secret: what the poster must know; two while one replaces the other; None for none.
        max_body: bytes; the longest body.
        allow_unauthenticated: do without a secret.

    Raises:
        ConfigurationError: no secret, a weak one, or an option out of its range.
    """

    def __init__(self, secret: str | Sequence[str] | None, *, max_body: int, allow_unauthenticated: bool) -> None:
        _check_options(max_body, allow_unauthenticated)
        if secret is None and not allow_unauthenticated:
            raise ConfigurationError(
                "a webhook needs a secret, for the service signs nothing: secret=…, made with new_secret(). "
                "Without one anybody can post texts; if you want that, spell out allow_unauthenticated=True"
            )
        self.secrets = () if secret is None else read_secrets(secret)
        self.max_body = max_body
        self._digests = tuple(hashlib.sha256(each.reveal().encode()).digest() for each in self.secrets)

    def authenticate(self, head: Head) -> None:
        """Check the secret (rule 2).

        Raises:
            WebhookAuthenticationError: it is missing or wrong; the text does not say which.
        """
        candidates = (
            head.path.partition("?")[0].rpartition("/")[2].encode("utf-8", "surrogatepass"),
            _read_password(head.authorization),
        )
        # nothing stops at the first match
        matches = [
            hmac.compare_digest(hashlib.sha256(candidate).digest(), digest)
            for candidate in candidates
            for digest in self._digests
        ]
        if self._digests and not any(matches):
            raise WebhookAuthenticationError("The webhook came without the right secret.")

    def check_head(self, head: Head) -> int | None:
        """Give the status that refuses a request by its head, or None; the body has not been read yet (rule 1).

        Raises:
            WebhookAuthenticationError: the secret is missing or wrong.
        """
        self.authenticate(head)
        if head.method != "POST":
            return 405
        length = head.content_length
        if length is not None and _CONTENT_LENGTH.fullmatch(length):
            # int() refuses thousands of digits
            digits = length.lstrip("0") or "0"
            if len(digits) > 18 or int(digits) > self.max_body:
                return 413
        return None

    def check_type(self, head: Head) -> int | None:
        """Give the status that refuses a request by the type of its body, or None."""
        media_type = (head.content_type or "").partition(";")[0].strip(" \t").lower()
        is_plain = head.content_encoding.lower() in ("", "identity")
        return None if media_type == "application/json" and is_plain else 415


def _check_options(max_body: object, allow_unauthenticated: object) -> None:
    if not isinstance(allow_unauthenticated, bool):
        raise ConfigurationError("allow_unauthenticated takes True or False")
    if isinstance(max_body, bool) or not isinstance(max_body, int) or max_body < 1:
        raise ConfigurationError("max_body takes a whole number of bytes from 1")


def _read_password(authorization: str | None) -> bytes:
    """Give the password of basic auth (RFC 7617), or nothing."""
    scheme, _, credentials = (authorization or "").partition(" ")
    if scheme.lower() != "basic":
        return b""
    try:
        decoded = base64.b64decode(credentials.strip(" \t"), validate=True)
    except ValueError:
        return b""
    return decoded.partition(b":")[2]


_HEADERS = {
    401: {"WWW-Authenticate": 'Basic realm="webhooks"'},
    405: {"Allow": "POST"},
    503: {"Retry-After": "5"},
}


def response_headers(status: int) -> dict[str, str]:
    """Give the headers that belong to a status of `Receiver`; the body of every answer is empty."""
    return dict(_HEADERS.get(status, {}))
