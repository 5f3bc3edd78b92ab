"""What goes in and what comes out: values that do not change, compare by what is documented, and show little."""

from __future__ import annotations

import copy
import itertools
import pickle
from datetime import UTC, datetime
from typing import Any

import attrs
import pytest

from cloudware_async import (
    APIResponseError,
    BulkReport,
    CloudwareError,
    ConfigurationError,
    Draft,
    InvalidArgumentError,
    Message,
    Page,
    RateLimitError,
    Receipt,
    SendResult,
)
from cloudware_async._wire import (
    Answer,
    Failure,
    FailureKind,
    error_from_failure,
    error_from_status,
    read_base_url,
    read_receipt,
    read_token,
    send_request,
)

MOMENT = datetime(2020, 1, 1, tzinfo=UTC)
MESSAGE = Message(
    "message_received", "1234567890", "2348012345678", "Hello, World!", "77", MOMENT, MOMENT, {"a": 1, "b": "secret"}
)
RECEIPT = Receipt("12345", "success", "Example", "This is an example.", MOMENT, MOMENT, {"a": 1})
PAGE = Page((MESSAGE, MESSAGE), "phone=+40722000000", "cursor")
DRAFT = Draft("2348012345678", "Hello", "CLOUDWARE")
RESULT = SendResult(DRAFT, receipt=RECEIPT)
REPORT = BulkReport((RESULT, SendResult(DRAFT, error=RateLimitError("Too many requests"))))
MODELS = {type(model).__name__: model for model in (MESSAGE, RECEIPT, PAGE, DRAFT, RESULT, REPORT)}

every_model = pytest.mark.parametrize("model", MODELS.values(), ids=MODELS)
SEND = send_request(read_base_url("http://localhost"), read_token("token"), "/sms/send", "12345", "Hello", None)


# ---------------------------------------------------------------- values


@every_model
def test_frozen(model):
    """No field of a model can be set again or taken away."""
    for field in attrs.fields(type(model)):
        with pytest.raises(attrs.exceptions.FrozenInstanceError):
            setattr(model, field.name, getattr(model, field.name))
        with pytest.raises(attrs.exceptions.FrozenInstanceError):
            delattr(model, field.name)


@every_model
def test_slotted(model):
    """A model has no room for anything else, so a misspelt name is an error."""
    assert not hasattr(model, "__dict__")
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        model.mesage = "Hello"


@every_model
def test_duplicates(model):
    """A model is equal to its copies, has their hash, and is evolved into another one."""
    for other in (copy.copy(model), copy.deepcopy(model), attrs.evolve(model)):
        assert type(model) is type(other)
        if model is REPORT:  # an error is equal to itself alone
            assert repr(model) == repr(other)
        else:
            assert (model, hash(model), attrs.asdict(model)) == (other, hash(other), attrs.asdict(other))


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@every_model
def test_pickle(model, protocol):
    """A model survives a pickle of any protocol, with what equality leaves out."""
    other = pickle.loads(pickle.dumps(model, protocol))
    assert (type(model), repr(model)) == (type(other), repr(other))
    if model is REPORT:
        assert str(model.results[1].error) == str(other.results[1].error)
    else:
        assert attrs.asdict(model) == attrs.asdict(other)


@pytest.mark.parametrize("model", [MESSAGE, RECEIPT], ids=["Message", "Receipt"])
def test_extra_is_no_part_of_equality(model):
    """What the documentation does not name makes no message or receipt another one, nor unhashable."""
    other = attrs.evolve(model, extra={"anything": ["else"]})
    assert (model, hash(model)) == (other, hash(other))
    assert 1 == len({model, other})


@pytest.mark.parametrize("model", [MESSAGE, RECEIPT, PAGE, DRAFT], ids=["Message", "Receipt", "Page", "Draft"])
def test_every_other_field_is_part_of_equality(model):
    """Whatever the documentation names makes another one."""
    for field in attrs.fields(type(model)):
        if field.name != "extra":
            assert model != attrs.evolve(model, **{field.name: None}), field.name


def test_no_extra_in_common():
    """Two messages or receipts do not share their extra."""
    assert Receipt().extra is not Receipt().extra
    assert Message("", "", "", "").extra is not Message("", "", "", "").extra


@pytest.mark.parametrize(
    ("type_", "received"),
    [
        ("message_received", True),
        ("message_sent", False),
        ("message_lost", False),
        ("", False),
        ("MESSAGE_RECEIVED", False),
    ],
)
def test_received(type_, received):
    """A message came in if its type says so, word for word."""
    assert received is Message(type_, "1", "2", "Hello").received


def test_optional_fields():
    """What the service may leave out is None, and a draft needs no sender."""
    assert (None, None, None, {}) == attrs.astuple(Message("message_sent", "1", "2", "Hello"))[4:]
    assert (None,) * 6 + ({},) == attrs.astuple(Receipt())
    assert (None, "") == attrs.astuple(Page(()))[1:]
    assert (None,) == attrs.astuple(Draft("12345", "Hello"))[2:]
    assert (None, None) == attrs.astuple(SendResult(DRAFT), recurse=False)[1:]


# ---------------------------------------------------------------- what they show

REPRS = {
    "Message": (
        "Message(type='message_received', from_=1234•••890, to=2348•••678, message=<13 characters>, message_id='77', "
        f"created_at={MOMENT!r}, sent_at={MOMENT!r}, extra=<2 keys>)"
    ),
    "Receipt": (
        "Receipt(id='12345', status='success', name=<7 characters>, description=<19 characters>, "
        f"created_at={MOMENT!r}, updated_at={MOMENT!r}, extra=<1 keys>)"
    ),
    "Page": f"Page(messages=({MESSAGE!r}, {MESSAGE!r}), query=<18 characters>, cursor=<6 characters>)",
    "Draft": "Draft(to=2348•••678, message=<5 characters>, from_=•••)",
    "SendResult": f"SendResult(draft={DRAFT!r}, receipt={RECEIPT!r}, error=None)",
    "BulkReport": "BulkReport(accepted=1, rejected=1, unknown=0, not_sent=0)",
}


@pytest.mark.parametrize("name", MODELS)
def test_repr(name):
    """A repr masks numbers and senders, shows texts by their length, and the undocumented by how much there is."""
    assert REPRS[name] == repr(MODELS[name])


def test_repr_of_what_is_absent():
    """What is not there is shown as None."""
    assert repr(Draft("12345", "")) == "Draft(to=•••, message=<0 characters>, from_=None)"
    assert repr(Receipt()) == (
        "Receipt(id=None, status=None, name=None, description=None, created_at=None, updated_at=None, extra=<0 keys>)"
    )


@pytest.mark.parametrize(
    "draft",
    [Draft(2348012345678, "Hello"), Draft("2348012345678", 5), Draft("2348012345678", b"Hello"), Draft(None, None, 5)],
    ids=["a number that is no string", "a message that is no string", "bytes", "all of it"],
)
def test_repr_of_a_wrong_draft(draft):
    """A draft that `send_many` will refuse can be shown all the same, for it stands in the report."""
    shown = repr(SendResult(draft, error=InvalidArgumentError("to must be a phone number")))
    assert shown.startswith("SendResult(draft=Draft(to=")
    assert "2348012345678" not in shown


def test_looking_inside():
    """`attrs.asdict` shows everything, on purpose."""
    assert {
        "type": "message_received",
        "from_": "1234567890",
        "to": "2348012345678",
        "message": "Hello, World!",
        "message_id": "77",
        "created_at": MOMENT,
        "sent_at": MOMENT,
        "extra": {"a": 1, "b": "secret"},
    } == attrs.asdict(MESSAGE)
    assert {"to": "2348012345678", "message": "Hello", "from_": "CLOUDWARE"} == attrs.asdict(DRAFT)


# ---------------------------------------------------------------- the report


def status(code: int, retry_after: str | None = None) -> CloudwareError:
    """The error of an answer to a send."""
    headers = [] if retry_after is None else [(b"Retry-After", retry_after.encode())]
    return error_from_status(Answer(code, headers, b""), SEND)


def failure(kind: FailureKind, *, written: bool) -> CloudwareError:
    """The error of a send without an answer."""
    return error_from_failure(Failure(kind, written=written), SEND)


def after_an_unknown_attempt(error: CloudwareError) -> CloudwareError:
    """The same, after another attempt of the same call that may have gone out."""
    error.may_have_been_sent = True
    return error


GROUPS: dict[str, tuple[Any, str]] = {
    "accepted": (None, "accepted"),
    **{str(code): (status(code), "rejected") for code in (400, 401, 403, 404, 405, 410, 413, 418, 422, 451, 499)},
    "400 with Retry-After": (status(400, "5"), "rejected"),
    "425": (status(425), "not_sent"),
    "429": (status(429), "not_sent"),
    "503 with Retry-After": (status(503, "5"), "not_sent"),
    **{str(code): (status(code), "unknown") for code in (100, 302, 408, 409, 500, 502, 503, 504, 999)},
    "a wrong argument": (InvalidArgumentError("to must be a phone number"), "not_sent"),
    "a wrong setting": (ConfigurationError("this client is closed"), "not_sent"),
    "an unreadable success": (read_receipt(Answer(200, [], b""), SEND), "unknown"),
    **{f"{kind.name}, not written": (failure(kind, written=False), "not_sent") for kind in FailureKind},
    "TIMEOUT, written": (failure(FailureKind.TIMEOUT, written=True), "unknown"),
    "BROKEN, written": (failure(FailureKind.BROKEN, written=True), "unknown"),
    "STRAY, written": (failure(FailureKind.STRAY, written=True), "unknown"),
    "429, after an unknown attempt": (after_an_unknown_attempt(status(429)), "unknown"),
    "400, after an unknown attempt": (after_an_unknown_attempt(status(400)), "unknown"),
    "a refused connection, after an unknown attempt": (
        after_an_unknown_attempt(failure(FailureKind.CONNECT, written=False)),
        "unknown",
    ),
}
RESULTS = {name: SendResult(DRAFT, RECEIPT if error is None else None, error) for name, (error, _) in GROUPS.items()}
GROUP_NAMES = ("accepted", "rejected", "unknown", "not_sent")


@pytest.mark.parametrize("name", GROUPS)
def test_group(name):
    """Each end is in its group and in no other."""
    report = BulkReport((RESULTS[name],))
    assert [GROUPS[name][1]] == [group for group in GROUP_NAMES if getattr(report, group)]
    assert (RESULTS[name],) == getattr(report, GROUPS[name][1])


def test_groups_are_a_partition():
    """Together the groups are all the results, each once, and each group is in the drafts' order."""
    report = BulkReport(tuple(RESULTS.values()))
    groups = [getattr(report, group) for group in GROUP_NAMES]

    assert len(RESULTS) == len({id(result) for result in itertools.chain(*groups)}) == sum(map(len, groups))
    places = {id(result): place for place, result in enumerate(report.results)}
    for group in groups:
        order = [places[id(result)] for result in group]
        assert sorted(order) == order


def test_same_result_twice():
    """Two drafts that are alike and end alike are two results."""
    assert 2 == len(BulkReport((RESULT, RESULT)).accepted)


def test_empty_report():
    """No drafts make a report of nothing."""
    report = BulkReport(())
    assert ((), (), (), ()) == (report.accepted, report.rejected, report.unknown, report.not_sent)
    assert "BulkReport(accepted=0, rejected=0, unknown=0, not_sent=0)" == repr(report)


def test_repr_of_a_report():
    """A report shows how many there are of each, however many they are."""
    counts = [sum(group == name for _, group in GROUPS.values()) for name in GROUP_NAMES]
    shown = ", ".join(f"{name}={count}" for name, count in zip(GROUP_NAMES, counts, strict=True))
    assert f"BulkReport({shown})" == repr(BulkReport(tuple(RESULTS.values())))


def test_pickled_group():
    """A result is in the same group after a pickle."""
    for name, result in RESULTS.items():
        report = BulkReport((pickle.loads(pickle.dumps(result)),))
        assert getattr(report, GROUPS[name][1]), name


def test_unreadable_success_is_unknown():
    """A 2xx that says nothing is no acceptance."""
    assert isinstance(RESULTS["an unreadable success"].error, APIResponseError)
