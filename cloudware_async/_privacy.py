"""How private things are shown: hardly.

Rule 1: a token is held in a `Secret`; nothing shows it but `reveal()`.
Rule 2: a number is shown by its ends, a text by its length.
Rule 3: what the service said back is scrubbed of both before it is kept in an error.
"""

from __future__ import annotations

import html
import json
import re
from typing import Any, NoReturn, final
from urllib.parse import quote, quote_plus

HIDDEN = "•••"


@final
class Secret:
    """A string that is in no `repr`, no pickle and no copy; `reveal()` gives it."""

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        self._value = value

    def reveal(self) -> str:
        return self._value

    def __repr__(self) -> str:
        return f"Secret({HIDDEN})"

    def __reduce_ex__(self, protocol: Any) -> NoReturn:
        raise TypeError("a Secret is not pickled: hand the token over by other means")


def mask_number(number: object) -> str:
    """Show a phone number or a sender by its ends: `2348•••678`; a short one, or what is none, not at all."""
    if number is None:
        return "None"
    if not isinstance(number, str) or len(number) < 10 or not number.isprintable():
        return HIDDEN
    return f"{number[:4]}{HIDDEN}{number[-3:]}"


def mask_text(text: object) -> str:
    """Show a text by its length: `<11 characters>`."""
    if text is None:
        return "None"
    return f"<{len(text)} characters>" if isinstance(text, str) else HIDDEN


def mask_extra(extra: object) -> str:
    """Show what the documentation does not name by how much of it there is."""
    return f"<{len(extra)} keys>" if isinstance(extra, dict) else HIDDEN


def scrub(text: str, private: tuple[str, ...]) -> str:
    """Take every private string out of a text, as it is, as JSON writes it, as URLs do and as HTML does."""
    # what is longer than the text is not in it, and writing a long one in every form takes its time
    within = {value for value in private if 0 < len(value) <= len(text)}
    # the longest first, so that one that holds another goes as a whole
    for value in sorted(within, key=len, reverse=True):
        for form in sorted(_forms(value), key=len, reverse=True):
            text = text.replace(form, HIDDEN)
    return text


def _forms(value: str) -> set[str]:
    """Give the ways in which a service may write what it was sent: also in HTML, and as JSON within JSON."""
    once = _json_forms({value})
    urls = {
        quote(value, safe="", errors="replace"),
        quote(value, errors="replace"),
        quote_plus(value, errors="replace"),
    }
    return {value, html.escape(value)} | once | _json_forms(once) | urls


def _json_forms(values: set[str]) -> set[str]:
    escaped = {json.dumps(value)[1:-1] for value in values}
    upper = {re.sub(r"\\u[0-9a-f]{4}", lambda match: f"\\u{match[0][2:].upper()}", form) for form in escaped}
    forms = escaped | upper | {json.dumps(value, ensure_ascii=False)[1:-1] for value in values}
    return forms | {form.replace("/", r"\/") for form in forms}
