"""When a failed request is tried again, and after how long. Pure: nothing here waits.

Rule 1: a send is repeated only if it certainly did not go out and may fare better in a moment
        (or, with `resend_unknown=True`, if nobody knows). A read is repeated if it may fare better.
Rule 2: a wait is never negative and ends before the timeout does, and no attempt exceeds `max_attempts`.
Rule 3: every retry costs a token of the client's budget and every success pays half of one back, so that
        an outage is not multiplied: 10 retries and then none until something succeeds.
"""

from __future__ import annotations

import random as _random
import sys
from typing import TYPE_CHECKING, TypeGuard

import attrs

from cloudware_async._errors import APIStatusError, CloudwareError, ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Callable


def is_number(value: object) -> TypeGuard[int | float]:
    """Say whether it is a finite number that a float can hold."""
    # `math.isfinite` raises OverflowError for integers that no float can hold
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= sys.float_info.max


def _check_seconds(policy: RetryPolicy, attribute: attrs.Attribute[float], value: object) -> None:
    if not is_number(value) or value < 0:
        raise ConfigurationError(f"RetryPolicy({attribute.name}=…) takes seconds, finite and not negative")


def _check_attempts(policy: RetryPolicy, attribute: attrs.Attribute[int], value: object) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ConfigurationError("RetryPolicy(max_attempts=…) takes a whole number from 1")


def _check_flag(policy: RetryPolicy, attribute: attrs.Attribute[bool], value: object) -> None:
    if not isinstance(value, bool):
        raise ConfigurationError("RetryPolicy(resend_unknown=…) takes True or False")


@attrs.frozen
class RetryPolicy:
    """How often and after how long a request is tried again.

    Only failures that cannot text anybody twice are retried: the connection could not be made, none was free,
    or the service answered 425, 429, or 503 with `Retry-After`. A read (`messages`) is also retried after a
    broken connection, a timeout, a 408 and any 5xx.

    Attributes:
        max_attempts: the most requests of one call, the first included.
        base_delay: seconds; the n-th wait is random between 0 and `base_delay * 2**(n-1)` ("full jitter").
        throttled_delay: the same, after 425, 429 and 503.
        max_delay: seconds; the most that a wait without `Retry-After` grows to.
        max_retry_after: seconds; a longer `Retry-After` fails at once, with `error.retry_after` set.
        resend_unknown: also repeat a send that may have gone out. Somebody may then be texted twice.
        random: gives a number from 0 up to 1 for the jitter.

    Raises:
        ConfigurationError: a value is out of its range.
    """

    max_attempts: int = attrs.field(default=3, validator=_check_attempts)
    base_delay: float = attrs.field(default=0.05, validator=_check_seconds)
    throttled_delay: float = attrs.field(default=1.0, validator=_check_seconds)
    max_delay: float = attrs.field(default=20.0, validator=_check_seconds)
    max_retry_after: float = attrs.field(default=120.0, validator=_check_seconds)
    resend_unknown: bool = attrs.field(default=False, validator=_check_flag)
    random: Callable[[], float] = attrs.field(default=_random.random, kw_only=True, repr=False, eq=False)

    def delay(self, attempt: int, failure: CloudwareError, elapsed: float) -> float | None:
        """Say how many seconds to wait before the next attempt, or None for no further one.

        Override it to decide otherwise. It is asked only about failures that may be repeated (see the class), and
        what it says still ends at `max_attempts`, at the call's timeout and at the client's retry budget.

        Args:
            attempt: how many attempts were made, from 1.
            failure: how the last one ended.
            elapsed: seconds since the call began.
        """
        throttled = isinstance(failure, APIStatusError) and failure.status_code in (425, 429, 503)
        base = self.throttled_delay if throttled else self.base_delay
        # the exponent is bounded: 2.0**1024 overflows
        jitter = self.random() * min(self.max_delay, base * 2.0 ** min(attempt - 1, 60))
        retry_after = failure.retry_after if isinstance(failure, APIStatusError) else None
        if retry_after is None:
            return jitter
        if retry_after > self.max_retry_after:
            return None
        # a little later than asked, so that not everybody who was told the same comes back at once
        return retry_after + min(jitter, self.base_delay)


@attrs.define
class RetryBudget:
    """The tokens of one client: what keeps its retries from multiplying an outage (rule 3)."""

    capacity: float = 10.0
    refund: float = 0.5
    tokens: float = 10.0

    def spend(self) -> bool:
        """Take one token for a retry; false if there is none."""
        if self.tokens < 1:
            return False
        self.tokens -= 1
        return True

    def succeed(self) -> None:
        """Pay back for a success."""
        if self.tokens < self.capacity:
            self.tokens = min(self.capacity, self.tokens + self.refund)


def may_repeat(failure: CloudwareError, *, resend_unknown: bool) -> bool:
    """Say whether repeating cannot text anybody twice, or is wished all the same (rule 1)."""
    return resend_unknown if failure.may_have_been_sent else failure._passing  # noqa: SLF001 (the tree's own)


def decide(
    policy: RetryPolicy | None,
    budget: RetryBudget,
    failure: CloudwareError,
    *,
    attempt: int,
    elapsed: float,
    timeout: float,
) -> float | None:
    """Say how many seconds to wait before the next attempt, or None to give up now (rules 1 to 3).

    Raises:
        ConfigurationError: an overridden `RetryPolicy.delay` raised, or gave something that is no number of seconds.
    """
    if policy is None or attempt >= policy.max_attempts:
        return None
    if not may_repeat(failure, resend_unknown=policy.resend_unknown):
        return None
    try:
        delay = policy.delay(attempt, failure, elapsed)
    except Exception as error:
        raise ConfigurationError(f"RetryPolicy.delay() raised {type(error).__name__}") from error
    if delay is None:
        return None
    # a number that is not equal to itself is none
    if isinstance(delay, bool) or not isinstance(delay, int | float) or delay != delay:  # noqa: PLR0124
        raise ConfigurationError("RetryPolicy.delay() must give seconds or None")
    delay = max(0.0, delay)
    if delay >= timeout - elapsed or not budget.spend():
        return None
    return delay
