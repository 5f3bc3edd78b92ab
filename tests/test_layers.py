"""The house: imports point down, one floor waits, and nothing is loaded that the first call does not need."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "cloudware_async"
# from the ground up; a file may import what stands on its own floor before it, or below
FLOORS = [
    ["_errors", "_privacy", "_models", "_wire", "_retry"],
    [
        "_backend",
        "_backend_forks",
        "_backend_opening",
        "_backend_attempt",
        "_backend_logs",
        "_backend_async",
        "_backend_blocking",
        "_backend_httpx",
        "_backend_aiohttp",
        "_backend_httpx_async",
        "_backend_httpx_blocking",
        "_call",
        "_pager",
        "_client",
    ],
    ["_sync_base", "_sync"],
]
ORDER = [name for floor in FLOORS for name in floor]
MODULES = {path.stem: path for path in PACKAGE.glob("*.py") if path.stem != "__init__"}
# what waits, or opens what waits; each with all that is below it
WAITING = {
    "_thread",
    "aiohttp",
    "anyio",
    "asyncio",
    "concurrent",
    "gevent",
    "h11",
    "http",
    "httpcore",
    "httpx",
    "httpx2",
    "multiprocessing",
    "queue",
    "requests",
    "sched",
    "select",
    "selectors",
    "signal",
    "sniffio",
    "socket",
    "socketserver",
    "ssl",
    "subprocess",
    "threading",
    "time",
    "trio",
    "urllib.request",
    "urllib3",
}
# what is not handed in: files, the environment, and numbers that nobody can foresee
IMPURE = {"io", "logging", "os", "pathlib", "random", "secrets", "shutil", "sqlite3", "tempfile", "uuid"}
# the default of a setting that is handed in
ALLOWED = {("_retry", "random")}
IMPURE_CALLS = {"getenv", "input", "now", "open", "print", "today", "utcnow"}
HIDDEN_IMPORTS = {"__import__", "eval", "exec", "import_module"}


def imports(path: Path, *, when_run: bool) -> Iterator[str]:
    """The modules that a file imports; those that only type checkers see as well, unless `when_run`."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    unseen = [node for node in ast.walk(tree) if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)]
    hidden = {id(inner) for node in unseen for inner in ast.walk(node)} if when_run else set()
    for node in ast.walk(tree):
        if id(node) in hidden:
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path.name}: an import names where it comes from"
            yield node.module or ""


def test_every_file_has_its_place():
    """A new file is given a place in the house."""
    assert sorted(ORDER) == sorted(MODULES)


@pytest.mark.parametrize("name", ORDER)
def test_imports_point_down(name):
    """A file imports only what stands before it."""
    for module in imports(MODULES[name], when_run=True):
        package, _, inner = module.partition(".")
        if package == "cloudware_async":
            assert inner in ORDER[: ORDER.index(name)], f"{name} imports {module}"


@pytest.mark.parametrize("name", ORDER)
def test_types_come_from_no_higher_floor(name):
    """Nor does a type come from a floor above."""
    floor = next(number for number, names in enumerate(FLOORS) if name in names)
    below = {inner for names in FLOORS[: floor + 1] for inner in names}
    named = {
        module.partition(".")[2] for module in imports(MODULES[name], when_run=False) if "cloudware_async" in module
    }
    assert named <= below


def is_below(module: str, names: set[str]) -> bool:
    """Whether a module is one of these or inside one of them."""
    parts = module.split(".")
    return any(".".join(parts[:length]) in names for length in range(1, len(parts) + 1))


def called(path: Path) -> Iterator[tuple[str, str]]:
    """What a file calls: the name, and what stands before its dot."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call):
            name = ast.unparse(node.func)
            yield name.rpartition(".")[2], name.rpartition(".")[0]


@pytest.mark.parametrize("name", [name for name in ORDER if not name.startswith("_backend_")])
def test_only_backends_wait(name):
    """Only a backend imports what waits, or an HTTP library, be it for its types alone; nothing else sleeps."""
    assert not [module for module in imports(MODULES[name], when_run=False) if is_below(module, WAITING)]
    sleepers = {owner for called_name, owner in called(MODULES[name]) if called_name.startswith("sleep")}
    assert sleepers <= {"backend"}


@pytest.mark.parametrize("name", FLOORS[0])
def test_the_ground_floor_is_pure(name):
    """Below the backends there is no clock, no file, no environment and no coroutine; randomness is handed in."""
    impure = {module for module in imports(MODULES[name], when_run=False) if is_below(module, IMPURE)}
    assert {module for module in impure if (name, module) not in ALLOWED} == set()
    assert not IMPURE_CALLS & {called_name for called_name, _ in called(MODULES[name])}
    tree = ast.parse(MODULES[name].read_text(encoding="utf-8"))
    assert not [node for node in ast.walk(tree) if isinstance(node, ast.AsyncFunctionDef | ast.Await)]


@pytest.mark.parametrize("name", [*ORDER, "__init__"])
def test_no_import_is_hidden(name):
    """No file imports in a way that these tests would not see."""
    assert not HIDDEN_IMPORTS & {called_name for called_name, _ in called(PACKAGE / f"{name}.py")}
    assert "importlib" not in {module.partition(".")[0] for module in imports(PACKAGE / f"{name}.py", when_run=False)}


def test_the_package_is_its_floors():
    """The package's own names come from the floors, not from a wing."""
    assert {f"cloudware_async.{name}" for name in ORDER} >= set(imports(PACKAGE / "__init__.py", when_run=False))


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda path: path.name)
def test_every_file_opens_with_its_subject(path):
    """A file's first words say what it is about."""
    assert ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))), path


def loaded_by(statement: str) -> set[str]:
    """The modules that a statement loads in a fresh interpreter."""
    # not what was there before it: what measures coverage in the new process loads modules of its own
    script = f"import sys; before = {{*sys.modules}}; {statement}; print(*sorted({{*sys.modules}} - before))"
    output = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
    return set(output.split())


def test_importing_loads_no_wing():
    """`import cloudware_async` loads neither a wing nor what only a wing or a certain backend needs."""
    unwanted = {
        "aiohttp",
        "cyclopts",
        "django",
        "fastapi",
        "flask",
        "psycopg",
        "rich",
        "sqlite3",
        "starlette",
        "trio",
        "uvicorn",
        *(f"cloudware_async.{folder.parent.name}" for folder in PACKAGE.glob("*/__init__.py")),
    }
    assert {"cloudware_async.cli", "cloudware_async.sandbox"} <= unwanted
    loaded = loaded_by("import cloudware_async")
    assert "cloudware_async._wire" in loaded
    assert not unwanted & loaded


def test_importing_loads_no_http_library():
    """An HTTP library is loaded with the first client, and an event loop's only with an async one."""
    libraries = {"anyio", "asyncio", "httpcore", "httpx", "httpx2"}
    assert not libraries & loaded_by("import cloudware_async")
    assert not libraries & loaded_by("import cloudware_async; cloudware_async.Cloudware('token').close()")
    assert "httpx" in loaded_by("import cloudware_async; cloudware_async.Cloudware('token').__enter__()")
