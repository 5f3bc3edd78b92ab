"""The same faults through other vendors' SDKs: how often does one call post? `nox -s peers` writes `docs/peers.md`.

Rule 1. One call is made for each fault and client, each with a client and a server of its own; nothing is repeated
        by hand. The server, on loopback, answers every request with that fault.
Rule 2. A post counts once the server has read its head and its whole body, before it begins the fault.
Rule 3. Clients are at their defaults but for the timeout, 1 second, and the address. All speak TLS, because vonage
        speaks nothing else; they are told of the test's own authority by the environment, as a user would.
Rule 4. A call that has not ended after PATIENCE is written down as such, with the posts so far.
Rule 5. Bold is a call that posted more than once although no answer said that a post was refused.

    python benchmarks/peers.py [folder]     # prints the page; with a folder, writes peers.md there
"""

from __future__ import annotations

import datetime as dt
import os
import platform
import sys
import tempfile
import threading
import time
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs

if TYPE_CHECKING:
    from collections.abc import Callable

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))

from fault_server import (
    HEALTHY,
    LOOPBACK,
    Act,
    Answer,
    Certificates,
    Close,
    Door,
    FaultServer,
    Hang,
    ReadRequest,
    Reset,
    Script,
    Send,
    answer,
)

TIMEOUT = 1
PATIENCE = 20.0
ERROR = b'{"error": "no"}'
HTML = answer(b"<html><h1>502 Bad Gateway</h1></html>", 502, content_type=b"Content-Type: text/html")
HALF = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 200\r\n\r\n"
AT_ONCE = (b"Retry-After: 0",)


@attrs.frozen
class Fault:
    """One fault.

    Attributes:
        name: how the table calls it.
        act: what the server does with every request.
        refused: whether the answer says that the request was refused.
        listens: whether the server can be connected to at all.
    """

    name: str
    act: Act
    refused: bool = False
    listens: bool = True


def after_reading(*steps: Any) -> Act:
    """Read the request wholly, and then do this."""
    return (ReadRequest(), *steps)


FAULTS = (
    Fault("connection refused", HEALTHY, refused=True, listens=False),
    Fault("dropped before any answer", after_reading(Close())),
    Fault("reset before any answer", after_reading(Reset())),
    Fault("no answer (hang)", after_reading(Hang())),
    Fault("half a status line, then closed", after_reading(Send(b"HTTP/1.1 2"), Close())),
    Fault("200 and its headers, then closed", after_reading(Send(HALF), Close())),
    Fault("200 and half its body, then closed", after_reading(Send(HALF + b'{"data": {"id": "1", '), Close())),
    Fault("408", after_reading(Answer(ERROR, 408))),
    Fault("409", after_reading(Answer(ERROR, 409))),
    Fault("429, `Retry-After: 0`", after_reading(Answer(ERROR, 429, AT_ONCE)), refused=True),
    Fault("500", after_reading(Answer(ERROR, 500))),
    Fault("502 in HTML", after_reading(Send(HTML))),
    Fault("503", after_reading(Answer(ERROR, 503))),
    Fault("503, `Retry-After: 0`", after_reading(Answer(ERROR, 503, AT_ONCE)), refused=True),
)


# ----------------------------------------------------------------------------------------------------
# The clients: each makes one call


def send_cloudware(server: FaultServer) -> None:
    """Send with this library."""
    from cloudware_async import Cloudware

    with Cloudware("token", base_url=server.base_url, timeout=TIMEOUT) as client:
        client.send("2348012345678", "Hello")


def send_twilio(server: FaultServer) -> None:
    """Send with twilio, whose own HTTP client is handed the server's address in place of its own."""
    from urllib.parse import urlsplit

    from twilio.http.http_client import TwilioHttpClient
    from twilio.rest import Client

    class Redirected(TwilioHttpClient):
        def request(self, method: str, url: str, *args: Any, **kwargs: Any) -> Any:
            here = urlsplit(url)._replace(netloc=f"{LOOPBACK}:{server.port}").geturl()
            return super().request(method, here, *args, **kwargs)

    client = Client("AC" + "0" * 32, "token", http_client=Redirected(timeout=TIMEOUT))
    client.messages.create(to="+2348012345678", from_="+2348012345679", body="Hello")


def send_telnyx(server: FaultServer) -> None:
    """Send with telnyx."""
    from telnyx import Telnyx

    with Telnyx(api_key="key", base_url=server.base_url, timeout=TIMEOUT) as client:
        client.messages.send(to="+2348012345678", from_="+2348012345679", text="Hello")


def send_vonage(server: FaultServer) -> None:
    """Send with vonage."""
    from vonage import Auth, HttpClientOptions, Vonage
    from vonage_sms import SmsMessage

    host = f"{LOOPBACK}:{server.port}"
    options = HttpClientOptions(api_host=host, rest_host=host, timeout=TIMEOUT)
    client = Vonage(Auth(api_key="key", api_secret="secret"), options)  # noqa: S106  (invented)
    client.sms.send(SmsMessage(to="2348012345678", from_="2348012345679", text="Hello"))


CLIENTS: dict[str, Callable[[FaultServer], None]] = {
    "cloudware-async": send_cloudware,
    "twilio": send_twilio,
    "telnyx": send_telnyx,
    "vonage": send_vonage,
}


# ----------------------------------------------------------------------------------------------------
# The measuring


@attrs.frozen
class Outcome:
    """What one call came to.

    Attributes:
        posts: how many the server received wholly.
        keys: how many of them carried a header that names an idempotency key.
        seconds: how long the call took.
        error: what it raised, or None if it is not known.
        may_have_been_sent: what the error says of it; None if it says nothing.
    """

    posts: int
    keys: int
    seconds: float
    error: str | None
    may_have_been_sent: bool | None = None

    def cell(self, fault: Fault) -> str:
        """Write it into a table."""
        posts = f"**{self.posts}**" if self.posts > 1 and not fault.refused else str(self.posts)
        return f"{posts} · {f'`{self.error}`' if self.error else f'not over after {PATIENCE:.0f} s'}"


def measure(send: Callable[[FaultServer], None], fault: Fault, certificates: Certificates) -> Outcome:
    """Make one call against one fault."""
    raised: list[BaseException] = []

    def call() -> None:
        try:
            send(server)
        except Exception as error:  # noqa: BLE001  (whatever it is, the table tells it)
            raised.append(error)

    door: Door = "open" if fault.listens else "refused"
    with FaultServer(Script(then=fault.act), ssl_context=certificates.server_context(), door=door) as server:
        thread = threading.Thread(target=call, daemon=True)
        began = time.monotonic()
        thread.start()
        thread.join(PATIENCE)
        seconds = time.monotonic() - began
        is_over = not thread.is_alive()
        posts = server.posts
    error = type(raised[0]).__name__ if raised else "no error"
    return Outcome(
        posts=len(posts),
        keys=sum(any("idempotency" in name.lower() for name, _ in post.headers) for post in posts),
        seconds=seconds,
        error=error if is_over else None,
        may_have_been_sent=getattr(raised[0], "may_have_been_sent", None) if is_over and raised else None,
    )


def measure_all() -> dict[str, dict[str, Outcome]]:
    """Make every call: by fault, and then by client."""
    certificates = Certificates()
    outcomes: dict[str, dict[str, Outcome]] = {}
    with tempfile.TemporaryDirectory() as folder:
        authority = Path(folder) / "authority.pem"
        certificates.authority.cert_pem.write_to_path(str(authority))
        os.environ.update({"SSL_CERT_FILE": str(authority), "REQUESTS_CA_BUNDLE": str(authority), "NO_PROXY": LOOPBACK})
        for fault in FAULTS:
            outcomes[fault.name] = {name: measure(send, fault, certificates) for name, send in CLIENTS.items()}
            for name, outcome in outcomes[fault.name].items():
                print(f"{fault.name}: {name}: {outcome}", file=sys.stderr)
    return outcomes


# ----------------------------------------------------------------------------------------------------
# The page

PAGE = """\
# Peers

<!-- written by benchmarks/peers.py (`nox -s peers`); not by hand -->

How often does *one* call to send a text post, when something breaks? Here the same faults meet this library and three
vendors' SDKs. Each cell has the posts that the server received wholly, and the exception that the call raised.

{table}

**Bold**: the call posted more than once, and no answer had said that a post was refused. The service may have acted on
each of them. That is this library's reading: of these answers it takes only 429, and 503 with `Retry-After`, for a
refusal. A vendor may promise more of its own API. The last column is `error.may_have_been_sent` of this library's
error. [Errors](errors.md) says which failures it repeats, and why those only.

{keys}

## How it was measured

- On {date}, with Python {python}: {versions}.
- One call a cell, with a client and a server of its own. No call was repeated by hand: every further post is the
  client's own doing.
- The server listens on loopback and speaks TLS. It reads the whole request, counts it, and then breaks, in the same way
  for every post. A real service may recover in between; then there are fewer posts, but the first may still have gone
  out.
- Every client is at its defaults, its settings for retries too, but for its address and a timeout of {timeout} second.
  Its own default is longer, or none. For this library the timeout bounds the whole call; for the others, each wait for
  the server in each attempt.
- The resets are real ones. Under TLS this Python hands them to `requests`, which twilio and vonage use, as an end of
  the connection, so for those two a reset is the same as a drop. With another Python, or without TLS, the row may come
  out otherwise.
- The refusals come with `Retry-After: 0` so that no random wait decides how many attempts fit into the timeout.
- twilio's address was changed in a subclass of its own HTTP client; the others take it as a setting. The blocking
  clients were used.
- Peers have settings that change this, for retries and, in telnyx, an `idempotency_key=` for a call. They were left
  alone, and what they change was not measured.
- The bodies are no vendor's own. They matter little, as no call gets a whole success.
- Each vendor has an API of its own. What it does with a repeated post was not measured, and cannot be here.
"""


def table(outcomes: dict[str, dict[str, Outcome]]) -> str:
    """Write the table."""
    rows = [["every request meets", *CLIENTS, "may have been sent"], ["---"] * (len(CLIENTS) + 2)]
    for fault in FAULTS:
        row = outcomes[fault.name]
        told = f"`{row['cloudware-async'].may_have_been_sent}`"
        rows.append([fault.name, *(outcome.cell(fault) for outcome in row.values()), told])
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def keys(outcomes: dict[str, dict[str, Outcome]]) -> str:
    """Tell who sent idempotency keys, by which a service could know a repeated post."""
    senders = [name for name in CLIENTS if any(row[name].keys for row in outcomes.values())]
    if not senders:
        return "No post of any client carried an idempotency key, by which a service could know it for a repeated one."
    return f"Posts of {', '.join(senders)} carried an idempotency key, by which a service can know a repeated post."


def page(outcomes: dict[str, dict[str, Outcome]]) -> str:
    """Write the page."""
    return PAGE.format(
        table=table(outcomes),
        keys=keys(outcomes),
        date=dt.datetime.now(dt.UTC).date().isoformat(),
        python=platform.python_version(),
        versions=", ".join(f"{name} {version(name)}" for name in CLIENTS),
        timeout=TIMEOUT,
    )


def main() -> None:
    """Measure, print the page, and write it where a folder is given."""
    text = page(measure_all())
    print(text)
    if sys.argv[1:]:
        (Path(sys.argv[1]) / "peers.md").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
