"""A storm, simulated: 10,000 clients, and a service that fails totally for a minute.

    python benchmarks/storm.py            prints the load amplification
    python benchmarks/storm.py docs       draws it into docs/storm.svg as well (needs matplotlib)

Rule 1. No clock and no socket: a heap of events, a seeded random generator, and the package's own `decide`.
Rule 2. Every client sends one text a second, from half a minute before the outage until half a minute after it.
        While it lasts every attempt is refused at once, which is the failure that is retried most eagerly.
Rule 3. Amplification is requests in the outage divided by the calls begun in it. Naive is the same policy
        without a budget: each call makes all of its attempts.
"""

from __future__ import annotations

import heapq
import random
import sys
from collections import Counter
from pathlib import Path

import attrs

from cloudware_async import APIConnectionError, RetryPolicy
from cloudware_async._retry import RetryBudget, decide

CLIENTS = 10_000
SECONDS = 120
OUTAGE = range(30, 90)
TIMEOUT = 30.0


@attrs.frozen
class Outcome:
    """What a storm came to.

    Attributes:
        calls: how many calls began in each second.
        requests: how many requests reached the service in each second.
    """

    calls: Counter[int]
    requests: Counter[int]

    @property
    def amplification(self) -> float:
        """Requests in the outage a call begun in it."""
        return sum(self.requests[second] for second in OUTAGE) / sum(self.calls[second] for second in OUTAGE)


def simulate(*, has_budget: bool, clients: int = CLIENTS, seed: int = 1) -> Outcome:
    """Run the storm."""
    dice = random.Random(seed)
    policy = RetryPolicy(random=dice.random)
    refused = APIConnectionError("refused")
    refused._passing = True  # noqa: SLF001 (as the wire marks it)
    endless = RetryBudget(capacity=float("inf"), tokens=float("inf"))
    budgets = [RetryBudget() if has_budget else endless for _ in range(clients)]
    outcome = Outcome(Counter(), Counter())
    # when, whose, when the call began, which attempt
    events = [(offset, client, offset, 1) for client in range(clients) for offset in [dice.random()]]
    heapq.heapify(events)
    while events:
        now, client, began, attempt = heapq.heappop(events)
        outcome.requests[int(now)] += 1
        if attempt == 1:
            outcome.calls[int(now)] += 1
            if now + 1 < SECONDS:
                heapq.heappush(events, (now + 1, client, now + 1, 1))
        if int(now) not in OUTAGE:
            budgets[client].succeed()
            continue
        delay = decide(policy, budgets[client], refused, attempt=attempt, elapsed=now - began, timeout=TIMEOUT)
        if delay is not None:
            heapq.heappush(events, (now + delay, client, began, attempt + 1))
    return outcome


def draw(path: Path, storms: dict[str, Outcome]) -> None:
    """Draw the load of each second as a multiple of the calls."""
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(7, 3.2))
    for name, storm in storms.items():
        loads = [storm.requests[second] / max(1, storm.calls[second]) for second in range(SECONDS)]
        axes.step(range(SECONDS), loads, where="post", label=f"{name}: ×{storm.amplification:.2f}")
    axes.axvspan(OUTAGE.start, OUTAGE.stop, alpha=0.1, label="outage")
    axes.set(xlabel="second", ylabel="requests per call", ylim=(0, 3.5))
    axes.legend(loc="upper right")
    figure.tight_layout()
    # the same numbers give the same file
    plt.rcParams["svg.hashsalt"] = path.name
    figure.savefig(path, metadata={"Date": None})


def main() -> None:
    """Run both storms, and draw them where a folder is given."""
    storms = {"naive retries": simulate(has_budget=False), "with the budget": simulate(has_budget=True)}
    for name, storm in storms.items():
        print(f"{name}: load in the outage ×{storm.amplification:.3f}")
    if sys.argv[1:]:
        draw(Path(sys.argv[1]) / "storm.svg", storms)


if __name__ == "__main__":
    main()
