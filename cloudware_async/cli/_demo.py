"""The demo: texts go out to a sandbox and come back through both clients, and are compared.

Rule 1: everything is real but the service: a server, connections, pages, a webhook. Nothing leaves 127.0.0.1.
Rule 2: a text is the same if each client lists it under its id, once, word for word, with the number that it went
        to; and an inbound one, if the webhook brought it so too.
Rule 3: the table ends with the texts and has no edges: terminals disagree about how wide some of them are.
"""

import asyncio
import os
from collections.abc import Sequence
from typing import Literal

import attrs
from rich import box
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from rich.table import Table
from rich.text import Text

from cloudware_async import AsyncCloudware, Draft, Message, SendResult
from cloudware_async.cli._demo_texts import INBOUND, TEXTS
from cloudware_async.cli._ending import Ending, Status
from cloudware_async.cli._listing import escape
from cloudware_async.cli._webhook_receiver import WebhookReceiver
from cloudware_async.sandbox import Sandbox

# small, so that a walk goes over several pages
_PAGE_SIZE = 20
_SENDER = "Demo"
# columns kept free at the right, for texts that a terminal draws wider than rich thinks
_SLACK = 8


@attrs.frozen
class Sample:
    """One text of the demo.

    Attributes:
        alphabet: what it is written in.
        by: how it got to the service.
        message: the message that should come back.
    """

    alphabet: str
    by: Literal["send", "queue", "webhook"]
    message: Message

    def is_in(self, messages: Sequence[Message]) -> bool:
        """Say whether it is among these once, and as it should be."""
        return [sms for sms in messages if sms.message_id == self.message.message_id] == [self.message]


def run_demo(console: Console) -> None:
    """Run the demo and draw it.

    Raises:
        Ending: not every text came back as it was.
        CloudwareError: a call failed.
    """
    # a proxy in the environment is not meant for this
    os.environ["NO_PROXY"] = os.environ["no_proxy"] = "127.0.0.1"
    columns = (TextColumn("{task.description:22}"), BarColumn(), MofNCompleteColumn())
    with (
        WebhookReceiver() as receiver,
        Sandbox(webhook_url=receiver.url, page_size=_PAGE_SIZE) as sandbox,
        Progress(*columns, console=console) as progress,
    ):
        samples = asyncio.run(_send_all(sandbox, progress))
        inbound = sandbox.receive(from_="2348012345678", message=INBOUND)
        samples.append(Sample("Inbound", "webhook", attrs.evolve(inbound, message=INBOUND)))
        by_webhook = [sms for _ in progress.track(range(1), description="Webhook") for sms in receiver.wait()]
        by_async = asyncio.run(_list_async(sandbox, progress, len(samples)))
        with sandbox.sync_client() as cloudware:
            walk = progress.track(cloudware.messages(), len(samples), description="List, Cloudware")
            by_blocking = list(walk)
    checks = [(sample.is_in(by_async), sample.is_in(by_blocking)) for sample in samples]
    is_delivered = samples[-1].is_in(by_webhook)
    console.print(_draw(samples, checks, console.width - _SLACK))
    console.print(Text("The inbound text, as the webhook brought it: ").append_text(_mark(is_same=is_delivered)))
    # neither may list anything besides
    is_complete = len(by_async) == len(by_blocking) == len(samples)
    if not (is_delivered and is_complete and all(map(all, checks))):
        raise Ending("not every text came back as it was", Status.FAILED)
    console.print(f"All {len(samples)} texts came back identical, through AsyncCloudware and through Cloudware.")


async def _send_all(sandbox: Sandbox, progress: Progress) -> list[Sample]:
    async with sandbox.client(from_=_SENDER) as cloudware:
        sent = await _send(cloudware, "send", [(alphabet, text) for alphabet, text, _ in TEXTS], progress)
        queued = await _send(cloudware, "queue", [(alphabet, text) for alphabet, _, text in TEXTS], progress)
    return [sample for pair in zip(sent, queued, strict=True) for sample in pair]


async def _send(
    cloudware: AsyncCloudware, by: Literal["send", "queue"], texts: Sequence[tuple[str, str]], progress: Progress
) -> list[Sample]:
    task = progress.add_task(f"{by.capitalize()}, AsyncCloudware", total=len(texts))

    def advance(result: SendResult) -> None:
        if result.error is not None:
            raise result.error
        progress.advance(task)

    drafts = [Draft(f"23480123456{row:02}", text) for row, (_, text) in enumerate(texts)]
    report = await cloudware.send_many(drafts, via=by, on_result=advance)
    receipts = [result.receipt for result in report.results if result.receipt is not None]
    # the sandbox's own rules: a receipt's id is the later message's, and so is its time
    return [
        Sample(
            alphabet,
            by,
            Message("message_sent", _SENDER, draft.to, text, receipt.id, receipt.created_at, receipt.created_at),
        )
        for (alphabet, text), draft, receipt in zip(texts, drafts, receipts, strict=True)
    ]


async def _list_async(sandbox: Sandbox, progress: Progress, total: int) -> list[Message]:
    task = progress.add_task("List, AsyncCloudware", total=total)
    messages: list[Message] = []
    async with sandbox.client() as cloudware:
        async for sms in cloudware.messages():
            messages.append(sms)
            progress.advance(task)
    return messages


def _draw(samples: Sequence[Sample], checks: Sequence[tuple[bool, bool]], width: int) -> Table:
    table = Table(
        "Alphabet", "By", "Async", "Blocking", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), width=width, expand=True
    )
    # it gets what is left: its longest texts would take the room from all other columns
    table.add_column("Text", ratio=1, no_wrap=True, overflow="ellipsis")
    previous = None
    for sample, (by_async, by_blocking) in zip(samples, checks, strict=True):
        alphabet = "" if sample.alphabet == previous else sample.alphabet
        text = Text(escape(sample.message.message))
        table.add_row(alphabet, sample.by, _mark(is_same=by_async), _mark(is_same=by_blocking), text)
        previous = sample.alphabet
    return table


def _mark(*, is_same: bool) -> Text:
    return Text("same", style="green") if is_same else Text("differs", style="bold red")
