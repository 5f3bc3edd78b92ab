"""Pages of a listing in the documented form: every message on them is another one.

Rule 1. A message is made from its number alone, so the gateway keeps none, and two runs list the same.
Rule 2. Texts are as long as texts are, some outside ASCII; each message has two timestamps of its own.
Rule 3. The JSON is compact and in UTF-8: the form that `json.loads`, the baseline, reads fastest.
"""

from __future__ import annotations

import datetime as dt
import json

BEGAN = dt.datetime(2024, 1, 1)  # noqa: DTZ001  (`Z` is written by hand: no offset to format)
TEXTS = tuple(
    json.dumps(text, ensure_ascii=False).strip('"')
    for text in (
        "Your code is",
        "Your table is ready. We keep it for you for fifteen minutes; please show this number:",
        "Está confirmada su cita del martes a las 10:30 en la clínica. Responda NO para cancelarla. Referencia:",
        "Thanks! See you tomorrow.",
        "Parcel is out for delivery between 9 and 11. Someone must sign for it. Track it under\nno.",
        "Ваш заказ готов к выдаче. Номер",
        "STOP",
        'Re: "invoice". We have had your payment, thank you. It will show on your account in two working days under',
    )
)


def make_message(number: int) -> str:
    """Write a message of a listing as JSON."""
    created = BEGAN + dt.timedelta(seconds=number * 37)
    sent = created + dt.timedelta(seconds=1 + number % 50)
    kind = "message_received" if number % 3 else "message_sent"
    return (
        f'{{"type":"{kind}","from":"{23480_0000_0000 + number * 7919 % 10**8}","to":"{4072_0000_000 + number % 9}",'
        f'"message":"{TEXTS[number % len(TEXTS)]} {number}","message_id":"{10**9 + number}",'
        f'"created_at":"{created.isoformat()}Z","sent_at":"{sent.isoformat()}Z"}}'
    )


def make_page(first: int, size: int, next_page: str = "") -> bytes:
    """Write a page of a listing as JSON: `size` messages from number `first` on."""
    messages = ",".join([make_message(number) for number in range(first, first + size)])
    return f'{{"query":"","data":[{messages}],"next_page":"{next_page}"}}'.encode()
