"""What HTTP libraries log of our requests: that they were made, and nothing private.

Rule 1: httpx logs every URL, filters and page tokens included, and the service's own words beside the status; httpcore
        what the headers of answers hold and how a proxy is logged in to. All of it is cut short.
Rule 2: only what is logged while a request of ours is under way is touched: the user's own requests are the user's.
"""

from __future__ import annotations

import contextlib
import logging
import re
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

from cloudware_async._privacy import HIDDEN, mask_text

if TYPE_CHECKING:
    from collections.abc import Generator

_is_ours: ContextVar[bool] = ContextVar("cloudware_request", default=False)

# a page may link to any path, and a path may hold anything
_OUR_ENDING = re.compile(r"/sms/(send|queue|messages)\Z")
# what httpcore says of an event, from here on
_TELLING = re.compile(r"(return_value=|auth=|exception=\w+).*", re.DOTALL)


@contextlib.contextmanager
def our_request() -> Generator[None]:
    """Mark the time in which a request of ours is under way."""
    token = _is_ours.set(True)
    try:
        yield
    finally:
        _is_ours.reset(token)


class _Shortener(logging.Filter):
    def filter(self, record: logging.LogRecord) -> bool:
        if _is_ours.get():
            if isinstance(record.args, tuple):
                record.args = tuple(map(_shorten, record.args))
                if record.args and str(record.msg).startswith("HTTP Request: "):
                    # it ends with the service's own words, which may be anything
                    record.args = (*record.args[:-1], HIDDEN)
            record.msg = _TELLING.sub(rf"\1{HIDDEN}", str(record.msg))
        return True


def _shorten(value: Any) -> Any:
    """Show of a URL whose it is and how its path ends where that is ours, and of its query how long it is."""
    query = getattr(value, "query", None)
    if not isinstance(query, bytes):
        return value
    ending = _OUR_ENDING.search(value.path)
    shown = f"{value.scheme}://{value.netloc.decode()}/…{ending[0] if ending else ''}"
    return f"{shown}?{mask_text(query.decode())}" if query else shown


_shortener = _Shortener()
for _library, _parts in (("httpx", ("",)), ("httpcore", (".connection", ".http11", ".http2", ".proxy", ".socks"))):
    for _part in _parts:
        for _version in ("", "2"):
            logging.getLogger(f"{_library}{_version}{_part}").addFilter(_shortener)
