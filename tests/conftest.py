"""What every test stands on: a clean environment, and the three worlds (`worlds.py` says how to use them)."""

from __future__ import annotations

import inspect
import signal
from collections.abc import Iterator
from typing import Any

import pytest
from fault_server import PATIENCE, Certificates
from worlds import WORLDS, World, client_threads

from cloudware_async._backend import drive

SETTINGS = (
    "CLOUDWARE_ACCESS_TOKEN",
    "CLOUDWARE_BASE_URL",
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
    "SSLKEYLOGFILE",
    "REQUEST_METHOD",
    *("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"),
    *("http_proxy", "https_proxy", "all_proxy", "no_proxy"),
)


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line(
        "markers", "worlds(*names, reason): the test runs in these worlds only, and the reason says why"
    )
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        # so it is where the tests run in the background, and what they start would inherit it
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """A test that takes `world` runs in each of the three, or in those of its mark; any other async one on both loops."""
    if "anyio_backend" in metafunc.fixturenames:
        mark = metafunc.definition.get_closest_marker("worlds")
        assert mark is None or mark.kwargs["reason"], "say why a test does not run in every world"
        names = [*WORLDS] if "world" in metafunc.fixturenames else ["asyncio", "trio"]
        metafunc.parametrize("anyio_backend", names if mark is None else mark.args, indirect=True)


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """In the blocking world a coroutine is driven; in the others anyio's plugin runs it."""
    world = pyfuncitem.funcargs.get("world")
    if not isinstance(world, World) or not world.is_blocking or not inspect.iscoroutinefunction(pyfuncitem.obj):
        return None
    # the signature's own names: `funcargs` also holds what its fixtures took
    drive(pyfuncitem.obj(**{name: pyfuncitem.funcargs[name] for name in inspect.signature(pyfuncitem.obj).parameters}))
    return True


@pytest.fixture
def anyio_backend(request: pytest.FixtureRequest) -> Any:
    """The event loop that anyio's plugin makes; none, which is the empty string, where the world is blocking."""
    others = {"blocking": "", "aiohttp": "asyncio", "uvloop": ("asyncio", {"use_uvloop": True})}
    return others.get(request.param, request.param)


@pytest.fixture
def world(request: pytest.FixtureRequest, anyio_backend: Any) -> Iterator[World]:
    """Where the test runs; and when it has ended, no thread of the package's is left."""
    yield WORLDS[request.node.callspec.params["anyio_backend"]]
    threads = client_threads()
    for thread in threads:
        thread.join(PATIENCE)
    assert [] == [thread.name for thread in threads if thread.is_alive()]


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """No test depends on what is set where it runs."""
    for name in SETTINGS:
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(scope="session")
def certificates() -> Certificates:
    """One authority for all."""
    return Certificates()
