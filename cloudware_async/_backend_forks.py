"""What must start afresh in a child process after `fork`.

Rule 1: a lock may be held by a thread that the child does not have; a connection and a claim are the parent's.
Rule 2: the child ends nothing of the parent's, and holds nothing that would outlive the parent.
"""

from __future__ import annotations

import os
import weakref
from typing import Protocol, runtime_checkable


class StartsAfresh(Protocol):
    """Whatever holds locks, threads or connections."""

    def _start_afresh(self) -> None: ...


@runtime_checkable
class PreparesForFork(Protocol):
    """Whatever may not be held while the process forks."""

    def _before_fork(self) -> None: ...

    def _after_fork_in_parent(self) -> None: ...


_holders: weakref.WeakSet[StartsAfresh] = weakref.WeakSet()
# between `fork`'s two ends; forking is one thread's at a time
_prepared: list[PreparesForFork] = []


def start_afresh_after_fork(holder: StartsAfresh) -> None:
    """Have `holder._start_afresh()` called in every child."""
    _holders.add(holder)


def _before() -> None:
    for holder in list(_holders):
        if isinstance(holder, PreparesForFork):
            holder._before_fork()  # noqa: SLF001 (that is what it is for)
            _prepared.append(holder)


def _in_parent() -> None:
    while _prepared:
        _prepared.pop()._after_fork_in_parent()  # noqa: SLF001 (the same)


def _in_child() -> None:
    _prepared.clear()
    for holder in list(_holders):
        holder._start_afresh()  # noqa: SLF001 (the same)


if hasattr(os, "register_at_fork"):  # pragma: no branch (Windows has no fork)
    os.register_at_fork(before=_before, after_in_parent=_in_parent, after_in_child=_in_child)
