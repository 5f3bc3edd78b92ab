"""A FastAPI dependency that gives the endpoint a message, and marks it as handled if the endpoint succeeded.

Rule 1: a request that holds no message, or one that was handled, does not reach the endpoint.
Rule 2: the endpoint fails by raising, an `HTTPException` too, or by setting a status from 400 on its `Response`
        parameter. Then the message is as unseen, so that the service may post it again.
        A dependency does not see a `Response` that the endpoint returns: do not fail with one.
"""

# no `from __future__ import annotations` here: FastAPI cannot look up names that an object's `__call__` has as strings
import contextlib
from collections.abc import AsyncGenerator, Generator, Sequence
from typing import TYPE_CHECKING, final

try:
    from fastapi import HTTPException, Request, Response
except ImportError as error:
    raise ImportError(
        "cloudware_async.webhooks.fastapi needs FastAPI: pip install 'cloudware-async[fastapi]'", name=error.name
    ) from error

from cloudware_async._models import Message
from cloudware_async.webhooks._effects import AsyncEffects
from cloudware_async.webhooks._gate import MAX_BODY, Gate, response_headers
from cloudware_async.webhooks._intake import take_in
from cloudware_async.webhooks._log import SecretFilter, hide_from_servers, log_store_failure
from cloudware_async.webhooks._receiver import read_store
from cloudware_async.webhooks._store import Standing, Store
from cloudware_async.webhooks._turn import Turns

if TYPE_CHECKING:
    import logging


@final
class Webhook:
    """Gives an endpoint each message that the service posts, once.

    It is a dependency:

        webhook = Webhook(secret=SECRET)

        @app.api_route("/webhooks/{rest:path}", methods=["GET", "HEAD", "OPTIONS", "POST", "PUT", "PATCH", "DELETE"])
        async def receive(sms: Annotated[Message, Depends(webhook, scope="function")]) -> None: ...

    The route takes every method and path under a prefix, so that whoever lacks the secret gets 401 and learns nothing
    else. The endpoint fails by raising, or by setting a status from 400 on its `Response` parameter: a `Response`
    that it returns is not seen, and the message counts as handled.

    With `scope="function"` a message is marked as handled before the answer is sent; without, after.

    Args:
        secret: what whoever posts must know, as the last segment of the path or as the password of HTTP basic auth:
            one, or two while the new one replaces the old one. Make it with `new_secret()`.
        store: remembers what was handled; by default a `MemoryStore`. No store keeps messages for an endpoint
            beyond the request.
        max_body: bytes; the longest body. By default 64 KiB.
        allow_unauthenticated: start without a secret; anybody may then post texts.

    Attributes:
        log_filter: takes the secrets out of log records; see `Receiver`.

    Raises:
        ConfigurationError: there is no secret and no `allow_unauthenticated=True`, a secret has less than
            128 bits, or an option is out of its range.
    """

    def __init__(
        self,
        *,
        secret: str | Sequence[str] | None = None,
        store: Store | None = None,
        max_body: int = MAX_BODY,
        allow_unauthenticated: bool = False,
    ) -> None:
        self._gate = Gate(secret, max_body=max_body, allow_unauthenticated=allow_unauthenticated)
        self._store = read_store(store)
        self._turns = Turns(self._store)
        self.log_filter: logging.Filter = SecretFilter(self._gate.secrets)
        hide_from_servers(self._gate.secrets)

    async def __call__(self, request: Request, response: Response) -> AsyncGenerator[Message, None]:
        """Give the message of one request; FastAPI calls it.

        Raises:
            HTTPException: the request does not reach the endpoint; it is answered as `Receiver` says.
        """
        effects = AsyncEffects(self._store)
        inbound = await take_in(
            self._gate, effects, request.method, request.scope["path"], request.headers.raw, request.stream()
        )
        if isinstance(inbound, int):
            raise HTTPException(inbound, headers=response_headers(inbound))
        with _answered_with_500():
            standing = await self._turns.claim(effects, inbound.key)
        if standing is not Standing.CLAIMED:
            status = 200 if standing is Standing.HANDLED else 503
            raise HTTPException(status, headers=response_headers(status))
        is_handled = False
        try:
            yield inbound.message
            # None unless the endpoint set it
            is_handled = (response.status_code or 200) < 400
        finally:
            with _answered_with_500():
                await self._turns.settle(effects, inbound.key, is_handled=is_handled)


@contextlib.contextmanager
def _answered_with_500() -> Generator[None]:
    """Log that the store failed, and have it answered as a receiver would."""
    try:
        yield
    except Exception as error:  # noqa: BLE001 (whatever a store raises)
        log_store_failure(error)
        raise HTTPException(500) from None
