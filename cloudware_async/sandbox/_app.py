"""The documented API as an ASGI application over the stored texts.

Rule 1: answers have exactly the documented shape. What is not documented is decided here:
        - errors are `{"status": "error", "message": …}` with the usual statuses;
        - a receipt's `id` is the later `message_id`;
        - a queued text is listed at once, as a sent one is;
        - a text sent without `from` comes from `DEVICE`;
        - the last page's `next_page` is null.
Rule 2: a listing is oldest first. A page's token holds the last id before it and the filters: whatever comes
        in during a walk, the walk skips nothing and repeats nothing.
Rule 3: `next_page` is on the origin that the request came to, under whatever name that was.
Rule 4: what is no part of the service lies beside `/v1`: the call that lets a text come in.
Rule 5: `to` is any string that is not empty: the vendor's own samples send "recipient_number".
"""

from __future__ import annotations

import base64
import json
import secrets
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, unquote

import attrs
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from cloudware_async.sandbox._storage import FILTERS, Storage

if TYPE_CHECKING:
    from collections.abc import Callable

    from starlette.types import Lifespan

    from cloudware_async._privacy import Secret
    from cloudware_async.sandbox._storage import Record

# our own number, in the vendor's example
DEVICE = "0987654321"
MAX_BODY = 1024 * 1024
_GREATEST_ID = 2**63 - 1


@attrs.frozen
class Api:
    """The three calls of the API, and the one that lets a text come in.

    Args:
        storage: where texts are kept.
        access_token: what a caller must bear.
        page_size: the most messages on a page.
        list_sent: whether sent texts are listed beside received ones.
        let_in: takes an inbound text's `from`, `to` and text.
    """

    storage: Storage
    access_token: Secret
    page_size: int
    list_sent: bool
    let_in: Callable[[str, str, str], Record]

    async def send(self, request: Request) -> Response:
        """`POST /sms/send`."""
        return await self._take(request, "Message sent")

    async def queue(self, request: Request) -> Response:
        """`POST /sms/queue`."""
        return await self._take(request, "Message queued")

    async def messages(self, request: Request) -> Response:
        """`GET /sms/messages`."""
        self._check_token(request)
        query: str = request.scope["query_string"].decode("ascii", "replace")
        after = 0
        token = request.query_params.get("token")
        if token is not None:
            after, query = _read_page_token(token)
        filters = {name: value for name, value in parse_qsl(query) if name in FILTERS}
        # one more than a page, to know whether there is another
        records = self.storage.listing(after=after, limit=self.page_size + 1, filters=filters, list_sent=self.list_sent)
        page = records[: self.page_size]
        next_page = None
        if len(records) > len(page):
            token = _write_page_token(int(page[-1]["message_id"]), query)
            next_page = str(request.url.replace(query=f"token={token}"))
        return JSONResponse({"query": unquote(query), "data": page, "next_page": next_page})

    async def receive(self, request: Request) -> Response:
        """`POST /sandbox/messages`: give the message that came in."""
        self._check_token(request)
        fields = await _read_fields(request)
        to = _read_field(fields, "to", default=DEVICE)
        return JSONResponse(self.let_in(_read_field(fields, "from"), to, _read_field(fields, "message")))

    async def _take(self, request: Request, description: str) -> Response:
        self._check_token(request)
        fields = await _read_fields(request)
        record = self.storage.add(
            kind="message_sent",
            from_=_read_field(fields, "from", default=DEVICE),
            to=_read_field(fields, "to"),
            message=_read_field(fields, "message"),
        )
        data = {
            "id": record["message_id"],
            "name": "SMS",
            "description": description,
            "created_at": record["created_at"],
            "updated_at": record["created_at"],
        }
        return JSONResponse({"data": data, "status": "success"})

    def _check_token(self, request: Request) -> None:
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        given, wanted = token.strip().encode("latin-1"), self.access_token.reveal().encode()
        if scheme.lower() != "bearer" or not secrets.compare_digest(given, wanted):
            raise HTTPException(401, "The access token is missing or wrong.", {"WWW-Authenticate": "Bearer"})


def build_app(api: Api, lifespan: Lifespan[Starlette]) -> Starlette:
    """Make the application that serves the API under `/v1` (rule 4)."""
    routes = [
        Route("/v1/sms/send", api.send, methods=["POST"]),
        Route("/v1/sms/queue", api.queue, methods=["POST"]),
        Route("/v1/sms/messages", api.messages, methods=["GET"]),
        Route("/sandbox/messages", api.receive, methods=["POST"]),
    ]
    handlers = {HTTPException: _explain, ClientDisconnect: _give_up, Exception: _apologise}
    app = Starlette(routes=routes, exception_handlers=handlers, lifespan=lifespan)
    # a path with a slash too many is none of the API's
    app.router.redirect_slashes = False
    return app


async def _read_fields(request: Request) -> dict[str, Any]:
    media_type = request.headers.get("content-type", "").partition(";")[0].strip()
    if media_type.lower() != "application/json":
        raise HTTPException(415, "Send JSON, with Content-Type: application/json.")
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > MAX_BODY:
            raise HTTPException(413, f"The body is longer than {MAX_BODY} bytes.")
    try:
        fields = json.loads(body)
    except (ValueError, RecursionError):
        raise HTTPException(400, "The body is not JSON.") from None
    if not isinstance(fields, dict):
        raise HTTPException(422, "The body must be a JSON object.")
    return fields


def _read_field(fields: dict[str, Any], name: str, default: str | None = None) -> str:
    value = fields.get(name)
    if value is None:
        value = default
    if not isinstance(value, str) or not value:
        raise HTTPException(422, f"{name} must be a string that is not empty.")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise HTTPException(422, f"{name} holds half of a surrogate pair.") from None
    return value


def _write_page_token(after: int, query: str) -> str:
    return base64.urlsafe_b64encode(json.dumps([after, query]).encode()).decode().rstrip("=")


def _read_page_token(token: str) -> tuple[int, str]:
    try:
        after, query = json.loads(base64.urlsafe_b64decode(token + "=="))
        query.encode()
    except (ValueError, TypeError, AttributeError, RecursionError):
        after, query = None, ""
    if type(after) is not int or not 0 <= after <= _GREATEST_ID:
        raise HTTPException(400, "token is none that next_page gave.")
    return after, query


def _error(status: int, message: str, headers: dict[str, str] | None = None) -> Response:
    return JSONResponse({"status": "error", "message": message}, status, headers)


async def _explain(_: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)  # noqa: S101 (it is registered for nothing else)
    return _error(error.status_code, error.detail, dict(error.headers or {}))


async def _give_up(_: Request, __: Exception) -> Response:
    # the caller is gone: nobody reads it
    return Response(status_code=400)


async def _apologise(_: Request, __: Exception) -> Response:
    return _error(500, "The sandbox failed; its log says why.")
