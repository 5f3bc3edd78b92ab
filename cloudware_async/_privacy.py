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
from urllib.parse import unquote

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


_NUMBER = re.compile(r"[0-9]{7,15}")
# how JSON, URLs and HTML write a character
_ESCAPED = re.compile(r"""(?:\\u[0-9A-Fa-f]{4})+|\\["'\\/bfnrt]|(?:%[0-9A-Fa-f]{2})+|&#?[0-9A-Za-z]{1,10};""")
# JSON within JSON, HTML within JSON
_MOST_LEVELS = 3
# the most letters that a character becomes
_WIDEST = 16
_MOST_KEPT = 16 * 1024


def scrub(text: str, private: tuple[str, ...]) -> str:
    """Take every private string out of a text, as it is, as JSON writes it, as URLs do and as HTML does.

    No more than 16,384 characters are given. Where something private stood in another form, all is given as plain text.
    """
    # what is longer than the text is not in it; the longest first, so that one that holds another goes as a whole
    within = sorted({value for value in private if 0 < len(value) <= len(text)}, key=len, reverse=True)
    if not within:
        return text[:_MOST_KEPT]
    margin = _WIDEST * len(within[0])
    beginning = text[: _WIDEST * _MOST_KEPT + margin]
    shown = plain = _hide(beginning, within)
    for _ in range(_MOST_LEVELS):
        plain = _ESCAPED.sub(_unescape, plain)
        hidden = _hide(plain, within)
        if hidden != plain:
            shown = plain = hidden
    if len(beginning) < len(text):
        # what was cut in two is not known again
        shown = shown[:-margin]
    return shown[:_MOST_KEPT]


def _hide(text: str, values: list[str]) -> str:
    for value in values:
        text = text.replace(value, HIDDEN)
        if " " in value:
            # as forms are sent
            text = text.replace(value.replace(" ", "+"), HIDDEN)
        if _NUMBER.fullmatch(value):
            # however its digits are grouped
            text = re.sub(r"[-. ()/]{0,2}".join(value), HIDDEN, text)
    return text


def _unescape(match: re.Match[str]) -> str:
    form = match[0]
    if form.startswith("%"):
        return unquote(form)
    if form.startswith("&"):
        return html.unescape(form)
    return "'" if form == r"\'" else str(json.loads(f'"{form}"'))
