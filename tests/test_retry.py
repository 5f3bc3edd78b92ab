"""When a failed request is tried again: one pure decision, its policy, and the budget that bounds them all."""

from __future__ import annotations

import copy
import itertools
import json
import math
import pickle
from decimal import Decimal
from typing import Any

import attrs
import pytest

from cloudware_async import APIConnectionError, CloudwareError, ConfigurationError, RetryPolicy
from cloudware_async._backend import drive
from cloudware_async._backend_opening import Opening
from cloudware_async._call import Calling, call
from cloudware_async._retry import RetryBudget, decide, may_repeat
from cloudware_async._wire import (
    Answer,
    Failure,
    FailureKind,
    Place,
    error_from_failure,
    error_from_status,
    messages_request,
    read_base_url,
    read_page,
    read_receipt,
    read_token,
    send_request,
)

BASE = read_base_url("https://api.cloudware.chat/v1")
TOKEN = read_token("token")
SEND = send_request(BASE, TOKEN, "/sms/send", "2348012345678", "Hello", None)
READ = messages_request(BASE, TOKEN, Place())


def cases(table: dict[str, Any]) -> dict[str, Any]:
    """A table for `parametrize`, each row under its name."""
    return {"argvalues": list(table.values()), "ids": list(table)}


def status(code: int, retry_after: str | None = None, request: Any = SEND) -> CloudwareError:
    """The error of an answer."""
    headers = [] if retry_after is None else [(b"Retry-After", retry_after.encode())]
    return error_from_status(Answer(code, headers, b""), request)


def failure(kind: FailureKind, *, written: bool, request: Any = SEND) -> CloudwareError:
    """The error of a request without an answer."""
    return error_from_failure(Failure(kind, written=written), request)


REFUSED = failure(FailureKind.CONNECT, written=False)
THROTTLED = status(429)

# how a request ends: (repeated, repeated with resend_unknown)
YES, NO, ON_WISH = (True, True), (False, False), (False, True)
ENDS_OF_A_SEND = {
    "could not connect": (failure(FailureKind.CONNECT, written=False), YES),
    "could not connect in time": (failure(FailureKind.CONNECT_TIMEOUT, written=False), YES),
    "no connection was free": (failure(FailureKind.NO_CONNECTION, written=False), YES),
    "could not connect, without a witness": (failure(FailureKind.CONNECT, written=True), YES),
    "the certificate failed": (failure(FailureKind.CERTIFICATE, written=False), NO),
    "broken before the first byte": (failure(FailureKind.BROKEN, written=False), YES),
    "broken after it": (failure(FailureKind.BROKEN, written=True), ON_WISH),
    "timed out before the first byte": (failure(FailureKind.TIMEOUT, written=False), YES),
    "timed out after it": (failure(FailureKind.TIMEOUT, written=True), ON_WISH),
    "a stray answer": (failure(FailureKind.STRAY, written=True), ON_WISH),
    "101": (status(101), ON_WISH),
    "302": (status(302), ON_WISH),
    "400": (status(400), NO),
    "400 with Retry-After": (status(400, "1"), NO),
    "401": (status(401), NO),
    "403": (status(403), NO),
    "404": (status(404), NO),
    "408": (status(408), ON_WISH),
    "409": (status(409), ON_WISH),
    "418": (status(418), NO),
    "422": (status(422), NO),
    "425": (status(425), YES),
    "429": (status(429), YES),
    "429 with Retry-After": (status(429, "1"), YES),
    "500": (status(500), ON_WISH),
    "500 with Retry-After": (status(500, "1"), ON_WISH),
    "502": (status(502), ON_WISH),
    "503": (status(503), ON_WISH),
    "503 with Retry-After": (status(503, "1"), YES),
    "503 with an unreadable Retry-After": (status(503, "soon"), ON_WISH),
    "504": (status(504), ON_WISH),
    "999": (status(999), ON_WISH),
    "an unreadable success": (read_receipt(Answer(200, [], b""), SEND), ON_WISH),
}
ENDS_OF_A_READ = {
    "could not connect": (failure(FailureKind.CONNECT, written=False, request=READ), YES),
    "no connection was free": (failure(FailureKind.NO_CONNECTION, written=False, request=READ), YES),
    "the certificate failed": (failure(FailureKind.CERTIFICATE, written=False, request=READ), NO),
    "broken": (failure(FailureKind.BROKEN, written=True, request=READ), YES),
    "timed out": (failure(FailureKind.TIMEOUT, written=True, request=READ), YES),
    "a stray answer": (failure(FailureKind.STRAY, written=True, request=READ), YES),
    **{str(code): (status(code, request=READ), NO) for code in (101, 302, 400, 401, 403, 404, 409, 418, 422, 999)},
    **{str(code): (status(code, request=READ), YES) for code in (408, 425, 429, 500, 502, 503, 504, 599)},
    "an unreadable success": (read_page(Answer(200, [], b""), READ, BASE, Place()), NO),
}
ENDS = {f"a send, {name}": end for name, end in ENDS_OF_A_SEND.items()}
ENDS |= {f"a read, {name}": end for name, end in ENDS_OF_A_READ.items()}


# ---------------------------------------------------------------- the decision


@pytest.mark.parametrize("resend_unknown", [False, True], ids=["careful", "resend_unknown"])
@pytest.mark.parametrize(("error", "repeated"), **cases(ENDS))
def test_decision(error, repeated, resend_unknown):
    """Whether to go on depends on how the attempt ended, on its number and on the budget, which pays for each retry."""
    policy = RetryPolicy(max_attempts=3, resend_unknown=resend_unknown, random=lambda: 0.5)
    assert repeated[resend_unknown] == may_repeat(error, resend_unknown=resend_unknown)
    for attempt, tokens in itertools.product((1, 2, 3, 4), (0.0, 0.5, 1.0, 10.0)):
        budget = RetryBudget(tokens=tokens)
        goes_on = repeated[resend_unknown] and attempt < 3 and tokens >= 1

        delay = decide(policy, budget, error, attempt=attempt, elapsed=0.0, timeout=30.0)

        assert goes_on == (delay is not None), (attempt, tokens)
        assert (tokens - 1 if goes_on else tokens) == budget.tokens, (attempt, tokens)


@pytest.mark.parametrize(("error", "repeated"), **cases(ENDS))
def test_no_policy(error, repeated):
    """Without a policy there is one attempt, and with one of a single attempt too."""
    for policy in (None, RetryPolicy(max_attempts=1, resend_unknown=True)):
        budget = RetryBudget()
        assert None is decide(policy, budget, error, attempt=1, elapsed=0.0, timeout=30.0)
        assert 10 == budget.tokens


@pytest.mark.parametrize("max_attempts", [1, 2, 5])
def test_attempts(max_attempts):
    """There are never more attempts than `max_attempts`, the first included."""
    policy = RetryPolicy(max_attempts=max_attempts, random=lambda: 0.0)
    attempts = 1
    while decide(policy, RetryBudget(), REFUSED, attempt=attempts, elapsed=0.0, timeout=30.0) is not None:
        attempts += 1
    assert max_attempts == attempts


@pytest.mark.parametrize(
    ("seconds", "elapsed", "delay"),
    [
        (0.0, 0.0, 0.0),
        (29.0, 0.0, 29.0),
        (30.0, 0.0, None),
        (31.0, 0.0, None),
        (19.0, 10.0, 19.0),
        (20.0, 10.0, None),
        (0.0, 30.0, None),
        (0.0, 31.0, None),
    ],
)
def test_wait_within_the_timeout(seconds, elapsed, delay):
    """A wait that would leave no time for another attempt is not begun, and costs nothing."""
    budget = RetryBudget()
    assert delay == decide(Asked(seconds), budget, REFUSED, attempt=1, elapsed=elapsed, timeout=30.0)
    assert (10 if delay is None else 9) == budget.tokens


@pytest.mark.parametrize(("timeout", "delay"), [(10.0, None), (10.1, 10.0)])
def test_retry_after_longer_than_what_is_left(timeout, delay):
    """A `Retry-After` longer than what is left fails at once."""
    policy = RetryPolicy(random=lambda: 0.0)
    assert delay == decide(policy, RetryBudget(), status(429, "10"), attempt=1, elapsed=0.0, timeout=timeout)


# ---------------------------------------------------------------- the delays


@pytest.mark.parametrize(
    ("error", "attempt", "delay"),
    [
        (REFUSED, 1, 0.025),
        (REFUSED, 2, 0.05),
        (REFUSED, 3, 0.1),
        (REFUSED, 9, 6.4),
        (REFUSED, 10, 10.0),
        (REFUSED, 61, 10.0),
        (REFUSED, 10**6, 10.0),
        (status(500, request=READ), 1, 0.025),
        (status(408, request=READ), 1, 0.025),
        (THROTTLED, 1, 0.5),
        (THROTTLED, 2, 1.0),
        (THROTTLED, 5, 8.0),
        (THROTTLED, 6, 10.0),
        (THROTTLED, 10**6, 10.0),
        (status(425), 1, 0.5),
        (status(503, request=READ), 1, 0.5),
    ],
)
def test_growing_delay(error, attempt, delay):
    """The wait doubles with each attempt up to `max_delay`, and begins higher where the service is throttled."""
    assert delay == RetryPolicy(random=lambda: 0.5).delay(attempt, error, 0.0)


@pytest.mark.parametrize(("number", "delay"), [(0.0, 0.0), (0.25, 0.0125), (0.5, 0.025), (0.999, 0.04995)])
def test_full_jitter(number, delay):
    """The wait is random between 0 and its bound."""
    assert pytest.approx(delay) == RetryPolicy(random=lambda: number).delay(1, REFUSED, 0.0)


def test_own_random_numbers():
    """By default the jitter is random."""
    policy = RetryPolicy()
    delays = {policy.delay(1, REFUSED, 0.0) for _ in range(50)}
    assert len(delays) > 1
    assert all(0 <= delay < 0.05 for delay in delays)


def test_own_settings():
    """Each bound of the wait is the policy's own."""
    policy = RetryPolicy(base_delay=2, throttled_delay=3, max_delay=5, random=lambda: 1.0)
    assert [2, 4, 5, 5] == [policy.delay(attempt, REFUSED, 0.0) for attempt in (1, 2, 3, 4)]
    assert [3, 5, 5] == [policy.delay(attempt, THROTTLED, 0.0) for attempt in (1, 2, 3)]


@pytest.mark.parametrize("field", ["base_delay", "throttled_delay", "max_delay"])
def test_largest_numbers(field):
    """The largest numbers a policy takes overflow nowhere."""
    policy = RetryPolicy(random=lambda: 1.0, **{field: 1.7e308})
    for attempt in (1, 2, 1000, 10**6, 10**400):
        for error in (REFUSED, THROTTLED):
            assert 0 <= policy.delay(attempt, error, 0.0) <= policy.max_delay


@pytest.mark.parametrize("code", [425, 429, 503])
@pytest.mark.parametrize(
    ("asked", "delay"), [("0", 0.05), ("5", 5.05), ("120", 120.05), ("121", None), ("9" * 30, None)]
)
def test_retry_after(code, asked, delay):
    """What the service asks is waited and a little more; longer than `max_retry_after` is not waited at all."""
    assert delay == RetryPolicy(random=lambda: 0.5).delay(1, status(code, asked), 0.0)


@pytest.mark.parametrize(("number", "delay"), [(0.0, 5.0), (0.01, 5.01), (0.05, 5.05), (0.5, 5.05), (0.999, 5.05)])
def test_jitter_beside_retry_after(number, delay):
    """The little more is random and at most `base_delay`."""
    assert pytest.approx(delay) == RetryPolicy(random=lambda: number).delay(1, status(429, "5"), 0.0)


def test_retry_after_of_a_read():
    """A read waits what any failure that passes asks."""
    assert 7.0 == RetryPolicy(random=lambda: 0.0).delay(1, status(500, "7", READ), 0.0)


@pytest.mark.parametrize(("most", "delay"), [(5, 5.0), (4.999, None), (0, None)])
def test_own_max_retry_after(most, delay):
    """`max_retry_after` may be waited, and no more."""
    assert delay == RetryPolicy(max_retry_after=most, random=lambda: 0.0).delay(1, status(429, "5"), 0.0)


def test_retry_after_too_long_costs_nothing():
    """Where the policy gives up the budget is left alone."""
    budget = RetryBudget()
    assert None is decide(RetryPolicy(), budget, status(429, "121"), attempt=1, elapsed=0.0, timeout=1000.0)
    assert 10 == budget.tokens


# ---------------------------------------------------------------- a policy of one's own


class Asked(RetryPolicy):
    """A policy that says always the same, and writes down what it was asked."""

    def __init__(self, answer: Any, **settings: Any) -> None:
        super().__init__(**settings)
        object.__setattr__(self, "answer", answer)
        object.__setattr__(self, "questions", [])

    def delay(self, attempt: int, failure: CloudwareError, elapsed: float) -> float | None:
        self.questions.append((attempt, failure, elapsed))
        return self.answer


GOOD_DELAYS = {
    "none": (None, None),
    "0": (0, 0.0),
    "a whole number": (5, 5.0),
    "a fraction": (0.5, 0.5),
    "a negative number": (-3, 0.0),
    "minus infinity": (-math.inf, 0.0),
    "infinity": (math.inf, None),
    "a number too large for a float": (10**400, None),
    "a negative number too large for a float": (-(10**400), 0.0),
}
BAD_DELAYS = {
    "not a number": math.nan,
    "true": True,
    "false": False,
    "a string": "5",
    "a list": [5],
    "a decimal": Decimal(5),
    "a complex number": 5j,
    "an object": object(),
}


@pytest.mark.parametrize(("given", "delay"), **cases(GOOD_DELAYS))
def test_overridden_delay(given, delay):
    """What a policy of one's own says is waited, but never less than 0 and never past the timeout."""
    assert delay == decide(Asked(given), RetryBudget(), REFUSED, attempt=1, elapsed=0.0, timeout=30.0)


@pytest.mark.parametrize("given", **cases(BAD_DELAYS))
@pytest.mark.parametrize("error", [REFUSED, status(500)], ids=["not sent", "unknown"])
def test_bad_overridden_delay(given, error):
    """What is no number of seconds is a wrong setting, which costs nothing of the budget."""
    policy = Asked(given, resend_unknown=True)
    budget = RetryBudget()
    with pytest.raises(ConfigurationError, match=r"^RetryPolicy\.delay\(\) must give seconds or None$") as caught:
        decide(policy, budget, error, attempt=1, elapsed=0.0, timeout=30.0)

    assert (None, None) == (caught.value.__cause__, caught.value.__context__)
    assert 10 == budget.tokens


class Raising(RetryPolicy):
    def delay(self, attempt: int, failure: CloudwareError, elapsed: float) -> float | None:
        raise ZeroDivisionError


def test_overridden_delay_that_raises():
    """What an overridden `delay` raises is a wrong setting, with the exception behind it, and costs nothing."""
    budget = RetryBudget()
    with pytest.raises(ConfigurationError, match=r"^RetryPolicy\.delay\(\) raised ZeroDivisionError$") as caught:
        decide(Raising(), budget, REFUSED, attempt=1, elapsed=0.0, timeout=30.0)
    assert isinstance(caught.value.__cause__, ZeroDivisionError)
    assert 10 == budget.tokens


class Scripted:
    """A backend whose requests end as it is told, and where no time passes."""

    def __init__(self, *ends: Failure) -> None:
        self.ends = list(ends)

    def clock(self) -> float:
        return 0.0

    async def sleep(self, seconds: float) -> bool:
        return True

    async def exchange(self, request: Any, **limits: float) -> Failure:
        return self.ends.pop(0)


def test_bad_overridden_delay_after_an_unknown_attempt():
    """It is not forgotten over it that an attempt may have gone out, and how many there were."""

    class Unsure(RetryPolicy):
        def delay(self, attempt, failure, elapsed):
            return 0.0 if attempt == 1 else "soon"

    backend = Scripted(Failure(FailureKind.BROKEN, written=True), Failure(FailureKind.CONNECT, written=False))
    calling = Calling(Opening(lambda: backend), Unsure(resend_unknown=True), RetryBudget(), 30.0, 5.0)
    with pytest.raises(ConfigurationError) as caught:
        drive(call(calling, SEND, lambda answer: read_receipt(answer, SEND)))
    assert (True, 2) == (caught.value.may_have_been_sent, caught.value.attempts)


def test_what_a_policy_is_asked():
    """A policy of one's own is told the attempt, the failure and the time."""
    policy = Asked(1.0)
    decide(policy, RetryBudget(), THROTTLED, attempt=2, elapsed=3.0, timeout=30.0)
    assert [(2, THROTTLED, 3.0)] == policy.questions


@pytest.mark.parametrize(
    ("error", "attempt"),
    [(status(500), 1), (failure(FailureKind.BROKEN, written=True), 1), (status(400), 1), (REFUSED, 3), (REFUSED, 4)],
    ids=["unknown status", "broken", "rejected", "last attempt", "one more"],
)
def test_what_a_policy_is_not_asked(error, attempt):
    """A policy of one's own is not asked where nothing may be repeated, so it cannot text anybody twice."""
    policy = Asked(0.0)
    assert None is decide(policy, RetryBudget(), error, attempt=attempt, elapsed=0.0, timeout=30.0)
    assert [] == policy.questions


def test_overridden_delay_and_the_budget():
    """A policy of one's own ends at the budget too."""
    assert None is decide(Asked(0.0), RetryBudget(tokens=0.0), REFUSED, attempt=1, elapsed=0.0, timeout=30.0)


def test_extended_delay():
    """A policy of one's own may build on the usual answer."""

    class Later(RetryPolicy):
        def delay(self, attempt, failure, elapsed):
            usual = super().delay(attempt, failure, elapsed)
            return None if usual is None else usual + 1

    policy = Later(random=lambda: 0.5)
    assert 1.025 == decide(policy, RetryBudget(), REFUSED, attempt=1, elapsed=0.0, timeout=30.0)


def test_settings_in_a_subclass():
    """A policy of one's own may add settings with attrs."""

    @attrs.frozen
    class Fixed(RetryPolicy):
        seconds: float = attrs.field(default=2.0, kw_only=True)

        def delay(self, attempt, failure, elapsed):
            return self.seconds

    assert 2.0 == decide(Fixed(), RetryBudget(), REFUSED, attempt=1, elapsed=0.0, timeout=30.0)
    assert 3.0 == decide(Fixed(5, seconds=3.0), RetryBudget(), REFUSED, attempt=4, elapsed=0.0, timeout=30.0)


# ---------------------------------------------------------------- the settings

SECONDS = ("base_delay", "throttled_delay", "max_delay", "max_retry_after")
BAD_SECONDS = {
    "negative": -1,
    "negative and small": -0.001,
    "not a number": math.nan,
    "infinity": math.inf,
    "minus infinity": -math.inf,
    "too large for a float": 10**400,
    "true": True,
    "none": None,
    "a string": "1",
    "a decimal": Decimal(1),
    "a complex number": 1j,
    "a list": [1],
}
BAD_ATTEMPTS = {
    "0": 0,
    "negative": -1,
    "a fraction": 3.0,
    "infinity": math.inf,
    "true": True,
    "none": None,
    "a string": "3",
    "a list": [3],
}


@pytest.mark.parametrize("value", [0, 0.0, 1, 0.5, 86400, 1e308])
@pytest.mark.parametrize("field", SECONDS)
def test_good_seconds(field, value):
    """A setting in seconds is any finite number from 0."""
    assert value == getattr(RetryPolicy(**{field: value}), field)


@pytest.mark.parametrize("value", **cases(BAD_SECONDS))
@pytest.mark.parametrize("field", SECONDS)
def test_bad_seconds(field, value):
    """Anything else is refused by the setting's name."""
    with pytest.raises(ConfigurationError, match=rf"^RetryPolicy\({field}=…\) takes seconds, finite and not negative$"):
        RetryPolicy(**{field: value})


@pytest.mark.parametrize("value", [1, 2, 10**9])
def test_good_attempts(value):
    """`max_attempts` is a whole number from 1."""
    assert value == RetryPolicy(max_attempts=value).max_attempts


@pytest.mark.parametrize("value", **cases(BAD_ATTEMPTS))
def test_bad_attempts(value):
    """Any other `max_attempts` is refused."""
    with pytest.raises(ConfigurationError, match=r"^RetryPolicy\(max_attempts=…\) takes a whole number from 1$"):
        RetryPolicy(max_attempts=value)


@pytest.mark.parametrize("value", [None, 0, 1, "yes", [], 1.0])
def test_bad_flag(value):
    """Nobody is texted twice because of a value that only looks true."""
    with pytest.raises(ConfigurationError, match=r"^RetryPolicy\(resend_unknown=…\) takes True or False$"):
        RetryPolicy(resend_unknown=value)


def test_defaults():
    """The defaults are the documented ones."""
    assert {
        "max_attempts": 3,
        "base_delay": 0.05,
        "throttled_delay": 1.0,
        "max_delay": 20.0,
        "max_retry_after": 120.0,
        "resend_unknown": False,
    } == attrs.asdict(RetryPolicy(), filter=attrs.filters.exclude("random"))


def test_policy_is_a_value():
    """A policy is frozen, compares by its settings, says them, and can be copied and pickled."""
    policy = RetryPolicy(5)
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        policy.max_attempts = 6
    assert policy == RetryPolicy(max_attempts=5, random=lambda: 0.0) != RetryPolicy()
    assert hash(policy) == hash(RetryPolicy(max_attempts=5))
    assert repr(policy) == (
        "RetryPolicy(max_attempts=5, base_delay=0.05, throttled_delay=1.0, max_delay=20.0, "
        "max_retry_after=120.0, resend_unknown=False)"
    )
    assert policy == copy.deepcopy(policy) == pickle.loads(pickle.dumps(policy))
    assert 6 == attrs.evolve(policy, max_attempts=6).max_attempts


# ---------------------------------------------------------------- the budget


def test_budget_of_an_outage():
    """10 retries, and then none."""
    budget = RetryBudget()
    assert [True] * 10 + [False] * 5 == [budget.spend() for _ in range(15)]


def test_budget_pays_back():
    """Two successes pay for one retry."""
    budget = RetryBudget(tokens=0.0)
    budget.succeed()
    assert not budget.spend()
    budget.succeed()
    assert budget.spend()
    assert not budget.spend()


def test_budget_is_capped():
    """Successes never pay for more than 10 retries, however many they are."""
    budget = RetryBudget(tokens=9.75)
    for _ in range(100):
        budget.succeed()
        assert 10 == budget.tokens


def test_budget_bounds_an_outage():
    """In an outage the retries of a client add 10 to its calls, not three for one."""
    policy, budget = RetryPolicy(random=lambda: 0.0), RetryBudget()
    attempts = 0
    for _ in range(1000):
        attempt = 1
        while decide(policy, budget, REFUSED, attempt=attempt, elapsed=0.0, timeout=30.0) is not None:
            attempt += 1
        attempts += attempt
    assert 1010 == attempts


def test_decision_leaves_the_error_alone():
    """The decision changes nothing of the error."""
    error = APIConnectionError("no answer")
    before = json.dumps(vars(error))
    assert None is decide(RetryPolicy(), RetryBudget(), error, attempt=1, elapsed=0.0, timeout=30.0)
    assert before == json.dumps(vars(error))
