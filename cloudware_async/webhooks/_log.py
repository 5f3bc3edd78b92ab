"""What is logged, under `cloudware_async.webhooks`, and how secrets are kept out of the logs of others.

Rule 1: no secret, text or whole number is logged. Of an exception its class and place are, for its words may hold
        what the handler was working on.
Rule 2: servers log the paths of requests, and the path may hold the secret. So what they log goes through a filter:
        words, arguments, extra fields, tracebacks; a letter of the secret may be percent-encoded.
"""

from __future__ import annotations

import copy
import logging
import re
import traceback
from typing import TYPE_CHECKING, Any, final

from cloudware_async._errors import WebhookPayloadError
from cloudware_async._privacy import HIDDEN, Secret
from cloudware_async.webhooks._payload import parse

if TYPE_CHECKING:
    from collections.abc import Iterable

_logger = logging.getLogger("cloudware_async.webhooks")

# the loggers of servers and frameworks that write paths
_LOGGERS_OF_PATHS = (
    "aiohttp.access",
    "aiohttp.server",
    "django.request",
    "django.security.DisallowedHost",
    "django.security.RequestDataTooBig",
    "django.security.csrf",
    "django.server",
    "gunicorn.access",
    "gunicorn.error",
    "uvicorn.access",
    "uvicorn.asgi",
    "uvicorn.error",
    "waitress",
    "werkzeug",
)


def log_refusal(status: int, reason: str) -> None:
    """Log that a request with the right secret was refused: the service posts what nobody here expects."""
    _logger.warning("a webhook was refused with %d: %s", status, reason)


def log_store_failure(error: BaseException) -> None:
    """Log that the store failed."""
    _logger.error("the store of webhooks failed: %s", _describe(error))


def log_handler_failure(body: bytes, error: BaseException, pause: float | None = None) -> None:
    """Log that a handler failed."""
    try:
        subject = repr(parse(body))
    except WebhookPayloadError:
        # recorded by another version
        subject = "a message that cannot be read"
    outlook = "it may be posted again" if pause is None else f"next attempt in {pause:.1f} seconds"
    _logger.error("the handler failed on %s: %s; %s", subject, _describe(error), outlook)


def _describe(error: BaseException) -> str:
    """Give an exception's class and the frames that led to it, and none of its words (rule 1)."""
    frames = [f"{frame.filename}:{frame.lineno} {frame.name}" for frame in traceback.extract_tb(error.__traceback__)]
    return f"{type(error).__qualname__} at {' > '.join(frames) or 'an unknown place'}"


@final
class SecretFilter(logging.Filter):
    """Takes secrets out of every log record that passes: its words, arguments, extra fields and traceback."""

    def __init__(self, secrets: Iterable[Secret] = ()) -> None:
        super().__init__()
        # by secret, so that nobody pickles them; a pattern for each, for one of all is slow to compile
        self._patterns: dict[Secret, re.Pattern[str]] = {}
        self.add(secrets)

    def add(self, secrets: Iterable[Secret]) -> None:
        """Take out these too."""
        new = {secret: re.compile(_spellings(secret)) for secret in secrets if secret not in self._patterns}
        # another dict, for another thread may be going through the old one
        self._patterns = self._patterns | new

    def filter(self, record: logging.LogRecord) -> bool:
        """Take the secrets out, and let the record pass."""
        for name, value in list(vars(record).items()):
            if name not in ("args", "exc_info"):
                setattr(record, name, self._hide(value))
        if isinstance(record.args, tuple):
            record.args = tuple(self._hide(each) for each in record.args)
        elif isinstance(record.args, dict):
            # a copy of the same kind: gunicorn's gives '-' for what it lacks
            record.args = copy.copy(record.args)
            record.args.update({name: self._hide(value) for name, value in record.args.items()})
        if record.exc_info and record.exc_info[0] is not None:
            shown = "".join(traceback.format_exception(*record.exc_info)).rstrip("\n")
            hidden = self._hide_in(shown)
            if hidden != shown:
                # what a formatter shows where there is no `exc_info`
                record.exc_text = hidden
                record.exc_info = None
        return True

    def _hide(self, value: Any) -> Any:
        if value is None or isinstance(value, int | float):
            return value
        try:
            shown = str(value)
        except Exception:  # noqa: BLE001 (it cannot be logged either)
            return value
        hidden = self._hide_in(shown)
        return value if hidden == shown else hidden

    def _hide_in(self, shown: str) -> str:
        for pattern in self._patterns.values():
            shown = pattern.sub(HIDDEN, shown)
        return shown


def _spellings(secret: Secret) -> str:
    """Give a pattern for a secret as it may stand in a URL (RFC 3986, 2.1)."""
    return "".join(f"(?:{re.escape(letter)}|%(?i:{ord(letter):02x}))" for letter in secret.reveal())


_of_all_receivers = SecretFilter()


def hide_from_servers(secrets: Iterable[Secret]) -> None:
    """Keep secrets out of what the servers and frameworks of this process log about paths (rule 2)."""
    _of_all_receivers.add(secrets)
    for name in _LOGGERS_OF_PATHS:
        logging.getLogger(name).addFilter(_of_all_receivers)
