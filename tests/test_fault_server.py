"""The fault server keeps its own rules, seen through plain sockets and `http.client`."""

from __future__ import annotations

import contextlib
import errno
import http.client
import json
import socket
import ssl
import threading
import time
from collections.abc import Callable

import pytest
from attrs import frozen
from fault_server import (
    HEALTHY,
    LOOPBACK,
    PATIENCE,
    Act,
    Answer,
    AwaitRequest,
    Certificates,
    Close,
    Connection,
    Drop,
    FaultServer,
    Hang,
    Healthy,
    Pause,
    ReadHead,
    ReadRequest,
    ReadSome,
    Repeat,
    Reset,
    Script,
    Send,
    Step,
    Trickle,
    Trust,
    answer,
    chunks,
    head,
)
from faults import FAULTS, MAX_ATTEMPTS, Fault, Verdict

BODY = b'{"to": "2348012345678", "message": "Hello"}'
REQUEST = (
    b"POST /v1/sms/send HTTP/1.1\r\nHost: here\r\nAuthorization: Bearer token\r\n"
    b"Content-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(BODY)
) + BODY
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


def connect(server: FaultServer) -> socket.socket:
    """A plain connection that gives up in the end."""
    return socket.create_connection((LOOPBACK, server.port), timeout=PATIENCE)


def read_to_end(client: socket.socket) -> bytes:
    """Everything until the server's clean end."""
    return b"".join(iter(lambda: client.recv(65536), b""))


def post(client: http.client.HTTPConnection) -> dict[str, object]:
    """Send one text and read its receipt."""
    client.request("POST", "/v1/sms/send", BODY, {"Authorization": "Bearer token"})
    receipt: dict[str, object] = json.loads(client.getresponse().read())
    return receipt


def plain_client(server: FaultServer) -> http.client.HTTPConnection:
    """An `http.client` on the server's port."""
    return http.client.HTTPConnection(LOOPBACK, server.port, timeout=PATIENCE)


def threads_of_servers() -> list[str]:
    """The names of the fault servers' threads that are alive."""
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("fault-server")]


def test_healthy_answers() -> None:
    """Without a script, each documented call gets its documented answer on one kept-alive connection."""
    with FaultServer() as server:
        client = plain_client(server)
        assert post(client)["status"] == "success"
        client.request("POST", "/v1/sms/queue", BODY)
        assert json.loads(client.getresponse().read())["data"]["id"] == "receipt-2"
        client.request("GET", "/v1/sms/messages?phone=%2B40")
        page = json.loads(client.getresponse().read())
        assert [None, "receipt-3"] == [page["next_page"], page["data"][0]["message_id"]]
        client.request("GET", "/v1/elsewhere")
        assert 404 == client.getresponse().status
        client.close()

        assert 1 == server.connections
        assert ["POST", "POST", "GET", "GET"] == [request.method for request in server.ledger]
        assert "/v1/sms/messages?phone=%2B40" == server.ledger[2].path
        assert ["receipt-1", "receipt-2"] == [request.receipt_id for request in server.posts]
        assert BODY == server.posts[0].body
        assert ["Bearer token"] == server.authorizations


def test_ledger_counts_whole_requests_only() -> None:
    """A request whose last byte never came is in `partial` and not in the ledger."""
    with FaultServer() as server:
        with connect(server) as client:
            client.sendall(REQUEST[:-1])
        assert server.wait_for_partial(1)
        assert [] == server.ledger
        assert [REQUEST[:-1]] == [partial.data for partial in server.partial]
        assert ["Bearer token"] == server.authorizations


def test_ledger_is_written_before_the_answer() -> None:
    """Whoever has read one byte of an answer finds the request in the ledger."""
    with (
        FaultServer(Script(acts=((ReadRequest(), Send(b"H"), Hang()),))) as server,
        connect(server) as client,
    ):
        client.sendall(REQUEST)
        assert b"H" == client.recv(1)
        assert 1 == len(server.ledger)


def test_request_in_pieces_and_two_in_one() -> None:
    """A request is whole however it is cut, and two in one write are two."""
    with FaultServer() as server, connect(server) as client:
        for index in range(len(REQUEST)):
            client.sendall(REQUEST[index : index + 1])
        client.sendall(REQUEST + REQUEST)
        assert server.wait_for(3)
        assert [BODY] * 3 == [request.body for request in server.ledger]
        assert [1, 1, 1] == [request.connection for request in server.ledger]


def test_times_in_the_ledger_rise() -> None:
    """Each entry is later than the one before."""
    with FaultServer() as server, connect(server) as client:
        client.sendall(REQUEST * 3)
        assert server.wait_for(3)
        times = [request.at for request in server.ledger]
        assert sorted(times) == times


@pytest.mark.parametrize("step", [ReadSome(100), ReadHead()])
def test_half_read(step: Step) -> None:
    """A request that is read by half is partial, though all of it was sent."""
    with FaultServer(Script(acts=((step, Hang()),))) as server, connect(server) as client:
        client.sendall(REQUEST)
        assert server.wait_for_partial(1)
        expected = 100 if isinstance(step, ReadSome) else len(REQUEST) - len(BODY)
        assert expected == len(server.partial[0].data)
        assert [] == server.ledger


def test_head_of_a_request_without_body_is_all_of_it() -> None:
    """Reading the head of a GET puts it into the ledger."""
    with FaultServer(Script(acts=((ReadHead(), Close()),))) as server, connect(server) as client:
        client.sendall(b"GET /v1/sms/messages HTTP/1.1\r\nHost: here\r\n\r\n")
        assert b"" == read_to_end(client)
        assert 1 == len(server.ledger)
        assert [] == server.partial


@pytest.mark.parametrize("reading", [AwaitRequest(), ReadSome(100), ReadHead(), ReadRequest()])
def test_reset_is_a_reset(reading: Step) -> None:
    """After `Reset` the client's read fails with ECONNRESET, whatever had been read."""
    with FaultServer(Script(acts=((reading, Reset()),))) as server, connect(server) as client:
        client.sendall(REQUEST)
        with pytest.raises(ConnectionResetError):
            client.recv(1)


@pytest.mark.parametrize("reading", [AwaitRequest(), ReadSome(100), ReadHead(), ReadRequest()])
def test_close_is_clean(reading: Step) -> None:
    """After `Close` the client reads an end and no reset, though the server left bytes unread."""
    with FaultServer(Script(acts=((reading, Send(b"HTTP"), Close()),))) as server, connect(server) as client:
        client.sendall(REQUEST)
        assert b"HTTP" == read_to_end(client)
        client.sendall(b"and more")
        assert b"" == client.recv(1)
        assert 0 == client.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)


def test_what_was_sent_before_a_reset_is_read_before_it() -> None:
    """Half an answer and then a reset reach the client in this order."""
    act = (ReadRequest(), Send(b"HTTP/1.1 2"), Reset())
    with FaultServer(Script(acts=(act,))) as server, connect(server) as client:
        client.sendall(REQUEST)
        assert server.wait_for_ended(1)
        assert b"HTTP/1.1 2" == client.recv(100)
        with pytest.raises(ConnectionResetError):
            client.recv(1)


def test_act_at_accept_needs_no_request() -> None:
    """An act that does not begin by reading is played to a silent client, on fresh connections only."""
    with FaultServer(Script(acts=(HEALTHY, (Send(b"welcome"), Close())))) as server:
        client = plain_client(server)
        post(client)
        with connect(server) as silent:
            assert b"welcome" == read_to_end(silent)
        assert "receipt-2" == post(client)["data"]["id"]  # type: ignore[index]
        client.close()


def test_hang_ends_with_the_server() -> None:
    """Closing the server wakes every hanging thread and ends the clients' connections."""
    clients = []
    with FaultServer(Script(then=(ReadRequest(), Hang()))) as server:
        for _ in range(5):
            client = connect(server)
            client.sendall(REQUEST)
            clients.append(client)
        assert server.wait_for(5)
        started = time.monotonic()
    assert time.monotonic() - started < PATIENCE
    for client in clients:
        assert b"" == client.recv(1)
        client.close()


@pytest.mark.parametrize("act", [(Hang(),), (ReadSome(10), Hang()), (ReadRequest(), Hang())])
def test_hang_ends_with_the_client(act: Act) -> None:
    """A client that leaves ends the thread that hangs on it, whether or not its bytes were read."""
    with FaultServer(Script(acts=(act,))) as server:
        with connect(server) as client:
            client.sendall(REQUEST)
            assert server.wait_for_connections(1)
        assert server.wait_for_ended(1)


def test_close_ends_every_thread() -> None:
    """After `close()` no thread is left: not of an idle, a half-read, a stuck or a trickled connection."""
    flood = (ReadRequest(), Repeat(b"x" * 65536))
    trickle = (ReadRequest(), Trickle(b"x" * 1000, 30.0))
    script = Script(acts=(flood, trickle, (ReadSome(10), Hang()), (ReadRequest(), Close()), HEALTHY))
    server = FaultServer(script)
    clients = []
    with server:
        for whole, partial in ((1, 0), (2, 0), (2, 1), (3, 1), (4, 1)):
            clients.append(connect(server))
            clients[-1].sendall(REQUEST)
            assert server.wait_for(whole)
            assert server.wait_for_partial(partial)
        clients += [connect(server), connect(server)]
        clients[-1].sendall(b"POST")
        assert server.wait_for_connections(7)
    assert not [name for name in threads_of_servers() if str(server.port) in name]
    server.close()  # a second time does no harm
    for client in clients:
        client.close()


def test_close_raises_what_went_wrong() -> None:
    """A bug in a step is not lost with its thread."""

    @frozen
    class Broken(Step):
        def run(self, connection: Connection) -> None:
            raise LookupError(connection.number)

    server = FaultServer(Script(acts=((ReadRequest(), Broken()),))).__enter__()
    with connect(server) as client:
        client.sendall(REQUEST)
        assert b"" == client.recv(1)
    with pytest.raises(LookupError):
        server.close()


def test_kept_alive_connection_then_fault() -> None:
    """One connection can serve a healthy exchange first and break at the second request."""
    with FaultServer(Script(acts=(HEALTHY, (ReadRequest(), Close())))) as server:
        client = plain_client(server)
        post(client)
        with pytest.raises(http.client.RemoteDisconnected):
            post(client)
        client.close()
        assert [1, 1] == [request.connection for request in server.ledger]


@pytest.mark.parametrize("end", [(), (Close(),), (Pause(0.05), Reset()), (Hang(),)])
def test_settled_is_on_the_wire(end: Act) -> None:
    """Once the server has settled, what its act sent and how it ended can be seen without waiting."""
    act = (ReadRequest(), Healthy(), Pause(0.05), Send(b"more"), *end)
    with FaultServer(Script(acts=(act,))) as server:
        client = plain_client(server)
        post(client)
        assert server.wait_until_settled()
        client.sock.setblocking(False)
        if any(isinstance(step, Reset) for step in end):
            with pytest.raises(ConnectionResetError):
                b"".join(iter(lambda: client.sock.recv(100), b""))
        else:
            assert b"more" == client.sock.recv(100)
        client.close()


def test_endless_act_settles_with_its_client() -> None:
    """An act that never ends keeps the server unsettled until its client leaves."""
    with FaultServer(Script(acts=((ReadRequest(), Pause(60.0)),))) as server:
        with connect(server) as client:
            client.sendall(REQUEST)
            assert server.wait_for(1)
            assert not server.wait_until_settled(timeout=0.01)
        assert server.wait_until_settled()


def test_end_of_an_idle_connection_can_be_awaited() -> None:
    """`wait_for_ended` returns once the server has closed a kept-alive connection."""
    with FaultServer(Script(acts=((ReadRequest(), Healthy(), Close()),))) as server, connect(server) as client:
        client.sendall(REQUEST)
        assert server.wait_for_ended(1)
        assert read_to_end(client).startswith(b"HTTP/1.1 200")


def test_wait_ends_in_time() -> None:
    """Waiting for what does not come says so."""
    with FaultServer() as server:
        assert not server.wait_for(1, timeout=0.01)


def test_trickle_trickles() -> None:
    """The bytes come one by one, no faster than the pause allows."""
    act = (ReadRequest(), Trickle(b"abcde", 0.02), Close())
    with FaultServer(Script(acts=(act,))) as server, connect(server) as client:
        client.sendall(REQUEST)
        assert server.wait_for(1)
        pieces = list(iter(lambda: client.recv(100), b""))
        took = time.monotonic() - server.ledger[0].at
        assert b"abcde" == b"".join(pieces)
        assert took >= 5 * 0.02


@pytest.mark.parametrize("endless", [Trickle(CONTINUE * 10_000), Repeat(CONTINUE, pause=0.01), Pause(60.0)])
def test_slow_steps_end_with_the_client(endless: Step) -> None:
    """A step that would last for minutes ends when the client leaves."""
    with FaultServer(Script(acts=((ReadRequest(), Send(CONTINUE), endless),))) as server:
        with connect(server) as client:
            client.sendall(REQUEST)
            assert client.recv(1)
        assert server.wait_for_ended(1)


def test_repeat_counts() -> None:
    """`Repeat` with a number sends just so many."""
    act = (ReadRequest(), Repeat(b"ab", times=3), Close())
    with FaultServer(Script(acts=(act,))) as server, connect(server) as client:
        client.sendall(REQUEST)
        assert b"ababab" == read_to_end(client)


def test_answer_knows_where_it_is() -> None:
    """`Answer` names the server's own address, and its length is right all the same."""
    act = (ReadRequest(), Answer(b'"{base_url}/next:{port}"', 307, (b"Location: {base_url}/there",)))
    with FaultServer(Script(acts=(act,))) as server:
        client = plain_client(server)
        client.request("GET", "/v1/sms/messages")
        response = client.getresponse()
        assert (307, f"{server.base_url}/there") == (response.status, response.getheader("Location"))
        assert f"{server.base_url}/next:{server.port}" == json.loads(response.read())
        client.close()


def test_answers_as_bytes() -> None:
    """The constructors frame what they are given."""
    assert b"HTTP/1.0 299 Answer\r\nA: b\r\n\r\n" == head(299, b"A: b", version=b"HTTP/1.0")
    assert answer(b"{}", 201, b"A: b").endswith(b"\r\nContent-Length: 2\r\nA: b\r\n\r\n{}")
    assert b"1\r\na\r\n10\r\nbbbbbbbbbbbbbbbb\r\n" == chunks(b"a", b"b" * 16)


def test_doors() -> None:
    """A refused port refuses, a full one lets nobody in, a nameless one has no address."""
    with FaultServer(door="refused") as server, pytest.raises(ConnectionRefusedError):
        connect(server)
    with FaultServer(door="full") as server, pytest.raises(TimeoutError):
        socket.create_connection((LOOPBACK, server.port), timeout=0.2)
    with FaultServer(door="nameless") as server, pytest.raises(socket.gaierror):
        socket.create_connection((server.base_url.split("/")[2].split(":")[0], server.port))


# TLS


@pytest.fixture(scope="module")
def certificates() -> Certificates:
    """One authority for the module."""
    return Certificates()


def secure(client: socket.socket, certificates: Certificates) -> ssl.SSLSocket:
    """The client's side of TLS, which takes a missing close_notify for what it is."""
    context = certificates.client_context()
    # some Pythons set it
    context.options &= ~ssl.OP_IGNORE_UNEXPECTED_EOF
    return context.wrap_socket(client, server_hostname=LOOPBACK, suppress_ragged_eofs=False)


def test_tls_healthy(certificates: Certificates) -> None:
    """Over TLS the same requests get the same answers."""
    with FaultServer(ssl_context=certificates.server_context()) as server:
        assert server.base_url.startswith("https://")
        context = certificates.client_context()
        client = http.client.HTTPSConnection(LOOPBACK, server.port, timeout=PATIENCE, context=context)
        post(client)
        assert "success" == post(client)["status"]
        client.close()
        assert [1, 1] == [request.connection for request in server.ledger]


@pytest.mark.parametrize("trust", ["unknown-authority", "wrong-name", "expired"])
def test_tls_bad_certificates(certificates: Certificates, trust: Trust) -> None:
    """Each bad certificate fails its check, takes no act, and leaves no request."""
    server = FaultServer(Script(acts=((ReadRequest(), Reset()),)), ssl_context=certificates.server_context(trust))
    with server, connect(server) as client, pytest.raises(ssl.SSLCertVerificationError):
        secure(client, certificates)
    assert ([], []) == (server.ledger, server.partial)


@pytest.mark.parametrize(("end", "expected"), [(Close(), True), (Drop(), False)])
def test_tls_end(certificates: Certificates, end: Step, expected: bool) -> None:
    """`Close` says close_notify, and `Drop` does not."""
    script = Script(acts=((ReadRequest(), Send(b"HTTP"), end),))
    with (
        FaultServer(script, ssl_context=certificates.server_context()) as server,
        secure(connect(server), certificates) as client,
    ):
        client.sendall(REQUEST)
        assert b"HTTP" == client.recv(4)
        with contextlib.nullcontext() if expected else pytest.raises(ssl.SSLError):
            assert b"" == client.recv(1)


def test_tls_reset(certificates: Certificates) -> None:
    """`Reset` is a reset over TLS too, seen below TLS, which does not tell it from an end."""
    script = Script(acts=((ReadRequest(), Reset()),))
    with (
        FaultServer(script, ssl_context=certificates.server_context()) as server,
        secure(connect(server), certificates) as client,
    ):
        client.sendall(REQUEST)
        with pytest.raises(ConnectionResetError):
            b"".join(iter(lambda: socket.socket.recv(client, 65536), b""))


def test_tls_records(certificates: Certificates) -> None:
    """Each `Send` is a record of its own."""
    script = Script(acts=((ReadRequest(), Send(b"one"), Send(b"two"), Hang()),))
    with (
        FaultServer(script, ssl_context=certificates.server_context()) as server,
        secure(connect(server), certificates) as client,
    ):
        client.sendall(REQUEST)
        assert [b"one", b"two"] == [client.recv(100), client.recv(100)]


def test_tls_not_begun(certificates: Certificates) -> None:
    """What is sent before a read goes out bare, and a hang before the handshake ends with the server."""
    script = Script(acts=((Send(b"HTTP/1.1 400 Bad Request\r\n\r\n"), Close()), (Hang(),)))
    with FaultServer(script, ssl_context=certificates.server_context()) as server:
        with connect(server) as client, pytest.raises(ssl.SSLError) as caught:
            secure(client, certificates)
        assert caught.value.errno != errno.ECONNRESET
        silent = connect(server)
        assert server.wait_for_connections(2)
    with silent:
        assert b"" == silent.recv(1)


# The table

TREE = {
    "APIConnectionError",
    "APIResponseError",
    "APIStatusError",
    "APITimeoutError",
    "AuthenticationError",
    "BadRequestError",
    "ConflictError",
    "NotFoundError",
    "PaginationError",
    "PermissionDeniedError",
    "RateLimitError",
    "ServerError",
    "UnprocessableEntityError",
}


def test_table_is_wide_and_its_names_are_unique() -> None:
    """There are at least 130 faults, each with a name of its own."""
    assert len({fault.name for fault in FAULTS}) == len(FAULTS) >= 130


@pytest.mark.parametrize("verdict_of", [lambda fault: fault.send, lambda fault: fault.listing])
def test_table_is_consistent(verdict_of: Callable[[Fault], Verdict | None]) -> None:
    """Where a call may fail, a class is named, and nowhere else; no count exceeds the attempts."""
    for fault in FAULTS:
        verdict = verdict_of(fault)
        if verdict is not None:
            assert bool(verdict.errors) == bool(verdict.outcomes - {"accepted"}), fault.name
            assert set(verdict.errors) <= TREE, fault.name
            assert verdict.allows(None) == ("accepted" in verdict.outcomes), fault.name
            assert verdict.most_requests <= MAX_ATTEMPTS or fault.name.startswith("next-page"), fault.name


@pytest.mark.parametrize(
    "fault", [pytest.param(fault, id=fault.name) for fault in FAULTS if fault.door == "open" and fault.trust is None]
)
def test_every_script_plays(fault: Fault) -> None:
    """Each script plays to a client that sends its requests and half-closes, breaks nothing here, and ends."""
    requests = 1 + fault.warm_up
    with FaultServer(fault.send_script) as server:
        # a reset may come before the half-close, and even before `connect` has returned
        with contextlib.suppress(OSError), connect(server) as client:
            client.sendall(REQUEST * requests)
            client.shutdown(socket.SHUT_WR)
            read_to_end(client)
        assert server.wait_until_settled()
        assert len(server.ledger) + len(server.partial) <= requests


def test_verdicts() -> None:
    """A verdict takes its own end, what it may be besides, and nothing else."""
    doubt = Verdict("unknown", ("APIConnectionError",), also=("not_sent",))
    assert doubt.allows("APIConnectionError", may_have_been_sent=True)
    assert doubt.allows("APIConnectionError")
    assert not doubt.allows("ServerError", may_have_been_sent=True)
    assert not doubt.allows(None)
    assert not Verdict("unknown", ("ServerError",)).allows("ServerError")
    assert not Verdict("refused", ("ServerError",)).allows("ServerError", may_have_been_sent=True)
    assert Verdict("accepted").allows(None)
