"""The server refuses each attempt of an authenticated client to write in the name of another account."""

from __future__ import annotations

import asyncio
import smtplib

import pytest

from paquebot.smtp_ingress.state import Role
from tests.dialogues.dialogue import client_tls
from tests.support.smtp_world import PASSWORD, SmtpStack

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
    "more authors than are looked at": b"From: "
    + b", ".join(b"alice+%d@paquebot.test" % n for n in range(40))
    + b"\r\n",
    "no address": b"From: bob\r\n",
    "empty": b"From:\r\n",
    "none": b"Subject: none\r\n",
    "foreign sender": b"From: alice@paquebot.test\r\nSender: bob@paquebot.test\r\n",
    "name with a comma, foreign address": b"From: Kock, Alice <bob@paquebot.test>\r\n",
    "foreign address as the first part of a name": b"From: bob@paquebot.test, Alice <alice@paquebot.test>\r\n",
    "foreign address as a part of a name": b"From: Kock, bob@paquebot.test <alice@paquebot.test>\r\n",
    "foreign address as the whole name": b"From: bob@paquebot.test <alice@paquebot.test>\r\n",
    "foreign address in the name": b"From: Bob bob@paquebot.test Kock <alice@paquebot.test>\r\n",
    "foreign address with spaces in the name": b"From: bob @ paquebot . test <alice@paquebot.test>\r\n",
    "foreign address with comments in the name": b"From: bob(x)@(y)paquebot.test <alice@paquebot.test>\r\n",
    "foreign address in the name of a group": b"From: bob@paquebot.test: <alice@paquebot.test>;\r\n",
    "quoted foreign address between commas": b'From: "bob@paquebot.test", Alice <alice@paquebot.test>\r\n',
    "encoded foreign address between commas": b"From: =?utf-8?Q?bob=40paquebot=2Etest?=, A <alice@paquebot.test>\r\n",
    "base64 of a foreign address": b"From: =?utf-8?B?Ym9iQHBhcXVlYm90LnRlc3Q=?=, A <alice@paquebot.test>\r\n",
    "wide at sign between commas": "From: bob\uff20paquebot.test, A <alice@paquebot.test>\r\n".encode(),
    "foreign address in quoted brackets": b'From: "Bob <bob@paquebot.test>" <alice@paquebot.test>\r\n',
    "foreign address in brackets in a comment": b"From: (<bob@paquebot.test>) alice@paquebot.test\r\n",
    "foreign address in encoded brackets": b"From: =?utf-8?Q?=3Cbob=40paquebot.test=3E?= <alice@paquebot.test>\r\n",
    "in the brackets of two encoded words": b"From: =?utf-8?Q?=3Cbob=40?= =?utf-8?Q?paquebot.test=3E?= "
    b"<alice@paquebot.test>\r\n",
    "foreign address in wide brackets": 'From: "＜bob＠paquebot.test＞" <alice@paquebot.test>\r\n'.encode(),
    "foreign address and NUL encoded": b"From: =?utf-8?Q?bob=40paquebot.test=00?= <alice@paquebot.test>\r\n",
    "line end in an encoded word": b"From: =?utf-8?Q?bob=40paquebot.test=0A?= <alice@paquebot.test>\r\n",
    "encoded words as the local part": b"From: =?utf-8?Q?bob=40paquebot.test=00?=@paquebot.test\r\n",
    "address behind the name of a group": b"From: us <bob@paquebot.test>: alice@paquebot.test;\r\n",
    "two angle addresses": b"From: Bob <bob@paquebot.test> <alice@paquebot.test>\r\n",
    "foreign angle address last": b"From: Kock, Alice <alice@paquebot.test> <bob@paquebot.test>\r\n",
    "foreign address behind": b"From: Kock, Alice <alice@paquebot.test> bob@paquebot.test\r\n",
    "foreign address behind, alone": b"From: <alice@paquebot.test> bob@paquebot.test\r\n",
    "words behind": b"From: Alice <alice@paquebot.test>, Bob\r\n",
    "word before an address without brackets": b"From: Bob, alice@paquebot.test\r\n",
    "angle address that does not end": b"From: Kock, Alice <alice@paquebot.test\r\n",
    "list in the brackets": b"From: <bob@paquebot.test,alice@paquebot.test>\r\n",
    "own address in the list in the brackets": b"From: <alice@paquebot.test,bob@paquebot.test>\r\n",
    "semicolon": b"From: bob@paquebot.test; Alice <alice@paquebot.test>\r\n",
    "group and a foreign address": b"From: us: Kock, Alice <alice@paquebot.test>;, bob@paquebot.test\r\n",
    "route": b"From: <@paquebot.test:alice@paquebot.test>\r\n",
    "foreign address as a route": b"From: <bob@paquebot.test:alice@paquebot.test>\r\n",
    "foreign address in a route": b"From: <@bob@paquebot.test:alice@paquebot.test>\r\n",
    "quoted pair": b'From: "Kock\\" <bob@paquebot.test>, " <alice@paquebot.test>\r\n',
    "quoted string that does not end": b'From: "Kock, Alice <alice@paquebot.test>\r\n',
    "comment that does not end": b"From: (Kock, Alice <alice@paquebot.test>\r\n",
    "foreign address in another case behind a comma": b"From: Alice <alice@paquebot.test>,BOB@PAQUEBOT.TEST\r\n",
    "folded between two addresses": b"From: Kock,\r\n bob@paquebot.test,\r\n\tAlice <alice@paquebot.test>\r\n",
    "NUL": b"From: Kock, Alice <alice@paquebot.test>\0\r\n",
    "NUL in the address": b"From: <alice\0@paquebot.test>\r\n",
    "8 bits in the local part": b"From: <alice\xff@paquebot.test>\r\n",
    "8 bits in the domain": b"From: <alice@paquebot\xff.test>\r\n",
    "8 bits and a foreign address": b"From: M\xfcller, bob@paquebot.test <alice@paquebot.test>\r\n",
    "control character behind the name": b"From: alice@paquebot.test\r\nFrom\x0b: bob@paquebot.test\r\n",
    "control character before the name": b"\x0cFrom: bob@paquebot.test\r\nFrom: alice@paquebot.test\r\n",
    "byte order mark": b"\xef\xbb\xbfFrom: bob@paquebot.test\r\nFrom: alice@paquebot.test\r\n",
    "more words than are looked at": b"From: " + b"x, " * 3000 + b"Alice <alice@paquebot.test>\r\n",
    "hidden behind many words": b"From: " + b"x, " * 3000 + b"bob@paquebot.test, A <alice@paquebot.test>\r\n",
    "longer than is looked at": b"From: " + b"x" * 17_000 + b" <alice@paquebot.test>\r\n",
    "cyrillic letter": "From: <alice@p\u0430quebot.test>\r\n".encode(),
    "literal": b"From: <alice@[127.0.0.1]>\r\n",
    "local part in two words": b"From: alice+ bob@paquebot.test\r\n",
    "local part in two words, in brackets": b"From: <alice+ bob@paquebot.test>\r\n",
    "local part in two words, folded": b"From: alice+\r\n bob@paquebot.test\r\n",
    "local part in two words, one quoted": b'From: "alice+"bob@paquebot.test\r\n',
    "local part with a comment inside": b"From: alice+(x)bob@paquebot.test\r\n",
    "local part with a bracket inside": b"From: alice+>bob@paquebot.test\r\n",
    "local part with a parenthesis inside": b"From: alice+)bob@paquebot.test\r\n",
    "local part with a backslash inside": b"From: alice+\\bob@paquebot.test\r\n",
    "quoted local part with a space": b'From: "alice+ bob"@paquebot.test\r\n',
    "local part with a control character": b"From: alice+\x0bbob@paquebot.test\r\n",
    "local part with a space of Unicode": "From: alice+\xa0bob@paquebot.test\r\n".encode(),
    "local part with a space that no one sees": "From: <alice+\u200bbob@paquebot.test>\r\n".encode(),
    "foreign address in a literal": b"From: [ bob@paquebot.test, ] <alice@paquebot.test>\r\n",
    "foreign address in a literal that does not end": b"From: [bob@paquebot.test <alice@paquebot.test>\r\n",
    "foreign address and the end of a literal": b"From: bob@paquebot.test] <alice@paquebot.test>\r\n",
    "foreign address and a control character": b"From: bob@paquebot.test\x0b <alice@paquebot.test>\r\n",
    "foreign address and an apostrophe": b"From: bob@paquebot.test' <alice@paquebot.test>\r\n",
    "foreign address and a byte": b"From: bob@paquebot.test\xa0<alice@paquebot.test>\r\n",
    "foreign address and a bracket inside": b"From: bob@>paquebot.test <alice@paquebot.test>\r\n",
    "foreign address with a dot too many": b"From: bob@paquebot..test <alice@paquebot.test>\r\n",
    "foreign address and a space no one sees": "From: bob@paquebot.test\u200b <alice@paquebot.test>\r\n".encode(),
    "foreign address in wide brackets, not quoted": "From: ＜bob@paquebot.test＞ <alice@paquebot.test>\r\n".encode(),
    "space of Latin-1 before the colon": b"From\xa0: bob@paquebot.test\r\nFrom: alice@paquebot.test\r\n",
    "space of Unicode before the colon": b"From\xc2\xa0: bob@paquebot.test\r\nFrom: alice@paquebot.test\r\n",
    "foreign sender with a comma": b"From: alice@paquebot.test\r\nSender: Kock, bob@paquebot.test\r\n",
    "sender that some do not see": b"From: alice@paquebot.test\r\nSender\x0b: bob@paquebot.test\r\n",
    "second sender": b"From: alice@paquebot.test\r\nSender: alice@paquebot.test\r\nSender : bob@paquebot.test\r\n",
}

_OWN = {
    "comma": b"From: Kock, Alice <alice@paquebot.test>\r\n",
    "commas": b"From: Kock, Alice, Dr. <alice@paquebot.test>\r\n",
    "comma and a quoted part": b'From: "Kock", Alice <alice@paquebot.test>\r\n',
    "comma, folded": b"From: Kock,\r\n Alice\r\n <alice@paquebot.test>\r\n",
    "comma in 8 bits": "From: Müller, Alice <alice@paquebot.test>\r\n".encode(),
    "comma between encoded words": b"From: =?utf-8?Q?M=C3=BCller?=, Alice <alice@paquebot.test>\r\n",
    "comma at the end": b"From: Alice <alice@paquebot.test>,\r\n",
    "comma and no space": b"From: Kock,Alice<alice@paquebot.test>\r\n",
    "comma and a comment": b"From: Kock, Alice (Billing) <alice@paquebot.test> (work)\r\n",
    "colon": b"From: Alice: Office <alice@paquebot.test>\r\n",
    "semicolon": b"From: Kock; Alice <alice@paquebot.test>\r\n",
    "comment": b"From: Support (Billing) <alice@paquebot.test>\r\n",
    "brackets": b"From: Alice [work] <alice@paquebot.test>\r\n",
    "dots": b"From: Dr. A. Kock <alice@paquebot.test>\r\n",
    "at sign of people": b"From: alice@home <alice@paquebot.test>\r\n",
    "at sign of people and a comma": b"From: Alice @ home <alice@paquebot.test>\r\n",
    "at sign of people and a dot": b"From: Alice @ home. <alice@paquebot.test>\r\n",
    "own address, spaced and commented": b"From: alice @ (x) paquebot . test\r\n",
    "own address as the name": b"From: alice@paquebot.test <alice@paquebot.test>\r\n",
    "own address in the quoted name": b'From: "Alice <alice@paquebot.test>" <alice@paquebot.test>\r\n',
    "brackets in the quoted name": b'From: "Alice <work> @ home" <alice@paquebot.test>\r\n',
    "encoded address of another as the name": b"From: =?utf-8?Q?bob=40paquebot.test?= <alice@paquebot.test>\r\n",
    "quoted address of another as the name": b'From: "bob@paquebot.test via a list" <alice@paquebot.test>\r\n',
    "comment with the address of another": b"From: alice@paquebot.test (for bob@paquebot.test)\r\n",
    "quoted local part": b'From: Kock, Alice <"alice"@paquebot.test>\r\n',
    "quoted name with a comma": b'From: "Kock, Alice" <alice@paquebot.test>\r\n',
    "apostrophe": b"From: O'Neill, Alice <ALICE+lists@Paquebot.Test>\r\n",
    "alias": b"From: Sales, Team <sales@paquebot.test>\r\n",
    "group": b"From: us: alice@paquebot.test, Sales <sales@paquebot.test>;\r\n",
    "sender with a comma": b"From: alice@paquebot.test\r\nSender: Kock, Alice <alice@paquebot.test>\r\n",
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
    queued = await smtp_stack.queued(after)
    if policy == "refuse":
        assert {trick: code for trick, code in codes.items() if code != 550} == {}
        assert not queued
        return
    mended = {trick for trick, code in codes.items() if code == 250}
    senders = {"foreign sender", "foreign sender with a comma", "second sender"}
    assert mended == {"empty", "none", "comment that does not end", *senders}
    assert not [one for one in queued if b"bob" in one.content.partition(b"\r\n\r\n")[0].replace(b"for <bob@", b"")]


async def test_own_addresses_are_accepted_in_every_spelling_of_the_name(smtp_stack: SmtpStack) -> None:
    async with smtp_stack.serving() as running:
        (port,) = running.ports(Role.SUBMISSIONS)
        codes = {case: await asyncio.to_thread(_send, port, header) for case, header in _OWN.items()}
    assert {case: code for case, code in codes.items() if code != 250} == {}
