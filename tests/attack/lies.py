"""Check of readers: S3 flips one bit of each body that it gives."""

from __future__ import annotations

import asyncio
import poplib
from contextlib import suppress

from tests.attack.clients import DEADLINE_SECONDS
from tests.attack.field import DOMAIN, HOST, Field, relay_settings
from tests.attack.finding import Finding
from tests.e2e.platforms import Platform, free_ports, running, until
from tests.support.lying_s3 import Lie, LyingS3

_COUNT, _RELAYED = 20, 10
_TEXTS = [
    b"Subject: %d\r\n\r\n" % number + b"".join(b"%x\r\n" % number**power for power in range(100))
    for number in range(1000, 1000 + _COUNT)
]


async def flipped_bits(place: Field) -> list[Finding]:
    """On a platform of its own; the mail is there before the first lie."""
    ports = free_ports()
    async with LyingS3(HOST, ports.engines.s3) as s3:
        settings = {**relay_settings(place.dns, place.good), "PAQUEBOT_S3_ENDPOINT": s3.endpoint}
        async with running(place.directory / "lies", DOMAIN, ports=ports, settings=settings) as platform:
            await asyncio.to_thread(_fill, platform)
            await until(lambda: len(platform.subjects("bob")) == _COUNT, "the messages")
            s3.set_lie(Lie.FLIP)
            fetched = await asyncio.to_thread(_fetched, platform)
            retrieved = await asyncio.to_thread(_retrieved, platform)
            place.good.messages.clear()
            lies = s3.lies
            await asyncio.to_thread(_submit, platform)
            with suppress(TimeoutError):  # sent wrong, or read again and again
                await place.good.until(lambda: len(place.good.messages) == _RELAYED or s3.lies > lies + 40, 10.0)
            s3.set_lie(Lie.NONE)
            later = await asyncio.to_thread(_fetched, platform)
            with suppress(TimeoutError):
                await place.good.until(lambda: len(place.good.messages) == _RELAYED, DEADLINE_SECONDS)
            relayed = [message.content for message in place.good.messages]
    answers = (("IMAP", fetched), ("POP3", retrieved), ("relay", relayed), ("IMAP after the lies", later))
    return [_judged(name, content) for name, content in answers]


def _judged(name: str, answers: list[bytes]) -> Finding:
    wrong = sum(not answer.endswith(tuple(_TEXTS)) for answer in answers)
    what = f"wrong bodies over {name}, S3 with a bit flipped in each answer"
    return Finding(what, f"{wrong} of {len(answers)} given", "wrong" if wrong else "")


def _fill(platform: Platform) -> None:
    with platform.mx() as client:
        for text in _TEXTS:
            client.sendmail("a@ordinary.test", [platform.address("bob")], text)


def _submit(platform: Platform) -> None:
    with platform.submission("alice") as client:
        for text in _TEXTS[:_RELAYED]:
            author = b"From: <%s>\r\n" % platform.address("alice").encode()
            client.sendmail(platform.address("alice"), ["someone@good.test"], author + text)


def _fetched(platform: Platform) -> list[bytes]:
    """The bodies that were given; others were refused."""
    client = platform.imap("bob")
    client.select("INBOX", readonly=True)
    found: list[bytes] = []
    for number in range(1, _COUNT + 1):
        _, parts = client.fetch(str(number), "(BODY.PEEK[])")
        found += [part[1] for part in parts if isinstance(part, tuple)]
    client.logout()
    return found


def _retrieved(platform: Platform) -> list[bytes]:
    client = platform.pop3("bob")
    found: list[bytes] = []
    for number in range(1, _COUNT + 1):
        with suppress(poplib.error_proto):
            found.append(b"\r\n".join(client.retr(number)[1]) + b"\r\n")
    client.quit()
    return found
