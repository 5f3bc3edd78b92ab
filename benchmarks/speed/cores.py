"""Which process runs on which core, and how processes of the benchmark are started.

Rule 1. The gateway has the last core to itself; what is measured has the first. Where cores cannot be chosen, or there
        is only one, the system places them, and the conditions say so.
Rule 2. What is measured runs in a process of its own, which has imported nothing but what it needs.
Rule 3. Every process ends with the one that started it: its standard input is then at its end.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any
from urllib.request import ProxyHandler, build_opener

if TYPE_CHECKING:
    from collections.abc import Iterator

HERE = Path(__file__).resolve().parent
MEASURED, GATEWAY = 0, -1
HAS_CORES = hasattr(os, "sched_setaffinity") and len(os.sched_getaffinity(0)) > 1
_CORES = sorted(os.sched_getaffinity(0)) if HAS_CORES else []


def pin(which: int) -> None:
    """Run on this core from now on (rule 1)."""
    if HAS_CORES:
        os.sched_setaffinity(0, {_CORES[which]})


@contextlib.contextmanager
def start(script: str, *arguments: object) -> Iterator[tuple[IO[str], IO[str]]]:
    """Start a script of this folder; give what it reads and what it writes (rule 3)."""
    command = [sys.executable, str(HERE / script), *map(str, arguments)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:  # noqa: S603
        assert process.stdin is not None  # noqa: S101  (for the type checker)
        assert process.stdout is not None  # noqa: S101
        try:
            yield process.stdin, process.stdout
        finally:
            with contextlib.suppress(BrokenPipeError):
                process.stdin.close()
            process.wait()
    if process.returncode:
        raise RuntimeError(f"{script} {' '.join(map(str, arguments))} failed")


def ask(script: str, *arguments: object) -> Any:
    """Run a script of this folder to its end and give the JSON that it prints."""
    with start(script, *arguments) as (_, output):
        return json.loads(output.read())


@contextlib.contextmanager
def gateway() -> Iterator[int]:
    """Run a gateway and give its port."""
    with start("gateway.py") as (_, output):
        yield int(output.readline())


def gateway_counts(port: int) -> dict[str, float]:
    """Ask the gateway what it did."""
    # no proxy of the environment's stands between
    with build_opener(ProxyHandler({})).open(f"http://127.0.0.1:{port}/stats", timeout=10) as answer:
        counts: dict[str, float] = json.load(answer)
    return counts
