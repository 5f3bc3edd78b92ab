"""Receive texts in Django, a whole site in one file: `pip install 'cloudware-async[django]'`."""

import os

from django.conf import settings
from django.core.management import execute_from_command_line
from django.urls import re_path

from cloudware_async import Message
from cloudware_async.webhooks import Receiver, SQLiteStore
from cloudware_async.webhooks.django import WebhookView


def handle(sms: Message) -> None:
    """Called once for each text."""
    print(sms.from_, sms.message, flush=True)


receiver = Receiver(handle, secret=os.environ["WEBHOOK_SECRET"], store=SQLiteStore("webhooks.db"))
urlpatterns = [re_path("^webhooks/", WebhookView.as_view(receiver=receiver))]

if __name__ == "__main__":
    settings.configure(ROOT_URLCONF=__name__, ALLOWED_HOSTS=["127.0.0.1"])
    receiver.start()
    execute_from_command_line(["django", "runserver", "--noreload", f"127.0.0.1:{os.environ.get('PORT', '8000')}"])
