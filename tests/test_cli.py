"""The command, through its front door; `command.py` runs it."""

from __future__ import annotations

import contextlib
import errno
import importlib.metadata
import json
import os
import re
import signal
import socket
import subprocess
from collections.abc import Iterator
from urllib.parse import parse_qsl

import pytest
from command import (
    COMMAND,
    DONE,
    FAILED,
    MISUSED,
    NUMBER,
    PATIENCE,
    TOKEN,
    UNKNOWN,
    Ended,
    at,
    environment,
    finish,
    needs_posix,
    read_exports,
    run,
    run_python,
    start,
)
from fault_server import Answer, Close, Drop, FaultServer, Hang, ReadRequest, Script, listing
from rich.cells import cell_len

from cloudware_async import Cloudware, Message
from cloudware_async.cli import main
from cloudware_async.cli._demo_texts import INBOUND, TEXTS
from cloudware_async.sandbox import Sandbox


@pytest.fixture
def sandbox() -> Iterator[Sandbox]:
    with Sandbox(access_token=TOKEN, page_size=2) as sandbox:
        yield sandbox


# ---------------------------------------------------------------- send and queue


@pytest.mark.parametrize("via", ["send", "queue"])
def test_accepted(sandbox, via):
    """An accepted text is one line with the receipt's id, and status 0."""
    ended = run(via, "+234 801 234 5678", "Ẹ káàárọ̀ 👩🏿‍🚀", **at(sandbox))

    (sms,) = sandbox.messages
    assert (NUMBER, "Ẹ káàárọ̀ 👩🏿‍🚀") == (sms.to, sms.message)
    assert Ended(DONE, f"{sms.message_id}\n", "") == ended


@pytest.mark.parametrize("via", ["send", "queue"])
def test_sender_and_path(via):
    """Each command makes its own call, with the sender that `--from` names, where `--base-url` points."""
    with FaultServer() as server:
        ended = run(via, NUMBER, "Hello", "--from", "Shop", "--base-url", server.base_url, CLOUDWARE_ACCESS_TOKEN=TOKEN)

        (request,) = server.ledger
    assert Ended(DONE, "receipt-1\n", "") == ended
    assert f"/v1/sms/{via}" == request.path
    assert {"to": NUMBER, "message": "Hello", "from": "Shop"} == json.loads(request.body)
    assert (f"Bearer {TOKEN}",) == request.header("Authorization")


def test_leading_dash(sandbox):
    """A text that begins with a dash is sent when it stands after two."""
    assert DONE == run("send", NUMBER, "--", "-20 % today", **at(sandbox)).status
    assert ["-20 % today"] == [sms.message for sms in sandbox.messages]


@pytest.mark.parametrize(
    ("body", "shown"),
    [
        (b'{"status": "success"}', "accepted, without an id\n"),
        (b'{"data": {"id": "\\u001b[31m7\\u0007"}, "status": "success"}', "\\x1b[31m7\\x07\n"),
    ],
)
def test_odd_receipts(body, shown):
    """A receipt without an id is a success too, and no id reaches the terminal with control characters."""
    with FaultServer(Script(then=(ReadRequest(), Answer(body)))) as server:
        assert Ended(DONE, shown, "") == run("send", NUMBER, "Hello", **at(server))


@pytest.mark.parametrize(
    "arguments",
    [
        ("send", "12", "Hello"),
        ("send", "0800-CALL-NOW", "Hello"),
        ("send", "٢٣٤٨٠١٢٣٤٥٦", "Hello"),
        ("send", "", "Hello"),
        ("queue", NUMBER, ""),
        ("send", NUMBER, b"half a character \xf0\x9f"),
        ("send", NUMBER, "Hello", "--from", ""),
        ("send", NUMBER, "Hello", "--base-url", "127.0.0.1"),
        ("send", NUMBER, "Hello", "--base-url", ""),
    ],
)
def test_wrong_values(sandbox, arguments):
    """A wrong number, text, sender or address is one line and status 2, and nothing is sent."""
    ended = run(*arguments, **at(sandbox))

    assert (MISUSED, "") == (ended.status, ended.output)
    assert "must be" in ended.line or "surrogate" in ended.line
    # the library's own name for it
    assert "from_" not in ended.line
    assert [] == sandbox.messages


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("sned", NUMBER, "Hello"), "no such command (see cloudware --help)"),
        (("send",), "TO is missing (see cloudware send --help)"),
        (("send", NUMBER), "MESSAGE is missing"),
        (("send", NUMBER, "two", "words"), "a text of several words needs quotes"),
        (("send", NUMBER, "Hello", "--form", "Shop"), "no option --form"),
        (("send", NUMBER, "Hello", "--from"), "--from needs a value"),
        (("send", NUMBER, "Hello", "--from", "A", "--from", "B"), "--from is given more than once"),
        (("send", NUMBER, "-20 % today"), "what begins with a dash but is none goes after --"),
        (("queue", NUMBER, "--", "two", "words"), "a text of several words needs quotes"),
        (("send", NUMBER, "Hello", "--to", NUMBER), "no option --to"),
        (("messages", NUMBER), "too many arguments"),
        (("messages", "--limit", "many"), "--limit takes a whole number"),
        (("messages", "--limit", "-1"), "--limit: Must be >= 0"),
        (("messages", "--limit", "1e999"), "--limit takes a whole number"),
        (("messages", "--limit", "1.5"), "--limit takes a whole number"),
        (("messages", "--limit=-0.4"), "--limit takes a whole number"),
        (("messages", "--limit", "1_0"), "--limit takes a whole number"),
        (("sandbox", "--port", "0.4"), "--port takes a whole number"),
        (("messages", "--limit"), "--limit needs a value"),
        (("messages", "--json=yes please"), "--json takes no value"),
        (("messages", "--no-json"), "no option --no-json"),
        (("messages", "--cursor", "garbage"), "no cursor"),
        (("sandbox", "--port", "http"), "--port takes a whole number"),
        (("sandbox", "--port", "65536"), "--port: Must be <= 65535"),
        (("sandbox", "--token", "two words"), "access token has a space"),
        (("sandbox", "--webhook-url", "localhost"), "webhook_url must be like"),
        (("sandbox", "--webhook-url", "http://xn--/"), "webhook_url must be like"),
        (("sandbox", "--webhook-url", b"http://127.0.0.1/\xff"), "webhook_url must be like"),
        (("demo", "now"), "too many arguments"),
    ],
)
def test_misused(sandbox, arguments, told):
    """A wrong command line is one line that says what is wrong, and status 2, and nothing is asked or sent."""
    ended = run(*arguments, **at(sandbox))

    assert (MISUSED, "") == (ended.status, ended.output)
    assert told in ended.line
    assert [] == sandbox.messages


@pytest.mark.parametrize(
    "arguments",
    [
        (TOKEN,),
        ("send", TOKEN, "Hello"),
        ("send", NUMBER, "Hello", TOKEN),
        ("send", NUMBER, "Hello", "--token", TOKEN),
        ("send", NUMBER, "Hello", f"--token={TOKEN}"),
        ("send", NUMBER, "Hello", f"-t{TOKEN}"),
        ("send", NUMBER, "Hello", f"--{TOKEN}"),
        ("send", NUMBER, "Hello", "--base-url", TOKEN),
        ("send", NUMBER, "Hello", "--base-url", f"http://{TOKEN}@127.0.0.1"),
        ("messages", "--limit", TOKEN),
        ("messages", f"--json={TOKEN}"),
        ("messages", "--cursor", TOKEN),
        ("sandbox", "--port", TOKEN),
        ("sandbox", "--token", f"{TOKEN} "),
        ("sandbox", f"--tokne={TOKEN}"),
        ("sandbox", "--webhook-url", TOKEN),
    ],
)
def test_misplaced_token(sandbox, arguments):
    """A token in the wrong place is not repeated in the line that says so."""
    ended = run(*arguments, **at(sandbox))

    assert (MISUSED, "") == (ended.status, ended.output)
    assert ended.line
    assert [] == sandbox.messages


@pytest.mark.parametrize(
    ("command", "settings", "told"),
    [
        (("send", NUMBER, "Hello"), {}, "no access token: set CLOUDWARE_ACCESS_TOKEN"),
        (("queue", NUMBER, "Hello"), {"CLOUDWARE_ACCESS_TOKEN": ""}, "no access token: set CLOUDWARE_ACCESS_TOKEN"),
        (("messages",), {"CLOUDWARE_ACCESS_TOKEN": f"{TOKEN}\n"}, "the access token has a space, a line end"),
    ],
)
def test_wrong_token(sandbox, command, settings, told):
    """A missing or malformed token is one line and status 2."""
    ended = run(*command, CLOUDWARE_BASE_URL=sandbox.base_url, **settings)

    assert (MISUSED, "") == (ended.status, ended.output)
    assert told in ended.line
    assert [] == sandbox.messages


@pytest.mark.parametrize("command", [("send", NUMBER, "Hello"), ("queue", NUMBER, "Hello"), ("messages",)])
def test_refused(sandbox, command):
    """An unknown token is one line and status 1: nothing was sent."""
    ended = run(*command, **at(sandbox, token="another"))

    assert (FAILED, "") == (ended.status, ended.output)
    assert "does not know the access token" in ended.line
    assert "401" in ended.line
    # where nothing came there is nothing to go on from
    assert "--cursor" not in ended.line
    assert [] == sandbox.messages


@pytest.mark.parametrize("command", [("send", NUMBER, "Hello"), ("queue", NUMBER, "Hello"), ("messages",)])
def test_no_connection(command):
    """A refused connection is one line and status 1: nothing was sent."""
    with socket.socket() as unheard:
        unheard.bind(("127.0.0.1", 0))
        base_url = f"http://127.0.0.1:{unheard.getsockname()[1]}/v1"
        ended = run(*command, CLOUDWARE_ACCESS_TOKEN=TOKEN, CLOUDWARE_BASE_URL=base_url)

    assert (FAILED, "") == (ended.status, ended.output)
    assert "Could not connect" in ended.line


@pytest.mark.parametrize(
    ("via", "fault"),
    [
        ("send", (Drop(),)),
        ("queue", (Drop(),)),
        ("send", (Answer(b"oops", 500),)),
        ("queue", (Answer(b"<html>Welcome</html>"),)),
        ("send", (Answer(b'{"status": "error"}'),)),
    ],
)
def test_unknown_outcome(via, fault):
    """A send of which nobody knows whether it went out is one line and status 3, and is not repeated."""
    with FaultServer(Script(then=(ReadRequest(), *fault))) as server:
        ended = run(via, NUMBER, "Hello", **at(server))
        requests = server.ledger

    assert (UNKNOWN, "") == (ended.status, ended.output)
    assert "may have gone out" in ended.line
    assert 1 == len(requests)


@pytest.mark.parametrize("via", ["send", "queue"])
def test_bug_while_sending(sandbox, via):
    """After a mistake of our own nothing is certain: status 3, and no word of the exception."""
    code = f"import cloudware_async\ndef fail(*_, **__): 1 / 0 or {TOKEN!r}\ncloudware_async.Cloudware.{via} = fail"
    ended = run_python(code, via, NUMBER, "Hello", **at(sandbox))

    assert (UNKNOWN, "") == (ended.status, ended.output)
    assert "unexpected ZeroDivisionError at <string>:3" in ended.line
    assert "may have gone out" in ended.line


def test_bug_elsewhere(sandbox):
    """Any other mistake of our own is one line with its place and status 1, and no word of the exception."""
    code = "import cloudware_async\ndef fail(*_, **__): raise ValueError(sys.argv)\n"
    ended = run_python(f"{code}cloudware_async.Cloudware.messages = fail", "messages", "--phone", TOKEN, **at(sandbox))

    assert (FAILED, "") == (ended.status, ended.output)
    assert "unexpected ValueError at <string>:3: please report this" == ended.line


# ---------------------------------------------------------------- messages


def test_json(sandbox):
    """`--json` is one object a line over every page, in ASCII, with the wire's own names and values."""
    sandbox.receive(from_=NUMBER, message='NUL \x00, escape \x1b[31m, "quotes"\nand [bold]markup[/bold] :smile:')
    sandbox.receive(from_="+40722000000", message="שלום 👩🏿‍🚀 e\u0301 \u202e")
    with sandbox.sync_client() as cloudware:
        cloudware.send(NUMBER, "Hello")
    ended = run("messages", "--json", **at(sandbox))

    assert (DONE, "") == (ended.status, ended.errors)
    assert re.fullmatch(r"[ -~\n]*", ended.output)
    assert [to_wire(sms) for sms in sandbox.messages] == [json.loads(line) for line in ended.output.splitlines()]


def to_wire(sms: Message) -> dict[str, str | None]:
    moment = f"{sms.created_at:%Y-%m-%dT%H:%M:%SZ}"
    return {
        "type": sms.type,
        "from": sms.from_,
        "to": sms.to,
        "message": sms.message,
        "message_id": sms.message_id,
        "created_at": moment,
        "sent_at": moment,
    }


def test_json_keeps_what_is_not_documented():
    """`--json` gives the service's own values back: what is not documented, null, and a time with an offset."""
    message = {
        "type": "message_lost",
        "from": "Shop",
        "to": NUMBER,
        "message": "Hello",
        "message_id": None,
        "created_at": "2020-01-01T00:00:00.250000+02:00",
        "sent_at": None,
        "price": [0.5, {"currency": "NGN"}],
    }
    page = json.dumps({"data": [message]}).encode()
    with FaultServer(Script(then=(ReadRequest(), Answer(page)))) as server:
        assert message == json.loads(run("messages", "--json", **at(server)).output)
        shown = run("messages", **at(server)).output
    assert shown.startswith("message_lost  2020-01-01 00:00:00.250000+02:00  from Shop to ")


def test_readable(sandbox):
    """The listing shows who wrote what to whom and when, each text on a line of its own that nothing breaks."""
    long = "All of it. " * 40
    sandbox.receive(from_=NUMBER, message="Is the table free?", to="0987654321")
    with sandbox.sync_client(from_="Shop") as cloudware:
        cloudware.send(NUMBER, long)
    ended = run("messages", **at(sandbox))

    first, second = sandbox.messages
    assert Ended(
        DONE,
        f"received  {first.created_at:%Y-%m-%d %H:%M:%SZ}  from {NUMBER} to 0987654321  {first.message_id}\n"
        "  Is the table free?\n"
        f"sent      {second.created_at:%Y-%m-%d %H:%M:%SZ}  from Shop to {NUMBER}  {second.message_id}\n"
        f"  {long}\n",
        "",
    ) == Ended(ended.status, ended.output, ended.errors)


def test_harmless(sandbox):
    """No control character of a text or a sender reaches the terminal, no markup is obeyed, and joiners stay."""
    shown = {
        "\x1b[31mred\x1b]0;title\x07": r"\x1b[31mred\x1b]0;title\x07",
        "NUL \x00, DEL \x7f, C1 \x9b31m": r"NUL \x00, DEL \x7f, C1 \x9b31m",
        "line\nend\r\ttab\u2028\u2029": r"line\nend\r\ttab\u2028\u2029",
        "\u202eevil\u202c \u2067a\u2069": r"\u202eevil\u202c \u2067a\u2069",
        "[bold red]x[/] [/nothing] :smile:": "[bold red]x[/] [/nothing] :smile:",
        "👩🏿‍🚀 می‌خواهم e\u0301": "👩🏿‍🚀 می‌خواهم e\u0301",
    }
    for text in shown:
        sandbox.receive(from_=text, message=text)
    ended = run("messages", FORCE_COLOR="1", TERM="xterm-256color", **at(sandbox))

    assert (DONE, "") == (ended.status, ended.errors)
    for text in shown.values():
        assert f"  from {text} to " in ended.output
        assert f"\n  {text}\n" in ended.output


def test_half_a_surrogate_pair():
    """What no terminal can show is shown escaped."""
    page = b'{"data": [{"type": "\\ud83d", "from": "a", "to": "b", "message": "\\ud83d!"}]}'
    with FaultServer(Script(then=(ReadRequest(), Answer(page)))) as server:
        shown = run("messages", **at(server))
        as_json = run("messages", "--json", **at(server))

    assert Ended(DONE, "\\ud83d    no time  from a to b\n  \\ud83d!\n", "") == shown
    assert "\ud83d!" == json.loads(as_json.output)["message"]


def test_poor_encoding(sandbox):
    """Where the output's encoding lacks a letter, it is shown escaped."""
    sandbox.receive(from_=NUMBER, message="Ẹ káàárọ̀")
    ended = run("messages", PYTHONIOENCODING="ascii", **at(sandbox))

    assert (DONE, "") == (ended.status, ended.errors)
    assert ended.output.endswith("\n  \\u1eb8 k\\xe1\\xe0\\xe1r\\u1ecd\\u0300\n")


def test_filters():
    """Each filter reaches the service under the wire's own name."""
    filters = ("--phone", "+40722000000", "--device-id", "2254", "--to", NUMBER, "--from", "Shop & Co", "--message", "")
    with FaultServer() as server:
        assert DONE == run("messages", *filters, **at(server)).status
        (request,) = server.ledger

    wanted = [("device_id", "2254"), ("from", "Shop & Co"), ("message", ""), ("phone", "+40722000000"), ("to", NUMBER)]
    assert wanted == sorted(parse_qsl(request.path.partition("?")[2], keep_blank_values=True))


@pytest.mark.parametrize("limit", [0, 3, 9])
def test_limit(sandbox, limit):
    """`--limit` is a total over the pages."""
    texts = [sandbox.receive(from_=NUMBER, message=f"Text {row}").message for row in range(5)]
    ended = run("messages", "--json", "--limit", str(limit), **at(sandbox))

    assert (DONE, "") == (ended.status, ended.errors)
    assert texts[:limit] == [json.loads(line)["message"] for line in ended.output.splitlines()]


def test_cursor():
    """A listing that breaks off shows what came, and says how to go on from there."""
    first = listing("1", "{base_url}/sms/messages?token=2")
    broken = (ReadRequest(), Answer(b"", 403))
    with FaultServer(Script(acts=((ReadRequest(), Answer(first)), broken))) as server:
        ended = run("messages", "--json", **at(server))
        (cursor,) = re.findall(r" --cursor (\S+)$", ended.line)
        rest = run("messages", "--json", "--cursor", cursor, **at(server))
        paths = [request.path for request in server.ledger]

    assert (FAILED, "1") == (ended.status, json.loads(ended.output)["message_id"])
    assert (DONE, "receipt-3") == (rest.status, json.loads(rest.output)["message_id"])
    assert ["/v1/sms/messages", "/v1/sms/messages?token=2", "/v1/sms/messages?token=2"] == paths


def test_foreign_page():
    """A next page on another host ends the listing with one line, and the token does not go there."""
    with FaultServer() as stranger:
        page = listing("1", f"{stranger.base_url}/sms/messages?token=2")
        with FaultServer(Script(then=(ReadRequest(), Answer(page)))) as server:
            ended = run("messages", "--json", **at(server))
        visits = stranger.ledger

    assert (FAILED, "1") == (ended.status, json.loads(ended.output)["message_id"])
    assert "not on" in ended.line or "not an absolute URL on the origin" in ended.line
    assert [] == visits


# ---------------------------------------------------------------- pipes


@contextlib.contextmanager
def closed_pipe() -> Iterator[int]:
    """The end of a pipe that nobody reads."""
    reading, writing = os.pipe()
    os.close(reading)
    try:
        yield writing
    finally:
        os.close(writing)


@needs_posix
@pytest.mark.parametrize("options", [(), ("--json",)])
def test_closed_pipe(sandbox, options):
    """When nobody reads the listing any more it ends without a word."""
    sandbox.receive(from_=NUMBER, message="Hello")
    with closed_pipe() as pipe:
        ended = run("messages", *options, stdout=pipe, **at(sandbox))
    assert Ended(FAILED, "", "") == ended


@needs_posix
def test_receipt_into_a_closed_pipe(sandbox):
    """A receipt that cannot be printed is told on stderr, and the status does not say that nothing was sent."""
    with closed_pipe() as pipe:
        ended = run("send", NUMBER, "Hello", stdout=pipe, **at(sandbox))

    (sms,) = sandbox.messages
    assert (UNKNOWN, f"the text was accepted, but this could not be printed: {sms.message_id}") == (
        ended.status,
        ended.line,
    )


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="the disk that is always full is Linux's")  # noqa: PTH110
@pytest.mark.parametrize("options", [(), ("--json",)])
def test_full_disk(sandbox, options):
    """A listing that cannot be written is one line and status 1."""
    sandbox.receive(from_=NUMBER, message="Hello")
    with open("/dev/full", "wb") as full:  # noqa: PTH123
        ended = run("messages", *options, stdout=full, **at(sandbox))
    assert (FAILED, f"the system refused: {os.strerror(errno.ENOSPC)}") == (ended.status, ended.line)


@needs_posix
@pytest.mark.parametrize("arguments", [("send", NUMBER, "Hello"), ("messages",), ("webhook", "listen")])
def test_no_stdout(sandbox, arguments):
    """Where nothing can be printed at all nothing is begun: a text that came in would be nowhere."""
    ended = finish(start(*arguments, command=("sh", "-c", '"$@" >&-', "sh", *COMMAND), **at(sandbox)))

    assert (MISUSED, "") == (ended.status, ended.output)
    assert "no standard output" in ended.line
    assert [] == sandbox.messages


@needs_posix
@pytest.mark.parametrize("end", ["full", "closed"])
@pytest.mark.parametrize(("to", "status"), [(NUMBER, UNKNOWN), ("12", MISUSED)])
def test_no_stderr(end, to, status):
    """Where the line cannot be said the status still tells whether the text may have gone out."""
    with FaultServer(Script(then=(ReadRequest(), Close()))) as server, open("/dev/full", "wb") as full:  # noqa: PTH123
        command = ("sh", "-c", '"$@" 2>&-', "sh", *COMMAND) if end == "closed" else COMMAND
        process = start("send", to, "Hello", command=command, stderr=full, **at(server))
        output, _ = process.communicate(timeout=PATIENCE)
    assert (status, "") == (process.returncode, output)


# ---------------------------------------------------------------- Ctrl-C


@needs_posix
@pytest.mark.parametrize("via", ["send", "queue"])
def test_interrupted_send(via):
    """Ctrl-C during a send is one line that leaves open whether it went out, and death by SIGINT (130 in a shell)."""
    with FaultServer(Script(then=(ReadRequest(), Hang()))) as server:
        process = start(via, NUMBER, "Hello", **at(server))
        assert server.wait_for(1, PATIENCE)
        process.send_signal(signal.SIGINT)
        ended = finish(process)

    assert (-signal.SIGINT, "") == (ended.status, ended.output)
    assert "interrupted: the text may have gone out. Do not send it again blindly" == ended.line


@needs_posix
def test_interrupted_listing():
    """Ctrl-C during a listing is one line, what had come is there, and the process dies of SIGINT."""
    first = (ReadRequest(), Answer(listing("1", "{base_url}/sms/messages?token=2")))
    with FaultServer(Script(acts=(first,), then=(ReadRequest(), Hang()))) as server:
        process = start("messages", "--json", **at(server))
        assert server.wait_for(2, PATIENCE)
        process.send_signal(signal.SIGINT)
        ended = finish(process)

    assert (-signal.SIGINT, "1") == (ended.status, json.loads(ended.output)["message_id"])
    assert "interrupted" == ended.line


@needs_posix
def test_interrupted_loop():
    """Ctrl-C ends a shell's loop of sends too: the next round does not begin."""
    with FaultServer(Script(then=(ReadRequest(), Hang()))) as server:
        loop = 'for text in one two; do "$@" "$text"; done; echo went on'
        process = start("send", NUMBER, command=("bash", "-c", loop, "bash", *COMMAND), **at(server))
        assert server.wait_for(1, PATIENCE)
        os.killpg(process.pid, signal.SIGINT)
        ended = finish(process)
        requests = server.ledger

    assert (-signal.SIGINT, "") == (ended.status, ended.output)
    assert "may have gone out" in ended.line
    assert 1 == len(requests)


# ---------------------------------------------------------------- sandbox


@needs_posix
def test_sandbox_command():
    """A sandbox prints what to export; with that the other commands work; and Ctrl-C ends it quietly, with status 0."""
    process = start("sandbox")
    settings = read_exports(process, 2)
    sent = run("send", NUMBER, "Hello", **settings)
    listed = run("messages", "--json", **settings)
    process.send_signal(signal.SIGINT)
    ended = finish(process)

    assert Ended(DONE, f"{json.loads(listed.output)['message_id']}\n", "") == sent
    assert (DONE, "") == (ended.status, ended.errors)


@needs_posix
def test_sandbox_options(tmp_path, sandbox):
    """A sandbox listens on the port and with the token that it is given, and its database outlives it."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    token = "it's$mine"
    for expected in (1, 2):
        process = start("sandbox", "--port", str(port), "--token", token, "--database", str(tmp_path / "texts.db"))
        settings = read_exports(process, 2)
        with Cloudware(token, base_url=f"http://127.0.0.1:{port}/v1") as cloudware:
            cloudware.send(NUMBER, "Hello")
            assert expected == len(list(cloudware.messages()))
        process.send_signal(signal.SIGINT)
        assert DONE == finish(process).status
        assert f"http://127.0.0.1:{port}/v1" == settings["CLOUDWARE_BASE_URL"]
        # as a shell reads it
        assert """'it'"'"'s$mine'""" == settings["CLOUDWARE_ACCESS_TOKEN"]


def test_sandbox_port_in_use(sandbox):
    """A port that is taken is one line and status 1."""
    port = sandbox.base_url.removesuffix("/v1").rpartition(":")[2]
    ended = run("sandbox", "--port", port)

    assert (FAILED, "") == (ended.status, ended.output)
    assert f"cannot listen on port {port}: {os.strerror(errno.EADDRINUSE)}" == ended.line


@pytest.mark.parametrize("database", ["no-such-folder/texts.db", ".", "other.txt"])
def test_sandbox_database_unusable(tmp_path, database):
    """A database that cannot be opened, or is none, is one line and status 1, and is left as it was."""
    other = tmp_path / "other.txt"
    other.write_text("This is no database, but it is dear to me. " * 50)
    ended = run("sandbox", "--database", str(tmp_path / database))

    assert (FAILED, "") == (ended.status, ended.output)
    assert ended.line.startswith("the database cannot be used: ")
    assert other.read_text().startswith("This is no database")


def test_sandbox_does_not_take_the_real_token():
    """A sandbox invents its token: the one in the environment is real, and is not printed."""
    code = "import cloudware_async.sandbox as s\nreal = s.serve\n"
    code += "def serve(on_listening, **options):\n    with s.Sandbox(**options) as running: on_listening(running)\n"
    ended = run_python(f"{code}s.serve = serve", "sandbox", CLOUDWARE_ACCESS_TOKEN=TOKEN)

    assert (DONE, "") == (ended.status, ended.errors)
    assert "CLOUDWARE_ACCESS_TOKEN" in ended.output


# ---------------------------------------------------------------- demo


def test_demo():
    """The demo sends every text, lists each as the same, and ends with 0: without account, colours or proxy."""
    nowhere = "http://127.0.0.1:1"
    ended = run("demo", HTTP_PROXY=nowhere, http_proxy=nowhere, ALL_PROXY=nowhere, CLOUDWARE_BASE_URL=nowhere)

    count = 2 * len(TEXTS) + 1
    assert (DONE, "") == (ended.status, ended.errors)
    assert "\x1b" not in ended.output
    assert count == len(re.findall(r"^.{12} (?:send|queue|webhook) +same +same  +\S", ended.output, re.MULTILINE))
    assert "The inbound text, as the webhook brought it: same\n" in ended.output
    assert ended.output.endswith(
        f"All {count} texts came back identical, through AsyncCloudware and through Cloudware.\n"
    )


@pytest.mark.parametrize(
    ("change", "differing"),
    [
        # the service loses the marks of one alphabet
        ("listed = [record | {'message': record['message'].replace('\\u1ecd', 'o')} for record in listed]", "table"),
        ("listed = [record | {'to': '2348000000000'} for record in listed]", "table"),
        # it lists what nobody sent
        ("listed = [record | {'message_id': '0'} for record in listed[:1]] + listed", "nothing"),
        # the webhook brings something else than the listing has
        ("posted = posted | {'message': 'Other'}", "webhook"),
    ],
)
def test_demo_is_no_mere_show(change, differing):
    """What comes back changed, from a listing or by the webhook, or comes besides, makes the demo end with 1."""
    code = f"""
from cloudware_async.sandbox import _storage, _webhook
def change(listed, posted):
    {change}
    return listed, posted
listing, post = _storage.Storage.listing, _webhook.Webhook.post
_storage.Storage.listing = lambda *arguments, **options: change(listing(*arguments, **options), {{}})[0]
_webhook.Webhook.post = lambda self, record: post(self, change([], record)[1])
"""
    ended = run_python(code, "demo")

    assert FAILED == ended.status
    assert "not every text came back as it was" == ended.line
    table, _, below = ended.output.partition("The inbound text, as the webhook brought it: ")
    assert (differing == "table") is ("differs" in table)
    assert ("differs\n" if differing == "webhook" else "same\n") == below


@needs_posix
@pytest.mark.parametrize(("columns", "colour"), [(80, True), (120, False)])
def test_demo_in_a_terminal(columns, colour):
    """In a terminal the demo's bars move and the table follows, no line too wide; `NO_COLOR` takes the colours."""
    import fcntl
    import struct
    import termios

    terminal, its_end = os.openpty()
    fcntl.ioctl(its_end, termios.TIOCSWINSZ, struct.pack("HHHH", 50, columns, 0, 0))
    process = subprocess.Popen(
        [*COMMAND, "demo"],
        env=environment(TERM="xterm-256color", **({} if colour else {"NO_COLOR": "1"})),
        stdin=its_end,
        stdout=its_end,
        stderr=its_end,
    )
    os.close(its_end)
    drawn = read_terminal(terminal)
    assert DONE == process.wait(PATIENCE)

    texts = len(TEXTS)
    for first, last in (
        (f" 0/{texts}", f"{texts}/{texts}"),
        ("0/1", "1/1"),
        (f" 0/{2 * texts + 1}", f"{2 * texts + 1}/"),
    ):
        assert -1 < drawn.find(first) < drawn.find(last)
    # the bars are drawn again in the same place
    assert "\x1b[1A" in drawn
    assert colour is bool(re.search(r"\x1b\[[0-9;]*3[0-9][;m]", drawn))
    table = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", drawn).partition("Alphabet")[2]
    assert ["same"] * 2 * (2 * texts + 1) == re.findall(r"(?<= )same(?= )", table.partition("The inbound")[0])
    # with room for what the terminal draws wider than rich thinks
    assert max(cell_len(line) for line in table.partition("The inbound")[0].splitlines()) <= columns - 8


def read_terminal(terminal: int) -> str:
    """All that is written to a terminal until its other end is closed."""
    drawn = bytearray()
    # Linux tells of the end by an error
    with open(terminal, "rb", buffering=0) as stream, contextlib.suppress(OSError):
        while data := stream.read(65536):
            drawn += data
    return drawn.decode()


# ---------------------------------------------------------------- the command itself


def test_installed():
    """The project installs the command under its name."""
    (script,) = importlib.metadata.entry_points(group="console_scripts", name="cloudware")
    assert main is script.load()


def test_version():
    """`--version` says which it is."""
    assert Ended(DONE, f"{importlib.metadata.version('cloudware-async')}\n", "") == run("--version")


@pytest.mark.parametrize("command", [(), ("demo",), ("send",), ("queue",), ("messages",), ("sandbox",)])
def test_help(sandbox, command):
    """Every command's help tells the exit statuses, and no value of the environment."""
    ended = run(*command, "--help", **at(sandbox))

    assert (DONE, "") == (ended.status, ended.errors)
    assert "3: unknown: the text may have gone out." in ended.output
    assert sandbox.base_url not in ended.output


def test_no_command():
    """Without a command there is help."""
    assert run("--help") == run()


@pytest.mark.parametrize(
    ("missing", "arguments"),
    [("cyclopts", ()), ("cyclopts", ("send", NUMBER, "Hello")), ("rich", ("--help",)), ("rich", ("demo",))],
)
def test_without_the_extra(sandbox, missing, arguments):
    """Without the extra's packages every command is one line that says how to get them, and status 1."""
    ended = run_python(f"sys.modules[{missing!r}] = None", *arguments, **at(sandbox))

    assert (FAILED, "") == (ended.status, ended.output)
    assert f"the command needs {missing}: pip install 'cloudware-async[cli]'" == ended.line
    assert [] == sandbox.messages


@pytest.mark.parametrize(("missing", "command"), [("starlette", "demo"), ("uvicorn", "sandbox")])
def test_without_the_sandbox(missing, command):
    """Without the sandbox's packages its commands are one line that says how to get them, and status 1."""
    ended = run_python(f"sys.modules[{missing!r}] = None", command)

    assert (FAILED, "") == (ended.status, ended.output)
    assert f"the sandbox needs {missing}: pip install 'cloudware-async[sandbox]'" == ended.line


def test_sending_without_the_sandbox(sandbox):
    """Sending and listing need no more than the command's own extra."""
    absent = "sys.modules |= dict.fromkeys(['starlette', 'uvicorn'])"
    assert DONE == run_python(absent, "send", NUMBER, INBOUND, **at(sandbox)).status
    assert DONE == run_python(absent, "messages", **at(sandbox)).status
    assert [INBOUND] == [sms.message for sms in sandbox.messages]
