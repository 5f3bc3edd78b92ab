"""The promised names, as they were promised."""

from __future__ import annotations

import inspect
from pathlib import Path

import attrs
import pytest

import cloudware_async
from cloudware_async import (
    AsyncCloudware,
    AsyncMessagePager,
    BulkReport,
    Cloudware,
    Draft,
    Message,
    MessagePager,
    Page,
    Receipt,
    RetryPolicy,
    SendResult,
)

# the names that are promised; taking one away breaks somebody's code
PROMISED = [
    "AsyncCloudware",
    "AsyncMessagePager",
    "Cloudware",
    "MessagePager",
    "RetryPolicy",
    "BulkReport",
    "Draft",
    "Message",
    "Page",
    "Receipt",
    "SendResult",
    "CloudwareError",
    "ConfigurationError",
    "InvalidArgumentError",
    "APIConnectionError",
    "APITimeoutError",
    "APIStatusError",
    "BadRequestError",
    "AuthenticationError",
    "PermissionDeniedError",
    "NotFoundError",
    "ConflictError",
    "UnprocessableEntityError",
    "RateLimitError",
    "ServerError",
    "APIResponseError",
    "PaginationError",
    "WebhookError",
    "WebhookAuthenticationError",
    "WebhookPayloadError",
]
SIGNATURES = {
    AsyncCloudware: (
        "access_token=None, *, base_url=None, timeout=30.0, connect_timeout=5.0, retry=…, from_=None, "
        "max_connections=100, http_client=None"
    ),
    AsyncCloudware.send: "self, to, message, *, from_=None",
    AsyncCloudware.queue: "self, to, message, *, from_=None",
    AsyncCloudware.messages: (
        "self, *, device_id=None, phone=None, to=None, from_=None, message=None, limit=None, cursor=None"
    ),
    AsyncCloudware.send_many: "self, drafts, *, in_flight=20, via='send', on_result=None",
    AsyncCloudware.with_options: "self, *, access_token=UNSET, from_=UNSET, timeout=UNSET, retry=UNSET",
    AsyncCloudware.aclose: "self",
    Cloudware: (
        "access_token=None, *, base_url=None, timeout=30.0, connect_timeout=5.0, retry=…, from_=None, "
        "max_connections=100, http_client=None"
    ),
    Cloudware.send: "self, to, message, *, from_=None",
    Cloudware.queue: "self, to, message, *, from_=None",
    Cloudware.messages: (
        "self, *, device_id=None, phone=None, to=None, from_=None, message=None, limit=None, cursor=None"
    ),
    Cloudware.send_many: "self, drafts, *, in_flight=20, via='send', on_result=None",
    Cloudware.with_options: "self, *, access_token=UNSET, from_=UNSET, timeout=UNSET, retry=UNSET",
    Cloudware.close: "self",
    AsyncMessagePager.pages: "self",
    AsyncMessagePager.read_ahead: "self",
    MessagePager.pages: "self",
    MessagePager.read_ahead: "self",
    RetryPolicy.delay: "self, attempt, failure, elapsed",
    Draft: "to, message, from_=None",
    Message: "type, from_, to, message, message_id=None, created_at=None, sent_at=None, extra=NOTHING",
    Receipt: ("id=None, status=None, name=None, description=None, created_at=None, updated_at=None, extra=NOTHING"),
    Page: "messages, query=None, cursor=''",
    SendResult: "draft, receipt=None, error=None",
    BulkReport: "results",
}
# each may be asked for by its name, and is no method
PROPERTIES = {
    AsyncMessagePager: {"cursor", "done"},
    MessagePager: {"cursor", "done"},
    Message: {"received"},
    BulkReport: {"accepted", "rejected", "unknown", "not_sent"},
}
# what `async with`, `async for`, `with` and `for` ask for
PROTOCOLS = {
    AsyncCloudware: {"__aenter__", "__aexit__"},
    Cloudware: {"__enter__", "__exit__"},
    AsyncMessagePager: {"__aiter__", "__anext__"},
    MessagePager: {"__iter__", "__next__"},
}
FIELDS = {
    Receipt: ["id", "status", "name", "description", "created_at", "updated_at", "extra"],
    Message: ["type", "from_", "to", "message", "message_id", "created_at", "sent_at", "extra"],
    Draft: ["to", "message", "from_"],
    Page: ["messages", "query", "cursor"],
    SendResult: ["draft", "receipt", "error"],
    BulkReport: ["results"],
}


def written(function: object) -> str:
    """A signature without its types."""
    signature = inspect.signature(function)  # type: ignore[arg-type]
    parameters = [parameter.replace(annotation=inspect.Parameter.empty) for parameter in signature.parameters.values()]
    text = str(inspect.Signature(parameters))[1:-1]
    return text.replace(repr(RetryPolicy()), "…")


@pytest.mark.parametrize(
    ("function", "promised"), SIGNATURES.items(), ids=[function.__qualname__ for function in SIGNATURES]
)
def test_signatures(function, promised):
    """Parameters, their order and their defaults are those that were promised."""
    assert promised == written(function)


@pytest.mark.parametrize(("model", "fields"), FIELDS.items(), ids=[model.__name__ for model in FIELDS])
def test_fields(model, fields):
    """So are a model's fields."""
    assert fields == [field.name for field in attrs.fields(model)]


@pytest.mark.parametrize("owner", PROPERTIES, ids=lambda owner: owner.__name__)
def test_properties(owner):
    """So is what is asked for without calling it."""
    assert {name for name, value in vars(owner).items() if isinstance(value, property)} == PROPERTIES[owner]


@pytest.mark.parametrize("owner", PROTOCOLS, ids=lambda owner: owner.__name__)
def test_protocols(owner):
    """A client is a context, and a pager an iterator, each in its own world alone."""
    protocols = {name for names in PROTOCOLS.values() for name in names}
    assert {name for name in protocols if hasattr(owner, name)} == PROTOCOLS[owner]


def test_retry_policy():
    """A policy's settings and their defaults are those that were promised; what else it takes is named."""
    parameters = inspect.signature(RetryPolicy).parameters
    promised = {
        "max_attempts": 3,
        "base_delay": 0.05,
        "throttled_delay": 1.0,
        "max_delay": 20.0,
        "max_retry_after": 120.0,
        "resend_unknown": False,
    }
    assert list(promised.items()) == [(name, parameters[name].default) for name in list(parameters)[: len(promised)]]
    assert {parameter.kind for parameter in list(parameters.values())[len(promised) :]} == {
        inspect.Parameter.KEYWORD_ONLY
    }
    assert attrs.asdict(RetryPolicy(), filter=attrs.filters.include(*promised)) == promised


def test_every_public_name():
    """`__all__` is sorted, and it is what was promised and all that there is."""
    assert sorted(PROMISED) == cloudware_async.__all__
    # a wing that was imported is there as well
    here = {name for name, value in vars(cloudware_async).items() if name[0] != "_" and not inspect.ismodule(value)}
    assert here == set(PROMISED)


@pytest.mark.parametrize("name", PROMISED)
def test_documented(name):
    """A public name says what it is, and so does each method and property of it."""
    owner = getattr(cloudware_async, name)
    assert owner.__doc__
    for member, value in vars(owner).items():
        if not member.startswith("_") and (inspect.isfunction(value) or isinstance(value, property)):
            assert inspect.getdoc(value), f"{name}.{member}"


@pytest.mark.parametrize("model", FIELDS, ids=lambda model: model.__name__)
def test_documented_fields(model):
    """A model that is more than its parts says what each field is."""
    described = [field for field in FIELDS[model] if f"    {field}: " in model.__doc__]
    assert described == (FIELDS[model] if "Attributes:" in model.__doc__ else [])


def test_the_package_is_typed():
    """A type checker finds its types."""
    assert Path(cloudware_async.__file__).with_name("py.typed").is_file()
