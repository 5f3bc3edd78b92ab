"""Every error the package raises.

    CloudwareError                      .may_have_been_sent  .attempts  .cursor
    ├── ConfigurationError              the client's own settings or use; also a ValueError
    ├── InvalidArgumentError            a call's arguments; also a ValueError; nothing left this process
    ├── APIConnectionError              no answer: could not connect, or the connection broke
    │   └── APITimeoutError             the time ran out; also a TimeoutError
    ├── APIStatusError                  .status_code  .body  .retry_after  .headers
    │   ├── BadRequestError 400
    │   ├── AuthenticationError 401
    │   ├── PermissionDeniedError 403
    │   ├── NotFoundError 404
    │   ├── ConflictError 409
    │   ├── UnprocessableEntityError 422
    │   ├── RateLimitError 429
    │   └── ServerError 5xx
    ├── APIResponseError                an answer that cannot be read
    ├── PaginationError                 a loop or a foreign origin
    └── WebhookError
        ├── WebhookAuthenticationError
        └── WebhookPayloadError

Rule 1: an error says what happened and what to do, and holds no token, no text and no whole number.
Rule 2: an error survives `pickle`: one positional argument, its text; everything else is an attribute.
Rule 3: `may_have_been_sent` is false only where it is certain that no text went out.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cloudware_async._models import Page


class CloudwareError(Exception):
    """What every error of this package is.

    Attributes:
        may_have_been_sent: whether a text may have gone out. False means that none did; true means that
            nobody knows: ask the recipient or the listing before sending again. True if any attempt's was.
        attempts: how many requests were tried, 0 if none was.
        cursor: where a broken walk over messages goes on (`messages(cursor=error.cursor)`), or None.
    """

    def __init__(self, message: str, *, may_have_been_sent: bool = False) -> None:
        super().__init__(message)
        self.may_have_been_sent = may_have_been_sent
        self.attempts = 0
        self.cursor: str | None = None
        # whether the same request could fare better in a moment; the retry decision asks it
        self._passing = False


class ConfigurationError(CloudwareError, ValueError):
    """The client's own settings are missing or malformed, or it is used after close or from a second event loop."""


class InvalidArgumentError(CloudwareError, ValueError):
    """A call's arguments are not what the API takes; nothing left this process."""


class APIConnectionError(CloudwareError):
    """No answer: the connection could not be made, or it broke before the answer was whole."""


class APITimeoutError(APIConnectionError, TimeoutError):
    """The time ran out, for connecting (`connect_timeout`) or for the whole call (`timeout`)."""


class APIStatusError(CloudwareError):
    """The service answered with a status that is no success.

    Attributes:
        status_code: the HTTP status.
        body: the answer's body as text, with the token, the number and the message taken out; None if it
            was not readable.
        retry_after: the seconds that the service asked to wait, or None.
        headers: the answer's `content-type`, `date`, `retry-after` and `x-request-id`, where present.
    """

    def __init__(
        self,
        message: str,
        *,
        may_have_been_sent: bool = False,
        status_code: int = 0,
        body: str | None = None,
        retry_after: float | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message, may_have_been_sent=may_have_been_sent)
        self.status_code = status_code
        self.body = body
        self.retry_after = retry_after
        self.headers: Mapping[str, str] = headers or {}


class BadRequestError(APIStatusError):
    """400: the service did not understand the request."""


class AuthenticationError(APIStatusError):
    """401: the service does not know the access token."""


class PermissionDeniedError(APIStatusError):
    """403: the access token may not do this."""


class NotFoundError(APIStatusError):
    """404: there is nothing at this address; `base_url` may be wrong."""


class ConflictError(APIStatusError):
    """409: the service speaks of a conflict; of a send, the outcome is unknown."""


class UnprocessableEntityError(APIStatusError):
    """422: the service understood the request and does not accept its values."""


class RateLimitError(APIStatusError):
    """429: too many requests; nothing was sent."""


class ServerError(APIStatusError):
    """5xx: the service failed; of a send, the outcome is unknown unless it is a 503 with `Retry-After`."""


class APIResponseError(CloudwareError):
    """An answer that cannot be read.

    Attributes:
        place: where the answer is bad (`data[3].to`), or None if it is bad as a whole.
        page: of a page with a malformed message, the messages that could be read.
        page_cursor: the cursor of that page itself; `cursor` is the one past it.
    """

    def __init__(self, message: str, *, may_have_been_sent: bool = False, place: str | None = None) -> None:
        super().__init__(message, may_have_been_sent=may_have_been_sent)
        self.place = place
        self.page: Page | None = None
        self.page_cursor: str | None = None


class PaginationError(CloudwareError):
    """A listing that leads in a circle or to a foreign origin, or a cursor that is none of ours; it is not followed."""


class WebhookError(CloudwareError):
    """What every error about a webhook is."""


class WebhookAuthenticationError(WebhookError):
    """A webhook without the right secret."""


class WebhookPayloadError(WebhookError):
    """A webhook whose body is not one readable message."""
