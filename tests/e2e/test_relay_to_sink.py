"""A platform relays to `paquebot sink` over a static route: a server of another implementation (decision 44)."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

from tests.e2e.platforms import Platform, running, until
from tests.support.sink_process import sink_process

_SUBJECT = "Ünd the other domain"


def _send(platform: Platform, *recipients: str) -> None:
    sender = platform.address("alice")
    content = f"From: {sender}\r\nSubject: {_SUBJECT}\r\n\r\n.\r\n..two dots\r\n".encode()
    with platform.submission("alice") as client:
        assert client.sendmail(sender, recipients, content, ["SMTPUTF8", "BODY=8BITMIME"]) == {}


async def test_mail_for_another_domain_reaches_the_sink_after_a_retry(tmp_path: Path) -> None:
    options = ("--domain", "sink.test", "--greylist", "1s", "--refuse", "nobody@sink.test", "--count", 1, "--json")
    kept = tmp_path / "kept"
    with sink_process(*options, "--directory", kept) as sink:
        settings = {"PAQUEBOT_RELAY_ROUTES": f"sink.test=[127.0.0.1]:{sink.port}", "PAQUEBOT_RELAY_RETRY": "1s"}
        async with running(tmp_path / "platform", "routed.test", settings=settings) as platform:
            await asyncio.to_thread(_send, platform, "carol@sink.test", "nobody@sink.test")
            out, err = await asyncio.to_thread(sink.process.communicate, timeout=60)
            await until(lambda: platform.subjects("alice"), "the notification about nobody")
            sender = platform.address("alice")
    assert sink.process.returncode == 0, err
    (line,) = map(json.loads, out.splitlines())
    assert (line["reverse_path"], line["recipients"], line["subject"]) == (sender, ["carol@sink.test"], _SUBJECT)
    assert f"<{sender}> to <carol@sink.test>  451 4.7.1 Greylisted" in err
    assert f"<{sender}> to <nobody@sink.test>  550 5.1.1 No such mailbox" in err
    (file,) = kept.iterdir()
    assert file.read_bytes().endswith(f"Subject: {_SUBJECT}\r\n\r\n.\r\n..two dots\r\n".encode())
