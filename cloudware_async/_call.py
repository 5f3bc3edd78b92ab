"""One call: attempt, judge, wait, again, within one timeout.

Rule 1: what is decided here is only in which order; `_wire` judges an answer, `_retry` whether to go on.
Rule 2: an error is raised outside every `except`, so that no chain shows what a lower floor held.
Rule 3: `may_have_been_sent` is sticky: true if any attempt's was.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

import attrs

from cloudware_async._errors import CloudwareError, ConfigurationError
from cloudware_async._retry import RetryBudget, RetryPolicy, decide
from cloudware_async._wire import Answer, Listing, Request, error_from_failure

if TYPE_CHECKING:
    from collections.abc import Callable

    from cloudware_async._backend import Backend
    from cloudware_async._backend_opening import Opening

T = TypeVar("T")


@attrs.frozen
class Calling:
    """How a client calls: what is the same for every request of it.

    Attributes:
        timeout: seconds for a whole call.
        connect_timeout: seconds for making one connection.
    """

    opening: Opening
    retry: RetryPolicy | None
    budget: RetryBudget
    timeout: float
    connect_timeout: float

    @property
    def backend(self) -> Backend:
        """What the client calls through."""
        return self.opening.backend


async def call(calling: Calling, request: Request, read: Callable[[Answer], T | CloudwareError]) -> T:
    """Make one call and give what `read` makes of its answer.

    Raises:
        CloudwareError: what the last attempt ended with.
        ConfigurationError: the client is closed or belongs to another event loop, or an overridden `RetryPolicy.delay`
            raised, or gave something that is no number of seconds.
    """
    backend = calling.backend
    began = backend.clock()
    deadline = began + calling.timeout
    attempts = 0
    may_have_been_sent = False
    while True:
        try:
            outcome = await backend.exchange(request, connect_timeout=calling.connect_timeout, deadline=deadline)
            attempts += 1
            result = read(outcome) if isinstance(outcome, Answer) else error_from_failure(outcome, request)
            if not isinstance(result, CloudwareError):
                calling.budget.succeed()
                if isinstance(result, Listing) and result.error is not None:
                    # raised later, after the page's messages
                    result.error.attempts = attempts
                return result
            may_have_been_sent = may_have_been_sent or result.may_have_been_sent
            elapsed = backend.clock() - began
            delay = decide(
                calling.retry, calling.budget, result, attempt=attempts, elapsed=elapsed, timeout=calling.timeout
            )
            goes_on = delay is not None and await backend.sleep(delay)
        except ConfigurationError as error:
            # the client was closed in a pause, or an overridden `delay` gave nonsense
            result, goes_on = error, False
        # a pause may last longer than it was meant to, and an attempt without time would only blur what is known
        if not goes_on or backend.clock() >= deadline:
            if may_have_been_sent and not result.may_have_been_sent:
                words = str(result).removesuffix(".")
                result.args = (
                    f"{words}. An earlier attempt of the same call may have gone out: do not resend blindly.",
                )
            result.may_have_been_sent = may_have_been_sent
            result.attempts = attempts
            raise result
