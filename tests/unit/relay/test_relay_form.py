"""The form of a message for a host with fewer extensions than it needs; its content stays the same."""

from __future__ import annotations

import email
import email.header
import re
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client import REGISTRY

from paquebot.relay.message import RelayRecipient
from paquebot.relay.metrics import Conversion
from paquebot.relay.outcome import Host, Outcomes
from paquebot.relay.smtp_client.form import FormRules, MessageForm, MessageUnsupported
from paquebot.relay.smtp_client.transaction import ClientTransaction
from paquebot.wire.smtp.parameters import Body
from tests.support.relay_fixtures import TIMEOUTS, outgoing, session_with
from tests.support.remote_host import EXTENSIONS, RemoteHost

HOST = Host("mx.example.net", "192.0.2.1", 25)
A, B = RelayRecipient("a@example.net"), RelayRecipient("b@example.net")
CHUNKING = (*EXTENSIONS, "CHUNKING")
LONG = b"Subject: x\r\n\r\n" + b"word " * 400 + b"\r\n.\r\nend\r\n"
DKIM = b"DKIM-Signature: v=1; a=rsa-sha256; c=relaxed/relaxed; d=example.org; b=x\r\n"
PGP = (
    b'MIME-Version: 1.0\r\nContent-Type: multipart/signed; boundary=s; protocol="application/pgp-signature"\r\n\r\n'
    b"--s\r\nContent-Type: text/plain; charset=utf-8\r\n\r\n%b\r\n"
    b"--s\r\nContent-Type: application/pgp-signature\r\n\r\nxyz\r\n--s--\r\n"
)


async def send(
    remote: RemoteHost, content: bytes, *to: RelayRecipient, rules: FormRules | None = None, **more: Any
) -> Outcomes:
    session = await session_with(remote)
    message = outgoing(content, "s@example.org", **more)
    outcomes = await ClientTransaction(session, message, TIMEOUTS, rules or FormRules(), lambda: None).run(to or (A,))
    message.close()
    session.leave()
    return outcomes


async def refused(content: bytes, *extensions: str, **more: Any) -> tuple[str, str]:
    with pytest.raises(MessageUnsupported) as caught:
        await form(content, *extensions, **more)
    return caught.value.outcome.status, caught.value.outcome.text


async def form(
    content: bytes, *extensions: str, to: RelayRecipient = A, eight_bit: str = "convert", **more: Any
) -> MessageForm:
    offered = dict.fromkeys(extensions, "")
    message = outgoing(content, "s@example.org", **more)
    return await FormRules(eight_bit).form(message, [to], offered, HOST)


def decoded(content: bytes) -> bytes:
    payload = email.message_from_bytes(content).get_payload(decode=True)
    assert isinstance(payload, bytes)
    return payload


# --- long lines ---


async def test_long_lines_are_folded_as_quoted_printable() -> None:
    async with RemoteHost(extensions=CHUNKING) as remote:
        outcomes = await send(remote, LONG)
        assert outcomes["a@example.net"].status == "2.0.0"
        (taken,) = remote.messages
        assert decoded(taken.content) == LONG.partition(b"\r\n\r\n")[2]
        assert f"SIZE={len(taken.content)}" in taken.mail.split()
        assert not any(line.startswith("BDAT") for line in remote.all_commands)


@pytest.mark.parametrize("extensions", [CHUNKING, ("CHUNKING",)], ids=["pipelined", "one by one"])
async def test_signed_long_lines_go_as_they_are_in_chunks(extensions: tuple[str, ...]) -> None:  # RFC 3030 §2
    content = DKIM + LONG
    async with RemoteHost(extensions=extensions) as remote:
        outcomes = await send(remote, content, A, B)
        assert {result.status for result in outcomes.values()} == {"2.0.0"}
        (taken,) = remote.messages
        assert taken.content == content
        assert remote.all_commands[-1] == f"BDAT {len(content)} LAST"
        assert "DATA" not in remote.all_commands


async def test_the_last_line_of_a_chunk_has_an_end() -> None:
    content = (DKIM + LONG).removesuffix(b"\r\n")
    async with RemoteHost(extensions=CHUNKING) as remote:
        await send(remote, content)
        assert remote.messages[0].content == content + b"\r\n"


async def test_binarymime_where_it_is_offered_and_needed() -> None:  # RFC 3030 §3
    for offered, body in (("8BITMIME", None), ("BINARYMIME", Body.BINARY_MIME)):
        assert (await form(DKIM + LONG, "CHUNKING", offered)).body is body
    async with RemoteHost(extensions=(*CHUNKING, "BINARYMIME")) as remote:
        await send(remote, DKIM + LONG)
        await send(remote, DKIM + b"\r\nshort\r\n")
        assert [("BODY=BINARYMIME" in taken.mail) for taken in remote.messages] == [True, False]


async def test_a_chunk_is_not_sent_when_every_recipient_is_refused() -> None:
    async with RemoteHost({"RCPT": "550 5.1.1 No"}, extensions=CHUNKING) as remote:
        session = await session_with(remote)
        message = outgoing(DKIM + LONG, "s@example.org")
        for _ in range(2):  # the session stays synchronised
            outcomes = await ClientTransaction(session, message, TIMEOUTS, FormRules(), lambda: None).run([A])
            assert outcomes["a@example.net"].status == "5.1.1"
        assert not any(line.startswith("BDAT") for line in remote.all_commands)
        remote.on = {"MAIL": "451 4.3.0 Later", "RCPT": "503 5.5.1 MAIL first"}
        outcomes = await ClientTransaction(session, message, TIMEOUTS, FormRules(), lambda: None).run([A])
        assert outcomes["a@example.net"].status == "4.3.0"
        remote.on.clear()
        outcomes = await ClientTransaction(session, message, TIMEOUTS, FormRules(), lambda: None).run([A])
        assert outcomes["a@example.net"].status == "2.0.0"
        session.leave()


@pytest.mark.parametrize("content", [DKIM + LONG, PGP % (b"x" * 999)])
async def test_signed_long_lines_are_returned_where_there_are_no_chunks(content: bytes) -> None:
    status, text = await refused(content, "8BITMIME")
    assert status == "5.6.2"
    assert text.startswith("the message has lines of more than 998 bytes, and a signed message")
    assert (await form(content, "8BITMIME", "CHUNKING")).chunked


async def test_a_long_field_is_folded_though_the_message_is_signed() -> None:
    """The relaxed canonicalization of RFC 6376 §3.4.2 ignores folding; the simple one does not."""
    references = b"References:" + b" <a@example.org>" * 100 + b"\r\n"
    found = await form(DKIM + references + b"\r\nx\r\n")
    assert found.conversion is not None
    simple = DKIM.replace(b"c=relaxed/relaxed", b"c=simple/simple")
    assert (await refused(simple + references + b"\r\nx\r\n"))[0] == "5.6.2"
    assert (await refused(DKIM + references.replace(b" ", b"") + b"\r\nx\r\n"))[0] == "5.6.2"
    assert (await form(references.replace(b" ", b"") + b"\r\nx\r\n")).conversion is not None


async def test_converted_messages_are_counted() -> None:
    def counted() -> dict[Conversion, float]:
        name = "paquebot_relay_converted_messages_total"
        return {change: REGISTRY.get_sample_value(name, {"conversion": change.value}) or 0 for change in Conversion}

    before = counted()
    async with RemoteHost(extensions=("CHUNKING",)) as remote:
        await send(remote, b"Subject: x\r\n\r\nplain\r\n")
        await send(remote, LONG)
        await send(remote, DKIM + LONG)
        await send(remote, "Subject: ü\r\n\r\nx\r\n".encode())
        await send(remote, "Subject: ü\r\n\r\nx\r\n".encode(), smtputf8=True, submitted=True)
        remote.on["MESSAGE"] = "554 5.6.0 No"
        await send(remote, LONG)
    assert {change: number - before[change] for change, number in counted().items()} == dict.fromkeys(Conversion, 1.0)


async def test_another_limit_of_lines() -> None:
    content = b"Subject: x\r\n\r\n" + b"y" * 2000 + b"\r\n"
    for line, rewritten in ((998, True), (2000, False), (0, False)):
        assert ((await form(content, line=line)).conversion is not None) is rewritten
    assert (await form(b"\r\n" + "ä".encode() * 10, line=0)).conversion is not None


# --- 8-bit text ---


@pytest.mark.parametrize("signature", [b"", DKIM])
async def test_eight_bit_text_is_converted(signature: bytes) -> None:  # RFC 6152 §3, RFC 6376 §5.3
    content = signature + "Subject: Grüße\r\n\r\nViele Grüße\r\n".encode()
    async with RemoteHost(extensions=("PIPELINING",)) as remote:
        await send(remote, content)
        (taken,) = remote.messages
        assert taken.mail == "MAIL FROM:<s@example.org>"
        assert taken.content.isascii()
        assert decoded(taken.content) == "Viele Grüße\r\n".encode()
        subject = email.message_from_bytes(taken.content)["Subject"]
        assert str(email.header.make_header(email.header.decode_header(subject))) == "Grüße"


async def test_eight_bit_text_that_is_signed_from_end_to_end_is_returned() -> None:  # RFC 8551 §3.1.3
    status, text = await refused(PGP % "Grüße".encode())
    assert status == "5.6.2"
    assert text.startswith("the host does not take 8-bit text, and a signed message")
    assert (await form(PGP % "Grüße".encode(), "8BITMIME")).conversion is None


async def test_a_size_limit_that_only_the_converted_message_exceeds() -> None:  # RFC 1870
    content = b"Subject: x\r\n\r\n" + b"\xff" * 600 + b"\r\n"
    async with RemoteHost(extensions=("SIZE 700",)) as remote:
        assert (await send(remote, content))["a@example.net"].status == "5.3.4"
        assert remote.all_commands == ["EHLO relay.example.org", "QUIT"] or remote.all_commands == [
            "EHLO relay.example.org"
        ]


# --- UTF-8 ---


async def test_only_the_domain_is_not_ascii() -> None:  # RFC 6531 §3.3: an A-label is equivalent
    async with RemoteHost(extensions=("8BITMIME",)) as remote:
        outcomes = await send(remote, b"Subject: x\r\n\r\nx\r\n", RelayRecipient("a@münchen.example"))
        assert outcomes["a@münchen.example"].status == "2.0.0"
        assert remote.messages[0].rcpt == ("RCPT TO:<a@xn--mnchen-3ya.example>",)
    assert (await refused(b"\r\n", "8BITMIME", to=RelayRecipient("ü@münchen.example")))[0] == "5.6.7"


async def test_utf_8_in_the_header_alone_of_a_message_that_was_submitted_here() -> None:  # RFC 6531 §3.2
    content = "From: Jürgen <s@example.org>\r\nTo: a@münchen.example\r\nSubject: Grüße\r\n\r\nä\r\n".encode()
    async with RemoteHost(extensions=("8BITMIME",)) as remote:
        await send(remote, content, smtputf8=True, submitted=True)
        (taken,) = remote.messages
        assert taken.content.isascii()
        assert "SMTPUTF8" not in taken.mail
        assert b"\r\nTo: a@xn--mnchen-3ya.example\r\n" in taken.content
    for submitted, changed in ((False, content), (True, content.replace(b"To: a@", "To: ä@".encode()))):
        status, text = await refused(changed, "8BITMIME", smtputf8=True, submitted=submitted)
        assert (status, text) == ("5.6.7", "the host does not take UTF-8 addresses and headers")


# --- any bytes ---

OFFERED = st.lists(
    st.sampled_from(["8BITMIME", "CHUNKING", "BINARYMIME", "SMTPUTF8", "PIPELINING", "DSN"]), unique=True
)
LINES = st.lists(
    st.one_of(
        st.binary(max_size=30),
        st.sampled_from(
            [
                *(b"", b".", b"..", b"x" * 1200, b"\xff" * 1000, b"--b", b"--b--", b"--", DKIM[:-2], b"\r", b"\n"),
                *(b"Content-Type: multipart/mixed; boundary=b", b"Content-Type: message/rfc822", b"Subject: \xc3\xbc"),
                *(b"Content-Transfer-Encoding: base64", b"Content-Transfer-Encoding: quoted-printable"),
            ]
        ),
    ),
    max_size=15,
)


@pytest.mark.slow
@given(LINES, OFFERED, st.booleans(), st.booleans())
@settings(max_examples=60, deadline=None)
async def test_any_message_arrives_in_the_host_s_form_or_fails_permanently(
    lines: list[bytes], offered: list[str], smtputf8: bool, submitted: bool
) -> None:
    async with RemoteHost(extensions=tuple(offered)) as remote:
        outcomes = await send(remote, b"\r\n".join(lines), smtputf8=smtputf8, submitted=submitted)
    result = outcomes["a@example.net"]
    assert result.status in ("2.0.0", "5.6.2", "5.6.7"), "no failure is temporary, and each has a status"
    assert len(remote.messages) == (result.status == "2.0.0")
    for taken in remote.messages:
        assert not re.search(rb"\r(?!\n)|(?<!\r)\n", taken.content)
        chunked = any(line.startswith("BDAT") for line in remote.all_commands)
        assert chunked or max(map(len, taken.content.split(b"\r\n"))) <= 998
        assert taken.content.isascii() or {"8BITMIME", "SMTPUTF8"} & set(offered)
