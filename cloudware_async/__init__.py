"""The Cloudware SMS API for Python: async first, and blocking.

You always know whether your text may have gone out, and nobody is texted twice behind your back.
"""

from cloudware_async._client import AsyncCloudware
from cloudware_async._errors import (
    APIConnectionError,
    APIResponseError,
    APIStatusError,
    APITimeoutError,
    AuthenticationError,
    BadRequestError,
    CloudwareError,
    ConfigurationError,
    ConflictError,
    InvalidArgumentError,
    NotFoundError,
    PaginationError,
    PermissionDeniedError,
    RateLimitError,
    ServerError,
    UnprocessableEntityError,
    WebhookAuthenticationError,
    WebhookError,
    WebhookPayloadError,
)
from cloudware_async._models import BulkReport, Draft, Message, Page, Receipt, SendResult
from cloudware_async._pager import AsyncMessagePager
from cloudware_async._retry import RetryPolicy
from cloudware_async._sync import Cloudware
from cloudware_async._sync_base import MessagePager

__all__ = [
    "APIConnectionError",
    "APIResponseError",
    "APIStatusError",
    "APITimeoutError",
    "AsyncCloudware",
    "AsyncMessagePager",
    "AuthenticationError",
    "BadRequestError",
    "BulkReport",
    "Cloudware",
    "CloudwareError",
    "ConfigurationError",
    "ConflictError",
    "Draft",
    "InvalidArgumentError",
    "Message",
    "MessagePager",
    "NotFoundError",
    "Page",
    "PaginationError",
    "PermissionDeniedError",
    "RateLimitError",
    "Receipt",
    "RetryPolicy",
    "SendResult",
    "ServerError",
    "UnprocessableEntityError",
    "WebhookAuthenticationError",
    "WebhookError",
    "WebhookPayloadError",
]
