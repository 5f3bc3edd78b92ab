"""What must start afresh in a child process after `fork`.

Rule 1: a lock may be held by a thread that the child does not have; a connection and a claim are the parent's.
Rule 2: the child closes nothing of the parent's: it would end it for both.
"""

from __future__ import annotations

import os
import weakref
from typing import Protocol


class StartsAfresh(Protocol):
    """Whatever holds locks, threads or connections."""

    def _start_afresh(self) -> None: ...


_holders: weakref.WeakSet[StartsAfresh] = weakref.WeakSet()


def start_afresh_after_fork(holder: StartsAfresh) -> None:
    """Have `holder._start_afresh()` called in every child."""
    _holders.add(holder)


def _in_child() -> None:
    for holder in list(_holders):
        holder._start_afresh()  # noqa: SLF001 (that is what it is for)


# Windows has no fork
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_in_child)
