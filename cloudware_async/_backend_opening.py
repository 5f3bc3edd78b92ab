"""When a backend is opened.

Rule 1: a backend loads its HTTP library, which takes longer than all the rest: so it is opened when it is first needed,
        once, by whichever thread comes first.
"""

from __future__ import annotations

# here, for an interpreter that ends lets in nothing more that starts threads
import concurrent.futures.thread  # noqa: F401  # pyright: ignore[reportUnusedImport]
import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from cloudware_async._backend import Backend


class Opening:
    """A backend that is opened when it is first asked for.

    Args:
        open_backend: opens it.
    """

    def __init__(self, open_backend: Callable[[], Backend]) -> None:
        self._open = open_backend
        self._backend: Backend | None = None
        self._lock = threading.Lock()

    @property
    def backend(self) -> Backend:
        """The backend, the same for all threads."""
        if self._backend is None:
            with self._lock:
                self._backend = self._backend or self._open()
        return self._backend
