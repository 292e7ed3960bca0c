"""Tricks with which a client that logged in tries to write in another's name: each is refused."""

from __future__ import annotations

import asyncio
import smtplib

import pytest

from dialogues.dialogue import client_tls
from paquebot.smtp_ingress.session import Role
from smtp_world import PASSWORD, SmtpStack

_TRICKS = {
    "plain": b"From: bob@paquebot.test\r\n",
    "case of the name": b"fRoM: bob@paquebot.test\r\n",
    "space before the colon": b"From : bob@paquebot.test\r\n",
    "folded": b"From:\r\n Bob\r\n\t<bob@paquebot.test>\r\n",
    "second field": b"From: alice@paquebot.test\r\nFrom: bob@paquebot.test\r\n",
    "first of two fields": b"From: bob@paquebot.test\r\nFrom: alice@paquebot.test\r\n",
    "second author": b"From: alice@paquebot.test, bob@paquebot.test\r\n",
    "author in a group": b"From: us: alice@paquebot.test, bob@paquebot.test;\r\n",
    "own address in the name": b'From: "alice@paquebot.test" <bob@paquebot.test>\r\n',
    "own address in a comment": b"From: (alice@paquebot.test) bob@paquebot.test\r\n",
    "comment in the address": b"From: bob(x)@(y)paquebot.test\r\n",
    "quoted local part": b'From: "bob"@paquebot.test\r\n',
    "source route": b"From: <@paquebot.test:bob@paquebot.test>\r\n",
    "behind a line that is no field": b"From: alice@paquebot.test\r\nno field\r\nFrom: bob@paquebot.test\r\n",
    "upper case": b"From: BOB@PAQUEBOT.TEST\r\n",
    "another domain": b"From: alice@elsewhere.example\r\n",
    "more authors than are looked at": b"From: " + b", ".join([b"alice@paquebot.test"] * 40) + b"\r\n",
    "no address": b"From: bob\r\n",
    "empty": b"From:\r\n",
    "none": b"Subject: none\r\n",
    "foreign sender": b"From: alice@paquebot.test\r\nSender: bob@paquebot.test\r\n",
    "second sender": b"From: alice@paquebot.test\r\nSender: alice@paquebot.test\r\nSender : bob@paquebot.test\r\n",
}


def _send(port: int, header: bytes) -> int:
    with smtplib.SMTP_SSL("127.0.0.1", port, timeout=20, context=client_tls()) as client:
        client.login("alice@paquebot.test", PASSWORD)
        assert client.mail("alice@paquebot.test")[0] == 250
        assert client.rcpt("bob@paquebot.test")[0] == 250
        return client.data(header + b"\r\nHello\r\n")[0]


@pytest.mark.parametrize("policy", ["refuse", "rewrite"])
async def test_no_trick_writes_in_the_name_of_another(smtp_stack: SmtpStack, policy: str) -> None:
    after = await smtp_stack.last_sequence()
    async with smtp_stack.serving(PAQUEBOT_SUBMISSION_SENDER=policy) as running:
        (port,) = running.ports(Role.SUBMISSIONS)
        codes = {trick: await asyncio.to_thread(_send, port, header) for trick, header in _TRICKS.items()}
    kept = await smtp_stack.kept(after)
    if policy == "refuse":
        assert set(codes.values()) == {550}, codes
        assert not kept
        return
    mended = {trick for trick, code in codes.items() if code == 250}
    assert mended == {"empty", "none", "foreign sender", "second sender"}
    assert not [one for one in kept if b"bob" in one.raw.partition(b"\r\n\r\n")[0].replace(b"for <bob@", b"")]
