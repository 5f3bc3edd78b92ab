"""Write `cloudware_async/_sync.py`, the blocking client, from `_client.py`.

    python tools/generate_sync.py            writes the file
    python tools/generate_sync.py --check    exits with 1 if it is not what would be written

Rule 1: every public method of `AsyncCloudware` becomes one of `Cloudware`, with its signature and docstring spelled out
        and a body of one line, which drives the async method.
Rule 2: `*args`, `**kwargs`, a missing docstring, a missing annotation or a kind of method not known here is refused,
        so that nothing slips through half translated.
Rule 3: what is written is formatted with ruff, so the file is compared whole.
"""

from __future__ import annotations

import argparse
import ast
import re
import subprocess
import sys
from pathlib import Path

PACKAGE = Path(__file__).parent.parent / "cloudware_async"
SOURCE = PACKAGE / "_client.py"
TARGET = PACKAGE / "_sync.py"

HEADER = '''"""GENERATED from `_client.py` by `tools/generate_sync.py`: do not edit.

The blocking client: every method drives the async client's coroutine over a blocking backend, without an event loop.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, Self

from cloudware_async._backend import drive
from cloudware_async._client import UNSET
from cloudware_async._retry import RetryPolicy
from cloudware_async._sync_base import DrivenCloudware, MessagePager, SyncBase

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from cloudware_async._models import BulkReport, Draft, Receipt, SendResult

'''

# what is async in a signature or a docstring, and what it is in the blocking client
TRANSLATIONS = (
    (r"\bAsyncMessagePager\b", "MessagePager"),
    (r"\bAsyncCloudware\b", "Cloudware"),
    (r"httpx\.AsyncClient\b", "httpx.Client"),
    (r"async: on asyncio and on trio", "blocking: no event loop, in any thread"),
    (r", or is used from a second event loop", ""),
    (r"; what it returns is awaited if it can be", ""),
    (r"A cancellation or Ctrl-C cuts off", "So too on Ctrl-C; a second one cuts off"),
    (r"(?s), or an `aiohttp\.ClientSession`, of yours", " of yours"),
)
# the methods whose name or result is not the async one's
NAMES = {"aclose": "close"}
WRAPPED = {"MessagePager": "MessagePager({})", "Self": "self._wrap({})"}


class RefusalError(Exception):
    """The source has something that this generator does not translate."""


def translate(text: str) -> str:
    for pattern, replacement in TRANSLATIONS:
        text = re.sub(pattern, replacement, text)
    return text


def check(function: ast.FunctionDef | ast.AsyncFunctionDef) -> None:
    arguments = function.args
    if arguments.vararg or arguments.kwarg:
        raise RefusalError(f"{function.name}: *args and **kwargs hide parameters")
    if arguments.posonlyargs or not arguments.args or arguments.args[0].arg != "self":
        raise RefusalError(f"{function.name}: a method takes self, and no parameter by position only")
    if any(isinstance(node, ast.Yield | ast.YieldFrom) for node in ast.walk(function)):
        raise RefusalError(f"{function.name}: a generator is not driven")
    for argument in (*arguments.args[1:], *arguments.kwonlyargs):
        if argument.annotation is None:
            raise RefusalError(f"{function.name}: {argument.arg} has no annotation")
    if function.returns is None:
        raise RefusalError(f"{function.name} has no return annotation")
    if function.decorator_list:
        raise RefusalError(f"{function.name}: decorators are not translated")
    if function.name != "__init__" and ast.get_docstring(function) is None:
        raise RefusalError(f"{function.name} has no docstring")


def call_arguments(arguments: ast.arguments) -> str:
    positional = [argument.arg for argument in arguments.args[1:]]
    return ", ".join(positional + [f"{argument.arg}={argument.arg}" for argument in arguments.kwonlyargs])


def docstring(node: ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef, indent: str) -> str:
    text = ast.get_docstring(node, clean=False)
    return "" if text is None else f'{indent}"""{translate(text)}"""\n'


def method(function: ast.FunctionDef | ast.AsyncFunctionDef) -> str:
    check(function)
    name = NAMES.get(function.name, function.name)
    returns = translate(ast.unparse(function.returns)) if function.returns else ""
    signature = f"    def {name}({translate(ast.unparse(function.args))}) -> {returns}:\n"
    arguments = call_arguments(function.args)
    if name == "__init__":
        return f"{signature}        super().__init__(DrivenCloudware({arguments}))\n"
    call = f"self._driven.{function.name}({arguments})"
    if isinstance(function, ast.AsyncFunctionDef):
        call = f"drive({call})"
    elif returns not in WRAPPED:
        raise RefusalError(f"{function.name}: a plain method that returns {returns} is not known here")
    call = WRAPPED.get(returns, "{}").format(call)
    statement = call if returns == "None" else f"return {call}"
    return f"{signature}{docstring(function, '        ')}        {statement}\n"


def generate(source: str) -> str:
    """Give the blocking client's source, not yet formatted."""
    classes = [
        node for node in ast.parse(source).body if isinstance(node, ast.ClassDef) and node.name == "AsyncCloudware"
    ]
    if len(classes) != 1:
        raise RefusalError("there must be one class AsyncCloudware")
    written = [f"class Cloudware(SyncBase):\n{docstring(classes[0], '    ')}"]
    written += [
        method(node)
        for node in classes[0].body
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and (node.name == "__init__" or not node.name.startswith("_"))
    ]
    return HEADER + "\n" + "\n".join(written)


def formatted(source: str) -> str:
    """Give the source as ruff writes it."""
    ruff = [sys.executable, "-m", "ruff"]
    place = ["--stdin-filename", str(TARGET), "-"]
    return subprocess.run([*ruff, "format", *place], input=source, capture_output=True, text=True, check=True).stdout


def main() -> int:
    parser = argparse.ArgumentParser(description="Write the blocking client.")
    parser.add_argument("--check", action="store_true", help="write nothing; exit with 1 if the file is out of date")
    source = formatted(generate(SOURCE.read_text(encoding="utf-8")))
    if parser.parse_args().check:
        return int(TARGET.read_text(encoding="utf-8") != source)
    TARGET.write_text(source, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
