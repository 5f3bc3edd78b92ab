"""The retry budget, seen from the service's side."""

from __future__ import annotations

import runpy
from pathlib import Path

STORM = runpy.run_path(str(Path(__file__).parents[1] / "benchmarks" / "storm.py"))


def test_an_outage_is_not_multiplied():
    """Ten thousand clients load a failing service with at most 1.2 requests a call; naive ones with 3."""
    assert STORM["simulate"](has_budget=True).amplification <= 1.2
    assert STORM["simulate"](has_budget=False, clients=1_000).amplification > 2.9
