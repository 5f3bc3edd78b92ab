"""Start-up: wall time from the interpreter's start until a client is ready, less the interpreter's own.

    python benchmarks/speed/startup.py ROUNDS PORT      prints seconds, client by client

Rule 1. Each start is a fresh interpreter with nothing on its command line but the lines of a user's program; byte code
        is there already, as it is from the second start on.
Rule 2. A round starts every client once, the bare interpreter among them; a start counts net of that round's bare one.
Rule 3. "Ready" is a client that can be told to send. What a client leaves for its first send shows in "first receipt".
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from typing import Any

from cores import MEASURED, ask, pin
from gateway import HOST, NUMBER, TWILIO_ACCOUNT
from rows import Row, make_row

BARE = "the interpreter"
TWILIO = f"from twilio.rest import Client; client = Client('{TWILIO_ACCOUNT}', 'token')"
READY = {
    BARE: "pass",
    "AsyncCloudware": "from cloudware_async import AsyncCloudware; client = AsyncCloudware('token')",
    "Cloudware": "from cloudware_async import Cloudware; client = Cloudware('token')",
    "twilio": TWILIO,
    "httpx": "import httpx; client = httpx.Client()",
    "telnyx": "from telnyx import Telnyx; client = Telnyx(api_key='key')",
    "vonage": "from vonage import Auth, Vonage; client = Vonage(Auth(api_key='key', api_secret='secret'))",
    "plivo": "import plivo; client = plivo.RestClient('MA000000000000000000', 'token')",
    "android-sms-gateway": (
        "from android_sms_gateway import APIClient; client = APIClient('login', 'token').__enter__()"
    ),
}
FIRST_RECEIPT = {
    "Cloudware, first receipt": (
        "from cloudware_async import Cloudware; client = Cloudware('token', base_url='{address}/v1'); "
        f"client.send('{NUMBER}', 'Hello')"
    ),
    "twilio, first receipt": (
        f"{TWILIO}; client.api.base_url = '{{address}}'; "
        f"client.messages.create(to='{NUMBER}', from_='{NUMBER}', body='Hello')"
    ),
}


def measure(rounds: int, port: int) -> dict[str, list[float]]:
    """Start each client, round by round."""
    programs = {**READY, **{name: text.format(address=f"http://{HOST}:{port}") for name, text in FIRST_RECEIPT.items()}}
    took: dict[str, list[float]] = {name: [] for name in programs}
    for turn in range(rounds + 1):
        for name in list(programs)[:: 1 if turn % 2 else -1]:
            began = time.perf_counter()
            subprocess.run([sys.executable, "-c", programs[name]], check=True)  # noqa: S603
            # the first round writes the byte code
            if turn:
                took[name].append(time.perf_counter() - began)
    bare = took.pop(BARE)
    net = {name: [one - other for one, other in zip(seconds, bare, strict=True)] for name, seconds in took.items()}
    return {BARE: bare, **net}


def rows(rounds: int, port: int) -> tuple[list[Row], dict[str, Any]]:
    """Measure, and make the rows."""
    net = ask("startup.py", rounds, port)
    found = [
        make_row(
            f"startup-{name}",
            f"interpreter start to `{name}` ready, net of the interpreter",
            f"twilio's {against}",
            "wall",
            target,
            ours=net[name],
            theirs=net[theirs],
            floor=("`httpx.Client()` ready", net["httpx"]),
        )
        for name, theirs, against, target in (
            ("AsyncCloudware", "twilio", "`Client`", 0.90),
            ("Cloudware", "twilio", "`Client`", 0.90),
            ("Cloudware, first receipt", "twilio, first receipt", "first receipt", None),
        )
    ]
    return found, {"start-up": net}


if __name__ == "__main__":
    pin(MEASURED)
    os.environ["NO_PROXY"] = HOST
    print(json.dumps(measure(int(sys.argv[1]), int(sys.argv[2]))))
