"""The secret, the texts and the numbers are in no log line, `repr` or traceback, whatever goes wrong, under any server."""

from __future__ import annotations

import contextlib
import io
import logging
import os
import pickle
import socket
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import webhook_apps
from attrs import evolve
from webhook_cases import CASES, NEW, OLD, PREFIX, Case, basic, encode, message
from webhook_servers import (
    HERE,
    PATIENCE,
    aiohttp_serving,
    gunicorn_serving,
    listen,
    post,
    process,
    running,
    uvicorn_serving,
    waitress_serving,
)
from werkzeug.serving import make_server

from cloudware_async import ConfigurationError, Message
from cloudware_async._privacy import HIDDEN, Secret
from cloudware_async.webhooks import Receiver, Standing, webhook_url
from cloudware_async.webhooks._log import SecretFilter
from cloudware_async.webhooks.fastapi import Webhook

TEXT = "a very private text"
NUMBER = "2348012345678"
FAILING = {"from": NUMBER, "to": f"+{NUMBER}", "message": TEXT}

# as a careless proxy may spell it
ENCODED = "".join(f"%{ord(letter):02X}" for letter in NEW)

PRIVATE = (NEW, OLD, TEXT, NUMBER, ENCODED)

MALFORMED = [
    f"POST {PREFIX}/{NEW} HTTP/9.9 and more",
    f"POST {PREFIX}/{NEW}",
    f"POST {PREFIX}/{NEW}\x00\x7f HTTP/1.1",
    f"P\x01ST {PREFIX}/{NEW} HTTP/1.1\r\nHost: here",
    f"POST {PREFIX}/{NEW} HTTP/1.1\r\nHost: not a host/{NEW}\r\nContent-Length: 0",
    f"POST {PREFIX}/{NEW} HTTP/1.1\r\nHost: here\r\nContent-Length: many{NEW}",
    f"POST {PREFIX}/{NEW} HTTP/1.1\r\nHost: here\r\nTransfer-Encoding: {NEW}",
    f"POST {PREFIX}/{NEW} HTTP/1.1\r\nHost: here\r\n{NEW}",
    f"POST http://[{PREFIX}/{NEW} HTTP/1.1\r\nHost: here",
    f"POST {PREFIX}/{ENCODED} HTTP/1.1\r\nHost: here\r\nContent-Length: 0",
    f"GET {PREFIX}/{ENCODED.lower()} HTTP/1.1\r\nHost: here",
]


def handle(sms: Message) -> None:
    """A handler that fails with all it has in its words."""
    if sms.message == TEXT:
        raise ValueError(f"could not keep {sms.message} from {sms.from_} to {sms.to}")


def traffic() -> list[Case]:
    """Everything that can go wrong, with the right secret, and with the old one and by password too."""
    failing = Case("failing", 500, encode(message("failing", **FAILING)))
    malformed = Case("malformed", 400, encode(message("malformed", **{**FAILING, "to": None})))
    return [
        failing,
        malformed,
        evolve(failing, path=f"{PREFIX}/{OLD}"),
        evolve(failing, path=f"{PREFIX}/", extra=(("Authorization", basic(f"cloudware:{NEW}")),)),
        evolve(failing, path=f"{PREFIX}/{NEW}/more", status=401),
        evolve(failing, path=f"{PREFIX}/?secret={NEW}", status=401),
        *(case for case in CASES if not case.is_unfinished and case.path.endswith(NEW)),
    ]


def send_traffic(port: int) -> None:
    for case in traffic():
        assert case.status == post(port, case).status
    send_malformed(port)


def send_malformed(port: int) -> None:
    """What is no request at all, and what is hardly one; whatever the server makes of it."""
    for head in MALFORMED:
        with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE) as connection:
            connection.sendall(f"{head}\r\nConnection: close\r\n\r\n".encode())
            with contextlib.suppress(ConnectionError):
                while connection.recv(65536):
                    pass


def check(log: str, *, paths: bool, handler: bool = True) -> None:
    """Nothing private is in what was logged; and what should be there is: masked paths, and how the handler failed."""
    assert [] == [each for each in PRIVATE if each in log], log[:5000]
    if paths:
        assert f"{PREFIX}/{HIDDEN}" in log or f"{PREFIX}/%E2%80%A2" in log
    if handler:
        assert "the handler failed on Message(" in log
    assert "a webhook was refused with 400: The webhook's body is not one readable message: to is not a string." in log


@pytest.fixture
def log() -> Iterator[io.StringIO]:
    """All that is logged in this process, formatted with every attribute that records have."""
    stream = io.StringIO()

    class Everything(logging.Formatter):
        def format(self, record: logging.LogRecord) -> str:
            return f"{super().format(record)} {vars(record)}"

    handler = logging.StreamHandler(stream)
    handler.setFormatter(Everything())
    root = logging.getLogger()
    level = root.level
    root.addHandler(handler)
    root.setLevel(1)
    yield stream
    root.removeHandler(handler)
    root.setLevel(level)


@contextlib.contextmanager
def werkzeug_serving(app: Any) -> Iterator[int]:
    """Flask's development server."""
    with listen() as listener:
        server = make_server("127.0.0.1", 0, app, threaded=True, fd=os.dup(listener.fileno()))
        with running(server.serve_forever, server.shutdown):
            yield listener.getsockname()[1]
        server.server_close()


IN_PROCESS: dict[str, tuple[Callable[..., Any], Callable[..., Any]]] = {
    "uvicorn": (webhook_apps.asgi_alone, lambda app: uvicorn_serving(app, access_log=True, log_level="trace")),
    "FastAPI": (webhook_apps.fastapi_endpoint, lambda app: uvicorn_serving(app, access_log=True, log_level="trace")),
    "waitress": (webhook_apps.wsgi_alone, waitress_serving),
    "Django": (webhook_apps.django_wsgi, waitress_serving),
    "async Django": (webhook_apps.django_asgi, lambda app: uvicorn_serving(app, lifespan="off", access_log=True)),
    "aiohttp": (
        webhook_apps.in_aiohttp,
        lambda app: aiohttp_serving(app, access_log=logging.getLogger("aiohttp.access")),
    ),
}


@pytest.mark.parametrize("name", IN_PROCESS)
def test_logs(name: str, log: io.StringIO) -> None:
    """Whatever comes, nothing private is in any record of any logger, down to the last of its attributes."""
    make, serving = IN_PROCESS[name]
    # what an endpoint raises is the endpoint's own, and uvicorn logs its words
    is_ours = name != "FastAPI"
    with serving(make(handle)) as port:
        for case in traffic():
            if is_ours or case.status != 500:
                assert case.status == post(port, case).status
        send_malformed(port)
    check(log.getvalue(), paths=name not in ("waitress", "Django"), handler=is_ours)


def test_logs_of_werkzeug(log: io.StringIO) -> None:
    """The same under Flask's development server."""
    with werkzeug_serving(webhook_apps.beneath_flask(handle)) as port:
        send_traffic(port)
    check(log.getvalue(), paths=True)


def app_alone() -> Any:
    """What the processes below serve."""
    return webhook_apps.asgi_alone(handle)


def wsgi_app() -> Any:
    return webhook_apps.wsgi_alone(handle)


def django_app() -> Any:
    return webhook_apps.django_wsgi(handle)


def test_output_of_uvicorn() -> None:
    """Uvicorn as one starts it, with its access log and as loud as it can be, prints nothing private."""
    with listen() as listener:
        arguments = ("-m", "uvicorn", "--factory", "test_webhooks_privacy:app_alone", "--log-level", "trace")
        fd = ("--fd", str(listener.fileno()))
        with process(*arguments, *fd, listener=listener, cwd=HERE, stdout=-1, stderr=-2) as child:
            gathered = gather(child)
            send_traffic(listener.getsockname()[1])
        check(gathered(), paths=True)


def gather(child: Any) -> Callable[[], str]:
    """Read what a process prints while it runs, so that it never waits for a reader."""
    lines: list[str] = []
    thread = threading.Thread(target=lambda: lines.extend(child.stdout))
    thread.start()

    def result() -> str:
        thread.join()
        return "".join(lines)

    return result


@pytest.mark.parametrize("factory", ["wsgi_app", "django_app"])
def test_output_of_gunicorn(factory: str, capfd: pytest.CaptureFixture[str]) -> None:
    """Gunicorn with an access log prints nothing private."""
    with gunicorn_serving(
        f"test_webhooks_privacy:{factory}()", "--access-logfile", "-", "--log-level", "debug", cwd=HERE
    ) as port:
        send_traffic(port)
    out, err = capfd.readouterr()
    check(out + err, paths=True)


# ------------------------------------------------------------ the filter by itself


def record(message: str, *arguments: Any, **extra: Any) -> logging.LogRecord:
    return logging.getLogger("any").makeRecord("any", 20, "file", 1, message, arguments, None, extra=extra)


class Words:
    """Something whose words hold the secret."""

    def __str__(self) -> str:
        return f"<{NEW}>"


class Wordless:
    """Something that has no words."""

    def __str__(self) -> str:
        raise ValueError("no words")


def test_filter() -> None:
    """The filter takes secrets out of the words, the arguments and the extra fields, and changes nothing else."""
    hide = SecretFilter([Secret(NEW), Secret(OLD)])
    given = record(f"{OLD} %s %s %s", f"/a/{NEW}?{OLD}", Words(), {"path": NEW}, path=f"/{NEW}")
    assert hide.filter(given)
    assert f"{HIDDEN} /a/{HIDDEN}?{HIDDEN} <{HIDDEN}> {{'path': '{HIDDEN}'}}" == given.getMessage()
    assert f"/{HIDDEN}" == vars(given)["path"]
    wordless = Wordless()
    harmless = record("%d %s %r", 200, "/a", wordless, number=5)
    assert hide.filter(harmless)
    assert (200, "/a", wordless) == harmless.args
    assert 5 == vars(harmless)["number"]


def test_filter_of_objects_and_tracebacks() -> None:
    """The filter takes secrets out of what is no string: the message itself, extra fields, a traceback, the stack."""
    hide = SecretFilter([Secret(NEW)])
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.addFilter(hide)
    logger = logging.getLogger("of.this.test")
    logger.addHandler(handler)
    logger.error(Words(), extra={"request": Words()})
    try:
        raise ValueError(f"bad request line: GET /{NEW}") from OSError(NEW)
    except ValueError:
        logger.exception("failed", stack_info=True)
    logger.removeHandler(handler)
    shown = stream.getvalue()
    assert NEW not in shown
    assert f"ValueError: bad request line: GET /{HIDDEN}" in shown
    assert f"OSError: {HIDDEN}" in shown
    given = record("words", request=Words())
    assert hide.filter(given)
    assert f"<{HIDDEN}>" == vars(given)["request"]
    try:
        raise ValueError("harmless")
    except ValueError:
        harmless = logging.LogRecord("name", logging.ERROR, "path", 1, "words", (), sys.exc_info())
    assert hide.filter(harmless)
    assert harmless.exc_info is not None


def test_filter_of_encoded_letters() -> None:
    """A secret is found however its letters are percent-encoded."""
    hide = SecretFilter([Secret(NEW)])
    encoded = "".join(f"%{ord(letter):02x}" if index % 2 else letter for index, letter in enumerate(NEW))
    for spelling in (encoded, "".join(f"%{ord(letter):02X}" for letter in NEW)):
        given = record("GET /%s and no more", spelling)
        assert hide.filter(given)
        assert f"GET /{HIDDEN} and no more" == given.getMessage()


def test_filter_of_named_arguments() -> None:
    """A mapping of arguments stays of its kind, and the caller's own is not changed."""

    class Atoms(dict[str, str]):
        def __missing__(self, key: str) -> str:
            return "-"

    atoms = Atoms(path=f"/{NEW}", status="200")
    given = record("%(path)s %(status)s %(size)s", atoms)
    assert SecretFilter([Secret(NEW)]).filter(given)
    assert f"/{HIDDEN} 200 -" == given.getMessage()
    assert f"/{NEW}" == atoms["path"]


def test_filter_for_other_loggers(caplog: pytest.LogCaptureFixture) -> None:
    """`log_filter` of a receiver does the same for a handler of one's own."""
    for owner in (Receiver(print, secret=(NEW, OLD)), Webhook(secret=(NEW, OLD))):
        stream = io.StringIO()
        handler = logging.StreamHandler(stream)
        handler.addFilter(owner.log_filter)
        logger = logging.getLogger("one.of.my.own")
        logger.addHandler(handler)
        logger.error("GET /%s and /%s", NEW, OLD)
        logger.removeHandler(handler)
        assert f"GET /{HIDDEN} and /{HIDDEN}\n" == stream.getvalue()


# ------------------------------------------------------------ reprs and tracebacks


class Failing:
    """A store that fails with all it has in its words."""

    def claim(self, key: bytes) -> Standing:
        raise OSError(f"{NEW} {TEXT} {NUMBER}")

    def finish(self, key: bytes) -> None: ...

    def release(self, key: bytes, delay: float) -> None: ...

    def close(self) -> None: ...


def test_reprs() -> None:
    """No `repr` of what holds a secret or a message shows it, nor do their parts'."""
    seen: set[int] = set()

    def walk(value: object, depth: int = 0) -> Iterator[str]:
        # what it holds is shown by it; what Python itself holds is not ours
        if id(value) in seen or depth > 6 or not type(value).__module__.startswith("cloudware_async"):
            return
        seen.add(id(value))
        yield repr(value)
        for part in getattr(value, "__dict__", {}).values():
            yield from walk(part, depth + 1)

    for owner in (Receiver(print, secret=(NEW, OLD)), Webhook(secret=(NEW, OLD))):
        shown = "\n".join(walk(owner))
        assert [] == [each for each in PRIVATE if each in shown]


def test_pickles() -> None:
    """What holds a secret goes into no pickle, nor does the filter that looks for it."""
    receiver = Receiver(print, secret=NEW)
    for holder in (receiver, receiver.log_filter, Webhook(secret=NEW)):
        with pytest.raises(TypeError):
            pickle.dumps(holder)


def test_tracebacks(log: io.StringIO) -> None:
    """A handler and a store that fail with private words leave none of these in the log, but where it happened."""
    failing = ("POST", f"/{NEW}", {"content-type": "application/json"}, encode(message("failing", **FAILING)))
    for receiver in (Receiver(handle, secret=NEW), Receiver(handle, secret=NEW, store=Failing())):
        assert 500 == receiver.receive_blocking(*failing)
    logged = log.getvalue()
    assert [] == [each for each in PRIVATE if each in logged]
    assert "ValueError at " in logged
    assert " handle; it may be posted again" in logged
    assert "OSError at " in logged


def test_tracebacks_of_configuration_errors() -> None:
    """What is wrong with a secret is told without showing it, chain included."""
    makes: list[Callable[[], object]] = [
        lambda: Receiver(print, secret=f"{NEW} "),
        lambda: Receiver(print, secret=(NEW, OLD, NEW)),
        lambda: Receiver(print, secret=NEW.encode()),  # type: ignore[arg-type]
        lambda: webhook_url("nowhere", NEW),
        lambda: webhook_url("https://example.com", f"{NEW} "),
    ]
    for make in makes:
        with pytest.raises(ConfigurationError) as caught:
            make()
        chain = "".join(str(each) for each in traceback.TracebackException.from_exception(caught.value).format())
        assert NEW not in chain


def test_cancelled_handlers_are_logged_privately(log: io.StringIO) -> None:
    """A handler that ends with something that is no `Exception` lets it through, and it is logged as privately."""

    def interrupt(_: Message) -> None:
        raise KeyboardInterrupt(TEXT)

    receiver = Receiver(interrupt, secret=NEW)
    with pytest.raises(KeyboardInterrupt):
        receiver.receive_blocking(
            "POST", f"/{NEW}", {"content-type": "application/json"}, encode(message("x", **FAILING))
        )
    assert "KeyboardInterrupt at " in log.getvalue()
    assert TEXT not in log.getvalue()
