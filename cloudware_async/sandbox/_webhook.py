"""Posting inbound texts to the user's webhook.

Rule 1: a text is posted as one documented MESSAGE, one after the other in the order received; twice or out of
        order only where that was asked for.
Rule 2: an attempt that finds no receiver, no answer in time or no 2xx is made again, after a pause that
        doubles; after the last one the text is given up, with a warning that shows no more than its id.
Rule 3: it works while `running()` is entered. What is still to be posted when that ends is dropped at once.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
from typing import TYPE_CHECKING, final

import httpx

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable

    from cloudware_async.sandbox._storage import Record

# seconds
_TIMEOUT = 5.0
_FIRST_PAUSE = 0.1
_LONGEST_PAUSE = 5.0
_GATHERING = 0.1

_HEADERS = {"Content-Type": "application/json"}

_logger = logging.getLogger("cloudware_async.sandbox")


@final
class Webhook:
    """Posts inbound texts to a URL, in the background.

    Args:
        url: where they go; a user name and a password in it go as HTTP basic auth.
        attempts: the most requests for one delivery, from 1.
        repeat: deliver each text twice.
        shuffle: deliver out of order: what comes in within 0.1 seconds goes out newest first.

    Raises:
        ValueError: `url` is no absolute http or https URL, or `attempts` is less than 1.
    """

    def __init__(self, url: str, *, attempts: int, repeat: bool, shuffle: bool) -> None:
        try:
            self._url = httpx.URL(url)
            host, port = self._url.host, self._url.port or 0
        except (httpx.InvalidURL, UnicodeError):
            self._url, host, port = httpx.URL(), "", 0
        if self._url.scheme not in ("http", "https") or not host or port > 65535:
            raise ValueError("webhook_url must be like 'http://127.0.0.1:8000/webhook'")
        if attempts < 1:
            raise ValueError("webhook_attempts must be a whole number from 1")
        user = self._url.username or self._url.password
        self._auth = httpx.BasicAuth(self._url.username, self._url.password) if user else httpx.Auth()
        self._attempts = attempts
        self._repeat = repeat
        self._shuffle = shuffle
        self._hand_over: Callable[[Record], object] | None = None

    def post(self, record: Record) -> None:
        """Hand over one text, from any thread, to be posted in a moment; it is dropped if nothing runs."""
        hand_over = self._hand_over
        if hand_over is not None:
            # a loop that was closed just now raises: it was too late for this text
            with contextlib.suppress(RuntimeError):
                hand_over(record)

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncGenerator[None]:
        """Post what is handed over, until this ends."""
        waiting: asyncio.Queue[Record] = asyncio.Queue()
        worker = asyncio.create_task(self._work(waiting))
        loop = asyncio.get_running_loop()
        self._hand_over = lambda record: loop.call_soon_threadsafe(waiting.put_nowait, record)
        try:
            yield
        finally:
            self._hand_over = None
            worker.cancel()
            await asyncio.wait([worker])

    async def _work(self, waiting: asyncio.Queue[Record]) -> None:
        # the receiver is the user's own: no proxy of the environment stands before it. A transport by itself asks
        # for none, and logs no URL, which may hold the receiver's secret
        async with httpx.AsyncHTTPTransport() as transport:
            while True:
                records = [await waiting.get()]
                if self._shuffle:
                    await asyncio.sleep(_GATHERING)
                    while not waiting.empty():
                        records.append(waiting.get_nowait())
                    records.reverse()
                for record in records:
                    for _ in range(2 if self._repeat else 1):
                        await self._deliver(transport, record)

    async def _deliver(self, transport: httpx.AsyncHTTPTransport, record: Record) -> None:
        problem = await self._attempt(transport, record)
        pause = _FIRST_PAUSE
        for _ in range(self._attempts - 1):
            if problem is None:
                return
            await asyncio.sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE)
            problem = await self._attempt(transport, record)
        if problem is not None:
            message = "the webhook did not take message %s, tried %d times: %s"
            _logger.warning(message, record["message_id"], self._attempts, problem)

    async def _attempt(self, transport: httpx.AsyncHTTPTransport, record: Record) -> str | None:
        """Post once; give what went wrong, or None."""
        body = json.dumps(record, ensure_ascii=False).encode()
        request = httpx.Request("POST", self._url, content=body, headers=_HEADERS)
        try:
            async with asyncio.timeout(_TIMEOUT):
                response = await transport.handle_async_request(next(self._auth.auth_flow(request)))
                await response.aread()
        except (httpx.HTTPError, TimeoutError) as error:
            return type(error).__name__
        return None if response.is_success else f"HTTP {response.status_code}"
