"""The tree of errors: as it is drawn, catchable as promised, and whole after a pickle."""

from __future__ import annotations

import copy
import pickle
import re
from typing import Any

import pytest

import cloudware_async
from cloudware_async import (
    APIConnectionError,
    APIResponseError,
    APIStatusError,
    APITimeoutError,
    CloudwareError,
    ConfigurationError,
    InvalidArgumentError,
    Message,
    Page,
    PaginationError,
    _errors,
)
from cloudware_async._wire import Answer, Place, error_from_status, messages_request, read_base_url, read_token

# what is caught as something of Python's own as well; no other error is
ALSO = {
    ConfigurationError: {ValueError},
    InvalidArgumentError: {ValueError},
    APITimeoutError: {TimeoutError, OSError},
}
# `.status_code` and the like, as the drawing names them
ATTRIBUTE = re.compile(r"\.([a-z_]+)")
READ = messages_request(read_base_url("http://localhost"), read_token("token"), Place())


def tree(error: type[CloudwareError], depth: int = 0) -> list[tuple[int, type[CloudwareError]]]:
    """A class and those below it, in the order of their definition, each with its depth."""
    below = [child for child in error.__subclasses__() if child.__module__ == _errors.__name__]
    return [(depth, error), *(row for child in below for row in tree(child, depth + 1))]


def drawing() -> list[tuple[int, str, str]]:
    """Each line of the drawing: its depth, the class's name, and the words beside it."""
    lines = re.findall(r"^ {4}([│├└─ ]*)(\w+)(.*)$", _errors.__doc__, re.MULTILINE)
    return [(len(branches) // 4, name, words.strip()) for branches, name, words in lines]


ERRORS = [error for _, error in tree(CloudwareError)]
every_error = pytest.mark.parametrize("error_class", ERRORS, ids=lambda error: error.__name__)
every_protocol = pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))


def specimen(error_class: type[CloudwareError]) -> CloudwareError:
    """An error none of whose attributes is the usual one."""
    more: dict[str, Any] = {}
    if issubclass(error_class, APIStatusError):
        more = {"status_code": 429, "body": "no", "retry_after": 5.0, "headers": {"date": "today"}}
    if issubclass(error_class, APIResponseError):
        more = {"place": "data[3].to"}
    error = error_class("What happened, and what to do.", may_have_been_sent=True, **more)
    error.attempts, error.cursor, error._passing = 3, "cursor", True
    if isinstance(error, APIResponseError):
        error.page = Page((Message("message_sent", "1", "2", "Hello", extra={"parts": [1]}),), "to=2", "next")
        error.page_cursor = "this"
    return error


def assert_same(error: CloudwareError, other: CloudwareError) -> None:
    assert type(error) is type(other)
    assert (error.args, str(error), vars(error)) == (other.args, str(other), vars(other))


# ---------------------------------------------------------------- the tree


def test_drawing():
    """The drawing at the top of the file is the tree: the same classes, in the same order, at the same depth."""
    assert [(depth, error.__name__) for depth, error in tree(CloudwareError)] == [row[:2] for row in drawing()]


def test_attributes_in_the_drawing():
    """Each attribute that the drawing names is there from the beginning."""
    named = [(name, attribute) for _, name, words in drawing() for attribute in ATTRIBUTE.findall(words)]
    assert ("CloudwareError", "may_have_been_sent") in named
    assert ("APIStatusError", "retry_after") in named
    for name, attribute in named:
        assert hasattr(getattr(_errors, name)("text"), attribute), name


def test_statuses_in_the_drawing():
    """Each status that the drawing names is that class's, and no other class of the tree has one."""
    drawn = {name: words for _, name, words in drawing() if re.match(r"[45]", words)}
    given = {type(error_from_status(Answer(status, [], b""), READ)).__name__ for status in range(300, 600)}
    assert {*drawn} | {"APIStatusError"} == given
    for name, words in drawn.items():
        status = int(words.replace("xx", "00"))
        assert name == type(error_from_status(Answer(status, [], b""), READ)).__name__


@every_error
def test_relations_to_pythons_own(error_class):
    """An error is also what Python calls its kind, where the drawing says so, and nothing else."""
    own = {base for base in error_class.__mro__ if base.__module__ == "builtins"} - {object, BaseException, Exception}
    assert ALSO.get(error_class, set()) == own
    words = next(words for _, name, words in drawing() if name == error_class.__name__)
    assert [base.__name__ for base in own if base is not OSError] == re.findall(r"also a (\w+)", words)


def test_catching():
    """What a caller writes who knows only Python's own exceptions catches ours."""
    for error in (ConfigurationError("text"), InvalidArgumentError("text")):
        with pytest.raises(ValueError, match="text"):
            raise error
    with pytest.raises(TimeoutError, match="text"):
        raise APITimeoutError("text")
    with pytest.raises(APIConnectionError, match="text"):
        raise APITimeoutError("text")


@every_error
def test_public(error_class):
    """Every error can be imported from the package, and is documented."""
    assert error_class is getattr(cloudware_async, error_class.__name__)
    assert error_class.__doc__


# ---------------------------------------------------------------- one error


@every_error
def test_fresh_error(error_class):
    """An error knows nothing that it was not told."""
    error = error_class("text")
    expected = {"may_have_been_sent": False, "attempts": 0, "cursor": None, "_passing": False}
    if issubclass(error_class, APIStatusError):
        expected |= {"status_code": 0, "body": None, "retry_after": None, "headers": {}}
    if issubclass(error_class, APIResponseError):
        expected |= {"place": None, "page": None, "page_cursor": None}
    assert ("text", ("text",), expected) == (str(error), error.args, vars(error))


def test_no_headers_in_common():
    """Two errors without headers do not share the mapping."""
    assert APIStatusError("a").headers is not APIStatusError("b").headers


@every_error
def test_repr(error_class):
    """An error is shown by its class and text alone."""
    assert f"{error_class.__name__}('What happened, and what to do.')" == repr(specimen(error_class))


@every_protocol
@every_error
def test_pickle(error_class, protocol):
    """An error survives a pickle of any protocol with all that it knows."""
    error = specimen(error_class)
    assert_same(error, pickle.loads(pickle.dumps(error, protocol)))


@pytest.mark.parametrize("duplicate", [copy.copy, copy.deepcopy])
@every_error
def test_copy(error_class, duplicate):
    """An error survives a copy with all that it knows."""
    error = specimen(error_class)
    assert_same(error, duplicate(error))


@every_protocol
@every_error
def test_pickle_of_a_reworded_error(error_class, protocol):
    """An error whose text was extended later survives as well."""
    error = specimen(error_class)
    error.args = (f"{error} An earlier attempt may have gone out.",)
    assert "What happened, and what to do. An earlier attempt may have gone out." == str(error)
    assert_same(error, pickle.loads(pickle.dumps(error, protocol)))


def test_pickle_of_a_raised_error():
    """An error that was raised and caught survives too, without its traceback."""
    with pytest.raises(PaginationError) as caught:
        raise specimen(PaginationError)
    again = pickle.loads(pickle.dumps(caught.value))
    assert_same(caught.value, again)
    assert None is again.__traceback__


def test_page_of_a_pickled_error():
    """What could be read of a page is still there after a pickle, with what equality leaves out."""
    error = specimen(APIResponseError)
    again = pickle.loads(pickle.dumps(error))
    assert {"parts": [1]} == again.page.messages[0].extra
