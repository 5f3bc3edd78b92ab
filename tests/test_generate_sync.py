"""The blocking client is what the generator writes, to the letter."""

from __future__ import annotations

import inspect
import re
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

from cloudware_async import AsyncCloudware, Cloudware

ROOT = Path(__file__).parents[1]
TOOL = runpy.run_path(str(ROOT / "tools" / "generate_sync.py"))
CLIENT = 'class AsyncCloudware:\n    """Doc."""\n    {}\n'


SOURCE = (ROOT / "cloudware_async" / "_client.py").read_text(encoding="utf-8")
TARGET = (ROOT / "cloudware_async" / "_sync.py").read_text(encoding="utf-8")


def test_the_file_is_what_is_generated():
    """The whole file is compared: source and twin cannot drift apart."""
    assert TOOL["formatted"](TOOL["generate"](SOURCE)) == TARGET


def test_check():
    """`--check` writes nothing, and ends well if there is nothing to write."""
    tool = [sys.executable, str(ROOT / "tools" / "generate_sync.py"), "--check"]
    assert (0, "", "") == (
        (done := subprocess.run(tool, capture_output=True, text=True, check=False)).returncode,
        done.stdout,
        done.stderr,
    )


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("timeout: float = 30.0,", "timeout: float = 31.0,"),
        ('"""Send a text.', '"""Send one text.'),
        ("in_flight: int = 20,", "in_flight: int = 20, order: bool = True,"),
        ("async def queue(", "async def enqueue("),
    ],
    ids=["a default", "a docstring", "a parameter", "a method"],
)
def test_drift_is_seen(before, after):
    """Whatever changes in a signature or a docstring changes what is generated."""
    assert before in SOURCE
    assert TOOL["generate"](SOURCE) != TOOL["generate"](SOURCE.replace(before, after))


REFUSED = {
    "*args": 'async def send(self, *texts: str) -> None: "Doc."',
    "**kwargs": 'async def send(self, **options: str) -> None: "Doc."',
    "no docstring": "async def send(self, to: str) -> None: ...",
    "no annotation": 'async def send(self, to) -> None: "Doc."',
    "no return annotation": 'async def send(self, to: str): "Doc."',
    "a decorator": '@property\n    def name(self) -> str: "Doc."',
    "no annotation of a keyword": 'async def send(self, *, to) -> None: "Doc."',
    "a static method": '@staticmethod\n    async def send(to: str) -> None: "Doc."',
    "a class method": '@classmethod\n    async def send(cls, to: str) -> None: "Doc."',
    "a plain method of another kind": 'def name(self) -> str: "Doc."',
    "a plain iterator": 'def stream(self) -> AsyncIterator[str]: "Doc."',
    "an async generator": 'async def stream(self) -> AsyncIterator[str]:\n        "Doc."\n        yield "text"',
    "positional-only parameters": 'async def send(self: Self, to: str, /, message: str) -> None: "Doc."',
    "no self": 'async def send() -> None: "Doc."',
    "*args of the constructor": "def __init__(self, *tokens: str) -> None: ...",
}


@pytest.mark.parametrize("method", REFUSED.values(), ids=REFUSED)
def test_what_it_does_not_translate_is_refused(method):
    """Nothing slips through half translated."""
    with pytest.raises(TOOL["RefusalError"]):
        TOOL["generate"](CLIENT.format(method))


@pytest.mark.parametrize("source", ["", "class Other: ...", CLIENT.format("") * 2], ids=["nothing", "another", "two"])
def test_there_must_be_a_client(source):
    """A source without the class, or with two of them, is refused."""
    with pytest.raises(TOOL["RefusalError"], match="there must be one class AsyncCloudware"):
        TOOL["generate"](source)


GENERATED = {
    "a coroutine": (
        'async def send(self, to: str, *, from_: str | None = None) -> Receipt: "Doc."',
        "def send(self, to: str, *, from_: str | None=None) -> Receipt:",
        '"""Doc."""',
        "return drive(self._driven.send(to, from_=from_))",
    ),
    "a coroutine without a result": (
        'async def aclose(self) -> None: "Doc."',
        "def close(self) -> None:",
        '"""Doc."""',
        "drive(self._driven.aclose())",
    ),
    "a pager": (
        'def messages(self, *, to: str) -> AsyncMessagePager: "See AsyncMessagePager."',
        "def messages(self, *, to: str) -> MessagePager:",
        '"""See MessagePager."""',
        "return MessagePager(self._driven.messages(to=to))",
    ),
    "a view": (
        'def with_options(self, *, from_: str) -> Self: "Doc."',
        "def with_options(self, *, from_: str) -> Self:",
        '"""Doc."""',
        "return self._wrap(self._driven.with_options(from_=from_))",
    ),
}


@pytest.mark.parametrize(("method", "signature", "docstring", "statement"), GENERATED.values(), ids=GENERATED)
def test_what_is_generated(method, signature, docstring, statement):
    """Each kind of method becomes one that drives it."""
    written = f"\n    {signature}\n        {docstring}\n        {statement}\n"
    assert TOOL["generate"](CLIENT.format(method)).endswith(written)


def public(client: type) -> dict[str, inspect.Signature]:
    return {
        name: inspect.signature(method)
        for name, method in inspect.getmembers(client, inspect.isfunction)
        if not name.startswith("_")
    }


def test_the_twins_have_the_same_methods_and_parameters():
    """Every method has a twin whose parameters have the same names, kinds, defaults and types."""
    asynchronous, blocking = public(AsyncCloudware), public(Cloudware)
    assert {name.replace("aclose", "close") for name in asynchronous} == set(blocking)
    for name, signature in [*asynchronous.items(), ("__init__", inspect.signature(AsyncCloudware.__init__))]:
        twin = inspect.signature(getattr(Cloudware, name.replace("aclose", "close")))
        assert list(signature.parameters.values()) == list(twin.parameters.values()), name


# what there is on an event loop alone
ASYNC_WORDS = re.compile(
    r"\b(a?wait|await\w*|async\w*|coroutine\w*|trio|aiohttp\S*|cancellation|aclose|(?<!no )event loop)\b"
)


@pytest.mark.parametrize("name", ["__class__", *public(Cloudware)])
def test_docstrings_of_the_twin(name):
    """The twin's words are of its own world, and every method has some."""
    docstring = inspect.getdoc(Cloudware if name == "__class__" else getattr(Cloudware, name))
    assert docstring
    assert [] == [match[0] for match in ASYNC_WORDS.finditer(re.sub(r"\bwait for\b|every wait\b", "", docstring))]
    assert "Async" not in docstring


def test_private_methods_have_no_twin():
    """What begins with an underscore stays inside."""
    method = 'async def _send(self, to: str) -> None: "Doc."'
    assert "_send" not in TOOL["generate"](CLIENT.format(method))
