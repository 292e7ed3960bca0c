"""A message with a line of 5 MiB, from another host into a mailbox, and out of it by IMAP and POP3 as it came in."""

from __future__ import annotations

import asyncio
import poplib
from typing import cast

import pytest

from tests.e2e.platforms import Platform, until

SUBJECT = "in one line"
LINE = b"." + b"<b>word</b> " * (5 * 2**20 // 12) + b"needle"
REFERENCES = b"References:" + b" <a@example.org>" * 5000
HEADER = b"From: web@shop.example\r\nSubject: " + SUBJECT.encode() + b"\r\n" + REFERENCES + b"\r\n"
MESSAGE = HEADER + b"\r\n" + LINE + b"\r\n.end\r\n"


def _send(platform: Platform) -> None:
    with platform.mx() as client:
        client.ehlo("PC(2)")
        client.sendmail("root@web_01.example", [platform.address("bob")], MESSAGE)


def _read_by_imap(platform: Platform) -> tuple[bytes, list[list[bytes]]]:
    with platform.imap("bob") as client:
        client.select("INBOX", readonly=True)
        criteria = (("SUBJECT", f'"{SUBJECT}"'), ("TEXT", '"needle"'), ("HEADER", "References", "a@example.org"))
        found = [client.search(None, *wanted)[1] for wanted in criteria]
        number = found[0][0].split()[-1].decode()
        (part, _) = client.fetch(number, "(BODY.PEEK[])")[1]
        assert isinstance(part, tuple)
        return part[1], found


def _read_by_pop3(platform: Platform, monkeypatch: pytest.MonkeyPatch) -> tuple[int, bytes, bytes]:
    monkeypatch.setattr(poplib, "_MAXLINE", 2**24)
    client = platform.pop3("bob")
    try:
        numbers = [int(line.split()[0]) for line in client.list()[1]]
        tops = {number: b"\r\n".join(client.top(number, 0)[1]) for number in numbers}
        number = next(one for one, top in tops.items() if SUBJECT.encode() in top)
        _, lines, _ = client.retr(number)
        size = cast(bytes, client.list(number)).split()[2]  # with a number it is one line
        return int(size), b"\r\n".join(lines) + b"\r\n", tops[number]
    finally:
        client.quit()


async def test_a_long_line_comes_out_as_it_came_in(
    platforms: tuple[Platform, Platform], monkeypatch: pytest.MonkeyPatch
) -> None:
    here, _ = platforms
    await asyncio.to_thread(_send, here)
    await until(lambda: SUBJECT in here.subjects("bob"), "the message in bob's mailbox")
    whole, found = await asyncio.to_thread(_read_by_imap, here)
    assert whole.endswith(MESSAGE)
    assert whole.startswith(b"Return-Path: <root@web_01.example>\r\n")
    assert b"\r\nReceived: from [127.0.0.1] (helo PC\\(2\\))\r\n" in whole
    assert [numbers[0].split()[-1:] for numbers in found] == [found[0][0].split()[-1:]] * 3
    size, retrieved, top = await asyncio.to_thread(_read_by_pop3, here, monkeypatch)
    assert (size, retrieved) == (len(whole), whole)
    assert REFERENCES in top
    assert b"needle" not in top
