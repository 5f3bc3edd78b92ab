"""Real texts, and nasty ones, through a sandbox in a process of its own and back, byte for byte."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from worlds import World

from cloudware_async import Draft

# UCI SMS Spam Collection, CC BY 4.0: 5,574 messages, not part of this project
COLLECTION = Path(__file__).parents[2] / "shared" / "data" / "sms-spam-collection.tsv"
SANDBOX = """
import sys
from cloudware_async.sandbox import Sandbox
with Sandbox(access_token="token", page_size=200) as sandbox:
    print(sandbox.base_url, flush=True)
    sys.stdin.read()
"""

NASTY = [
    "👩‍👩‍👧‍👦 🏳️‍🌈 🧑🏿‍🚀 🇳🇬 ❤️ ☠",
    "שלום עולם — مرحبا بالعالم",
    "\u202eright to left\u202c \u2066isolated\u2069 \u200f\u200e",
    "Z͑̓҉á̴l̡̍g̷̀o̶ ệ ệ Å Å",
    "क्षत्रिय ज्ञान ஸ்ரீ น้ำผึ้ง သင့်အစားအစာ ក្រុង",
    "NUL \x00, bell \x07, escape \x1b[31m, delete \x7f, C1 \x9b",
    "".join(map(chr, range(1, 32))),
    "lines\r\nand\ttabs\v\f and\u2028separators\u2029 and \x85",
    "\ufeffbyte order mark\ufeff",
    "not a character \uffff \ufdd0 \U0010ffff and private \ue000",
    "𝔘𝔫𝔦𝔠𝔬𝔡𝔢 𠮷野家 ｶﾞﾗｽ ㍿ ﷽",
    '"quoted" \\backslash\\ /slash/ {"to": "json"} <b>&amp;</b> %2B+%00 \\u0041',
    "'; DROP TABLE messages; --",
    " ",
    "\u00a0",
    "\u200b",
    "0",
    "null",
    "ß ſ ı İ ǆ ﬀ",
    "x" * 1600,
    "🙂" * 1600,
    "é" * 1600,
]


@pytest.fixture
def base_url() -> Iterator[str]:
    """A sandbox in a process of its own."""
    with subprocess.Popen(
        [sys.executable, "-c", SANDBOX], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        yield process.stdout.readline().strip()
        process.stdin.close()


async def there_and_back(world: World, base_url: str, texts: list[str]) -> None:
    async with world.make("token", base_url=base_url) as cloudware:
        report = await cloudware.send_many([Draft("2348012345678", text) for text in texts])
        assert len(texts) == len(report.accepted)
        async with cloudware.messages().read_ahead() as messages:
            back = Counter([sms.message.encode() async for sms in messages])
    assert Counter(text.encode() for text in texts) == back


@pytest.mark.skipif(not COLLECTION.exists(), reason="the collection is not beside this checkout")
async def test_five_thousand_real_texts_come_back(world: World, base_url: str) -> None:
    """Every text of the collection is sent and streamed back, the same bytes as often."""
    lines = COLLECTION.read_text(encoding="utf-8").split("\n")
    texts = [line.partition("\t")[2] for line in lines if line]
    assert 5574 == len(texts)
    await there_and_back(world, base_url, texts)


async def test_nasty_texts_come_back(world: World, base_url: str) -> None:
    """So is every text of a list of nasty ones."""
    await there_and_back(world, base_url, NASTY)
