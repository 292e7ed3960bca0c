"""Checks of what is not for strangers: hosts inside, ports that listen, packs that are written already."""

from __future__ import annotations

import asyncio
import contextlib
import time

from paquebot.blobs import BlobStore, BlobsUnavailable
from paquebot.cli.engines.ports import LOOPBACK
from paquebot.runtime.engine_settings import S3Settings
from paquebot.runtime.settings import load
from tests.attack.clients import DEADLINE_SECONDS, relay, submit, talk
from tests.attack.field import BANNER, HOST, INNER_DOMAINS, INNER_HOST, Field, enrol
from tests.attack.finding import Finding, none_of
from tests.attack.insiders import session
from tests.cluster.probes import stranger
from tests.cluster.probes.listeners import listeners
from tests.e2e.listening import MAIL, TLS, converse, pids, ports

_POLL_SECONDS = 0.1


async def inner_hosts(place: Field) -> list[Finding]:
    """Mail of an account and a report for a stranger, to a host that relay must not reach."""
    curious = f"curious@{place.victim.domain}"
    await enrol(place.platform.plan, curious)
    for domain in INNER_DOMAINS:
        await _want_report(place, domain)
    refused = 0
    recipients = (f"x@[{INNER_HOST}]", *(f"x@{domain}" for domain in INNER_DOMAINS))
    for recipient in recipients:
        try:
            await submit(place, recipient, "knocking", sender=curious)
        except EOFError:  # by the first server
            refused += 1
    reports = await _reports(place, curious, len(recipients) - refused)
    await relay(place)  # what was sent before it has been tried
    return [
        none_of(
            "connections to 127.0.0.4 by a literal, by MX, by its address, and for reports to strangers",
            [f"{len(place.inner.connections)} connections"] * len(place.inner.connections),
        ),
        none_of("reports that show the inner host's banner", [BANNER] * reports.count(BANNER.encode())),
    ]


async def _want_report(place: Field, domain: str) -> None:
    async with talk(place.ports.smtp) as it:
        await it.expect(b"220")
        await it.say(b"EHLO attacker.test\r\n", b"250 ", until=b"250 ")
        await it.say(f"MAIL FROM:<x@{domain}>\r\n".encode(), b"250")
        await it.say(f"RCPT TO:<{place.victim.mallory}> NOTIFY=SUCCESS\r\n".encode(), b"250")
        await it.say(b"DATA\r\n", b"354")
        await it.say(b"Subject: knocking\r\n\r\nx\r\n.\r\n", b"250")


async def _reports(place: Field, address: str, count: int) -> bytes:
    """All that is in the account's INBOX when so many messages are there, or the inner host was reached."""
    end = time.monotonic() + DEADLINE_SECONDS
    while True:
        async with session(place.victim, address) as it:
            await it.ask(b"SELECT INBOX")
            it.writer.write(b"all FETCH 1:* BODY.PEEK[]\r\n")
            text = b""
            async with asyncio.timeout(DEADLINE_SECONDS):
                while not (line := await it.reader.readline()).startswith(b"all "):
                    if not line:
                        raise EOFError
                    text += line
        if text.count(b" FETCH (") >= count or place.inner.connections or time.monotonic() > end:
            return text
        await asyncio.sleep(_POLL_SECONDS)


async def listening(place: Field) -> list[Finding]:
    """Every port of every process, tried without a credential."""
    opened, _ = listeners(pids(place.platform))
    expected = ports(place.platform)
    unknown = [
        f"{host}:{port}" for host, port in opened if (host, port) not in {(LOOPBACK, p) for p in expected.values()}
    ]
    got: list[str] = []
    for name, port in expected.items():
        if name in stranger.TRIES and name != "nats_monitor":  # the monitor has figures alone
            got += [f"{name}: {what}" for what in await asyncio.to_thread(stranger.TRIES[name], HOST, port)]
        if name in MAIL:
            got += await _without_login(place, name, port)
    return [none_of(f"ports that gave something without a credential, of {len(opened)}", unknown + got)]


async def _without_login(place: Field, name: str, port: int) -> list[str]:
    asked, refusal = MAIL[name]
    context = place.tls if name in TLS else None
    said = await converse(port, asked, context, place.platform.plan.hostname)
    return [] if refusal in said else [f"{name}: {said[-80:]!r}"]


async def packs(place: Field) -> list[Finding]:
    """Bytes of the writer's own, under the name of a pack that is there."""
    stores = [
        BlobStore(load(S3Settings, place.platform.plan.service_environment(service)))
        for service in ("smtp_ingress", "delivery")
    ]
    writer, reader = stores
    try:
        pack = await anext(info.pack async for info in reader.list_packs())
        before, _ = await reader.read_start(pack, 1000)
        with contextlib.suppress(BlobsUnavailable):
            await writer.put(pack, b"other bytes")
        after, _ = await reader.read_start(pack, 1000)
    finally:
        for store in stores:
            await store.close()
    return [none_of("packs written over by a writer with the same name", [] if before == after else [pack])]
