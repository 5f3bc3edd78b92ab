"""When a backend is opened.

Rule 1: a backend loads its HTTP library, which takes longer than all the rest: so it is opened when it is first needed,
        once, by whichever thread comes first.
Rule 2: no fork comes in between: the child would wait for ever for the thread that it does not have.
"""

from __future__ import annotations

# here, for an interpreter that ends lets in nothing more that starts threads
import concurrent.futures.thread  # noqa: F401  # pyright: ignore[reportUnusedImport]
import threading
from typing import TYPE_CHECKING

from cloudware_async._backend import CLOSED
from cloudware_async._backend_forks import start_afresh_after_fork
from cloudware_async._errors import ConfigurationError

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
        self._is_closed = False
        self._start_afresh()
        start_afresh_after_fork(self)

    def _start_afresh(self) -> None:
        # a signal's handler may come into the same thread's opening
        self._lock = threading.RLock()

    def _before_fork(self) -> None:
        self._lock.acquire()

    def _after_fork_in_parent(self) -> None:
        self._lock.release()

    @property
    def backend(self) -> Backend:
        """The backend, the same for all threads.

        Raises:
            ConfigurationError: it was closed before it was opened, or cannot be opened.
        """
        if self._backend is None:
            with self._lock:
                self._backend = self._backend or self._open_it()
        return self._backend

    def _open_it(self) -> Backend:
        if self._is_closed:
            raise ConfigurationError(CLOSED)
        try:
            return self._open()
        except (ImportError, AttributeError, OSError) as error:
            # of a signal's handler: the library is half loaded, by the code that it interrupted
            reason = f"{type(error).__name__}: {error}"
        raise ConfigurationError(f"the HTTP library cannot be loaded ({reason})")

    async def close(self) -> None:
        """Close the backend if it is open; it is not opened for that."""
        with self._lock:
            self._is_closed = True
        if self._backend is not None:
            await self._backend.close()
