"""One application for each way of receiving, all with the same receiver behind.

`django_urls` must be made before Django is asked for anything; there is one configuration to a process, so that
the receiver of the running test is looked up when a request comes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import django
import fastapi
import flask
import starlette.applications
import starlette.routing
from aiohttp import web
from django.conf import settings
from django.core.asgi import get_asgi_application
from django.core.wsgi import get_wsgi_application
from django.urls import re_path
from webhook_cases import MAX_BODY, NEW, OLD, PREFIX
from werkzeug.middleware.dispatcher import DispatcherMiddleware

from cloudware_async import Message
from cloudware_async.webhooks import Receiver, Store, asgi, response_headers, wsgi
from cloudware_async.webhooks.django import AsyncWebhookView, WebhookView
from cloudware_async.webhooks.fastapi import Webhook

Handler = Callable[[Message], object]
OPTIONS: dict[str, Any] = {"secret": (NEW, OLD), "max_body": MAX_BODY}
ALL_METHODS = ["GET", "HEAD", "OPTIONS", "POST", "PUT", "PATCH", "DELETE"]


def receiver_of(handler: Handler, *, receivers: list[Receiver] | None = None, **options: Any) -> Receiver:
    """A receiver; it is noted in `receivers`, so that the test can stop it."""
    receiver = Receiver(handler, **{**OPTIONS, **options})
    if receivers is not None:
        receivers.append(receiver)
    return receiver


def asgi_alone(handler: Handler, **options: Any) -> Any:
    return asgi.WebhookApp(receiver_of(handler, **options))


def in_starlette(handler: Handler, **options: Any) -> Any:
    mount = starlette.routing.Mount(PREFIX, asgi_alone(handler, **options))
    return starlette.applications.Starlette(routes=[mount])


def mounted_in_fastapi(handler: Handler, **options: Any) -> Any:
    app = fastapi.FastAPI()
    app.mount(PREFIX, asgi_alone(handler, **options))
    return app


def fastapi_endpoint(handler: Handler, *, store: Store | None = None, **options: Any) -> Any:
    app = fastapi.FastAPI()
    webhook = Webhook(**{**OPTIONS, "store": store, **options})

    @app.api_route(PREFIX + "/{rest:path}", methods=ALL_METHODS)
    async def receive(sms: Message = fastapi.Depends(webhook, scope="function")) -> None:  # noqa: B008
        result = handler(sms)
        if result is not None:
            await result  # type: ignore[misc]

    return app


def wsgi_alone(handler: Handler, **options: Any) -> Any:
    return wsgi.WebhookApp(receiver_of(handler, **options))


def beneath_flask(handler: Handler, **options: Any) -> Any:
    app = flask.Flask("webhooks")
    app.wsgi_app = DispatcherMiddleware(app.wsgi_app, {PREFIX: wsgi_alone(handler, **options)})  # type: ignore[method-assign]
    return app


def in_aiohttp(handler: Handler, **options: Any) -> web.Application:
    receiver = receiver_of(handler, **options)

    async def receive(request: web.Request) -> web.Response:
        status = await receiver.receive(request.method, request.path, request.headers, request.content.iter_any())
        return web.Response(status=status, headers=response_headers(status))

    async def run(_: web.Application) -> Any:
        async with receiver:
            yield

    app = web.Application()
    app.router.add_route("*", PREFIX + "/{rest:.*}", receive)
    app.cleanup_ctx.append(run)
    return app


class _DjangoUrls:
    """The URLs of the running test."""

    urlpatterns: list[Any] = []  # noqa: RUF012 (Django looks them up by this name)


def _configure_django(view: Any, middleware: Sequence[str]) -> None:
    if not settings.configured:
        settings.configure(
            SECRET_KEY="of this test",
            ALLOWED_HOSTS=["*"],
            ROOT_URLCONF=_DjangoUrls,
            LOGGING_CONFIG=None,
        )
        django.setup()
    settings.MIDDLEWARE = [
        "django.middleware.common.CommonMiddleware",
        "django.middleware.csrf.CsrfViewMiddleware",
        *middleware,
    ]
    django.urls.clear_url_caches()
    _DjangoUrls.urlpatterns = [re_path(f"^{PREFIX[1:]}/", view)]


def django_wsgi(handler: Handler, *, view: Any = WebhookView, middleware: Sequence[str] = (), **options: Any) -> Any:
    _configure_django(view.as_view(receiver=receiver_of(handler, **options)), middleware)
    return get_wsgi_application()


def django_asgi(handler: Handler, **options: Any) -> Any:
    _configure_django(AsyncWebhookView.as_view(receiver=receiver_of(handler, **options)), ())
    return get_asgi_application()
