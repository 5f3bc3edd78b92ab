"""What is logged, under `cloudware_async.webhooks`, and how secrets are kept out of the logs of others.

Rule 1: no secret, text or whole number is logged. Of an exception its class and place are, for its words may hold
        what the handler was working on.
Rule 2: servers log the paths of requests, and the path may hold the secret. So what they log goes through a filter.
"""

from __future__ import annotations

import copy
import logging
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
    """Takes secrets out of every log record that passes, in its words, its arguments and its extra fields."""

    def __init__(self, secrets: Iterable[Secret] = ()) -> None:
        super().__init__()
        self._secrets: frozenset[str] = frozenset()
        self.add(secrets)

    def add(self, secrets: Iterable[Secret]) -> None:
        """Take out these too."""
        # a new set, for another thread may be looking through the old one
        self._secrets |= {secret.reveal() for secret in secrets}

    def filter(self, record: logging.LogRecord) -> bool:
        """Take the secrets out, and let the record pass."""
        for name, value in list(vars(record).items()):
            if isinstance(value, str):
                setattr(record, name, self._hide(value))
        if isinstance(record.args, tuple):
            record.args = tuple(self._hide(each) for each in record.args)
        elif isinstance(record.args, dict):
            # a copy of the same kind: gunicorn's gives '-' for what it lacks
            record.args = copy.copy(record.args)
            record.args.update({name: self._hide(value) for name, value in record.args.items()})
        return True

    def _hide(self, value: Any) -> Any:
        try:
            shown = str(value)
        except Exception:  # noqa: BLE001 (it cannot be logged either)
            return value
        hidden = shown
        for secret in self._secrets:
            hidden = hidden.replace(secret, HIDDEN)
        return value if hidden == shown else hidden


_of_all_receivers = SecretFilter()


def hide_from_servers(secrets: Iterable[Secret]) -> None:
    """Keep secrets out of what the servers and frameworks of this process log about paths (rule 2)."""
    _of_all_receivers.add(secrets)
    for name in _LOGGERS_OF_PATHS:
        logging.getLogger(name).addFilter(_of_all_receivers)
