"""As fast as the wire allows? Everything that says so, measured side by side in one run.

    python benchmarks/speed/run.py             about 25 minutes; writes results.json, the table and the plots
    python benchmarks/speed/run.py --short     two minutes; says what moved against results.json, and writes nothing

Rule 1. All traffic stays on loopback, and every part is bounded: so many rounds of so many requests.
Rule 2. Settings are the defaults, retries and timeout on. CPU is the client process's own, of all its threads.
Rule 3. What missed its target is printed as such. Nothing is measured again because of how it came out.
"""

from __future__ import annotations

import datetime as dt
import json
import os
import platform
import sys
import time
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs
import decoding
import listing
import report
import sends
import startup
from cores import HAS_CORES, gateway, gateway_counts
from rows import Row, read_row, spread

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ROOT = Path(__file__).resolve().parent.parent.parent
RESULTS = ROOT / "benchmarks" / "results.json"
DOCS = ROOT / "docs"
PACKAGES = (
    "cloudware-async",
    "httpx",
    "httpcore",
    "aiohttp",
    "requests",
    "pydantic",
    "twilio",
    "telnyx",
    "vonage",
    "plivo",
    "android-sms-gateway",
)


@attrs.frozen
class Rounds:
    """How many rounds each part has."""

    sends: int
    decoding: int
    walks: int
    memory: int
    startup: int


FULL = Rounds(sends=30, decoding=30, walks=7, memory=3, startup=25)
SHORT = Rounds(sends=8, decoding=8, walks=2, memory=1, startup=6)


def conditions() -> dict[str, Any]:
    """Say what it runs on."""
    cpuinfo = Path("/proc/cpuinfo")
    names = [line.partition(":")[2].strip() for line in _lines(cpuinfo) if line.startswith("model name")]
    return {
        "date": dt.datetime.now(tz=dt.UTC).date().isoformat(),
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "system": f"{platform.system()} {platform.machine()}",
        "cpu": names[0] if names else platform.processor() or "unknown",
        "cores": os.cpu_count(),
        "pinned": HAS_CORES,
        "packages": {name: version(name) for name in PACKAGES},
    }


def _lines(path: Path) -> list[str]:
    return path.read_text().splitlines() if path.exists() else []


def load() -> float | None:
    """Say how many processes wanted a core in the last minute."""
    return round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None


def measure(rounds: Rounds, *, is_short: bool) -> dict[str, Any]:
    """Run everything."""
    loads = [load()]
    began = time.perf_counter()
    table: list[Row] = []
    details: dict[str, Any] = {}

    def add(rows: list[Row]) -> None:
        for row in rows:
            print(report.line(row), flush=True)
        table.extend(rows)
        loads.append(load())

    with gateway() as port:
        for group in sends.GROUPS:
            found = sends.measure(group, port, rounds.sends, is_short=is_short)
            details[f"sends, {group.name}"] = found.cpu
            details[f"connections, {group.name}"] = {name: [count] for name, count in found.connections.items()}
            add(sends.rows(found))
        counts = gateway_counts(port)
        for part in parts(rounds, port):
            rows, seconds = part()
            details.update(seconds)
            add(rows)
    return {
        "conditions": {
            **conditions(),
            "load": loads,
            "seconds": round(time.perf_counter() - began),
            "gateway_microseconds": round(counts["cpu"] / counts["requests"] * 1e6, 1),
        },
        "rows": [row.asdict() for row in table],
        "details": {
            part: {name: attrs.asdict(spread(values)) for name, values in found.items()}
            for part, found in details.items()
        },
    }


def parts(rounds: Rounds, port: int) -> Iterator[Callable[[], tuple[list[Row], dict[str, Any]]]]:
    """Name what follows the sends."""
    yield lambda: decoding.rows(rounds.decoding)
    yield lambda: listing.walk_rows("async", rounds.walks, port)
    yield lambda: listing.walk_rows("blocking", rounds.walks, port)
    yield lambda: listing.memory_rows(rounds.memory, port)
    yield lambda: startup.rows(rounds.startup, port)


def main() -> None:
    """Measure; then compare, or write."""
    is_short = "--short" in sys.argv[1:]
    results = measure(SHORT if is_short else FULL, is_short=is_short)
    rows = [read_row(fields) for fields in results["rows"]]
    print(report.conditions_text(results["conditions"]))
    if is_short:
        committed = json.loads(RESULTS.read_text())
        print(report.compare(rows, {fields["key"]: read_row(fields) for fields in committed["rows"]}))
    else:
        RESULTS.write_text(json.dumps(results, indent=1) + "\n")
        report.write(DOCS, results)
    missed = [row for row in rows if not row.is_met]
    print(
        f"{len(rows) - len(missed)} rows within their targets, {len(missed)} beyond"
        + "".join(f"\n  {report.line(row)}" for row in missed)
    )


if __name__ == "__main__":
    main()
