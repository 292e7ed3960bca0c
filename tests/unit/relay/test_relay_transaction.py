"""MAIL to the final dot with good and bad hosts: every recipient gets one result in all cases."""

import email
import re

import pytest

from paquebot.message import pieces
from paquebot.message.conversion.transfer_encoding import BLOCK
from paquebot.relay.message import RelayRecipient, with_crlf
from paquebot.relay.outcome import Outcomes
from paquebot.relay.settings import SmtpTimeouts
from paquebot.relay.smtp_client.form import FormRules
from paquebot.relay.smtp_client.session import ClientSession, SessionBroken
from paquebot.relay.smtp_client.transaction import ClientTransaction
from paquebot.wire.smtp.parameters import Notify, RcptParameters, Ret
from paquebot.wire.transparency import add_transparency
from tests.support.relay_fixtures import SHORT_TIMEOUTS, TIMEOUTS, outgoing, session_with
from tests.support.remote_host import DROP, EXTENSIONS, SILENT, Answer, RemoteHost, then_drop

RAW = b"From: a@example.org\r\nTo: b@example.net\r\n\r\n.\r\n..two\r\nHello\r\n"
A, B, C = (RelayRecipient(f"{name}@example.net") for name in "abc")
PLAIN = tuple(name for name in EXTENSIONS if name != "PIPELINING")
both_ways = pytest.mark.parametrize("extensions", [EXTENSIONS, PLAIN], ids=["pipelined", "one by one"])


async def send(
    session: ClientSession,
    *recipients: RelayRecipient,
    content: bytes = RAW,
    timeouts: SmtpTimeouts = TIMEOUTS,
    eight_bit: str = "convert",
    **fields: object,
) -> Outcomes:
    message = outgoing(content, str(fields.pop("reverse_path", "s@example.org")), **fields)  # type: ignore[arg-type]
    transaction = ClientTransaction(session, message, timeouts, FormRules(eight_bit), lambda: None)
    return await transaction.run(recipients)


def summary(outcomes: Outcomes) -> dict[str, str]:
    return {path[0]: f"{result.result.value} {result.status}" for path, result in outcomes.items()}


@both_ways
async def test_a_message_arrives_byte_for_byte(extensions: tuple[str, ...]) -> None:
    async with RemoteHost(extensions=extensions) as remote:
        session = await session_with(remote)
        outcomes = await send(session, A, B)
        assert summary(outcomes) == {"a": "delivered 2.0.0", "b": "delivered 2.0.0"}
        assert outcomes["a@example.net"].text == "250 2.0.0 Taken"
        (taken,) = remote.messages
        assert taken.content == RAW
        assert taken.mail == f"MAIL FROM:<s@example.org> SIZE={len(RAW)}"
        assert taken.rcpt == ("RCPT TO:<a@example.net>", "RCPT TO:<b@example.net>")
        assert session.usable
        session.leave()


async def test_pipelining_only_where_offered() -> None:  # RFC 2920
    for extensions, expected in ((EXTENSIONS, True), (PLAIN, False)):
        async with RemoteHost(extensions=extensions) as remote:
            session = await session_with(remote)
            await send(session, A, B)
            assert any(remote.connections[0].pipelined) is expected
            session.leave()


@both_ways
async def test_mixed_replies_to_recipients(extensions: tuple[str, ...]) -> None:
    def rcpt(line: str) -> str:
        return {"a": "250 2.1.5 Ok", "b": "450 4.2.0 Greylisted", "c": "550 5.1.1 No such user"}[line[9]]

    async with RemoteHost({"RCPT": rcpt}, extensions=extensions) as remote:
        session = await session_with(remote)
        outcomes = await send(session, A, B, C)
        assert summary(outcomes) == {"a": "delivered 2.0.0", "b": "deferred 4.2.0", "c": "failed 5.1.1"}
        assert outcomes["c@example.net"].text == "550 5.1.1 No such user"
        assert outcomes["b@example.net"].elsewhere
        assert remote.messages[0].rcpt == ("RCPT TO:<a@example.net>",)
        session.leave()


@pytest.mark.slow
@both_ways
@pytest.mark.parametrize(
    ("script", "expected"),
    [
        ({"MAIL": "451 4.7.1 Later"}, "deferred 4.7.1"),
        ({"MAIL": "550 5.7.1 Never"}, "failed 5.7.1"),
        ({"MAIL": "552 Too big"}, "failed 5.0.0"),
        ({"RCPT": "451 Later"}, "deferred 4.0.0"),
        ({"RCPT": "550 Never"}, "failed 5.0.0"),
        ({"RCPT": "552 Too many"}, "deferred 4.5.3"),  # RFC 5321 §4.5.3.1.10
        ({"RCPT": "552 5.2.2 Mailbox full"}, "failed 5.2.2"),
        ({"RCPT": "550 4.1.1 Classes differ"}, "failed 5.0.0"),  # RFC 2034 §4
        ({"DATA": "451 4.3.0 Later"}, "deferred 4.3.0"),
        ({"DATA": "554 5.6.0 Never"}, "failed 5.6.0"),
        ({"DATA": "250 2.0.0 Ok"}, "deferred 4.5.0"),  # nothing was sent, so nothing was accepted
        ({"MAIL": "250 2.1.0 Ok\r\n250 2.1.0 Ok"}, "deferred 4.5.0"),  # one reply too many
        ({"RCPT": "250 2.1.5 Ok\r\n250 2.1.5 Ok"}, "deferred 4.5.0"),
        ({"MESSAGE": "451 4.3.0 Later"}, "deferred 4.3.0"),
        ({"MESSAGE": "554 5.7.1 Spam"}, "failed 5.7.1"),
        ({"MESSAGE": "354 What?"}, "deferred 4.5.0"),
        ({"RCPT": DROP}, "deferred 4.4.2"),
        ({"DATA": DROP}, "deferred 4.4.2"),
        ({"MESSAGE": DROP}, "deferred 4.4.2"),
        ({"RCPT": SILENT}, "deferred 4.4.2"),
        ({"DATA": SILENT}, "deferred 4.4.2"),
        ({"MESSAGE": SILENT}, "deferred 4.4.2"),
        ({"RCPT": then_drop("421 4.3.2 Bye")}, "deferred 4.3.2"),
        ({"DATA": then_drop("421 4.3.2 Bye")}, "deferred 4.3.2"),
        ({"MESSAGE": then_drop("421 4.3.2 Bye")}, "deferred 4.3.2"),
        ({"RCPT": "550 5.1.1 " + "x" * 100_000}, "failed 5.1.1"),
        ({"RCPT": "550-no\r\n" * 500 + "550 5.1.1 such user"}, "failed 5.1.1"),
        ({"RCPT": "550-no\r\n554 such user"}, "failed 5.0.0"),
        ({"RCPT": "550-no\r\nsuch\r\n550 user"}, "failed 5.0.0"),
        ({"RCPT": "450-" + "x" * 5000 + "\r\n" + "450 4.2.0 Later"}, "deferred 4.2.0"),
        ({"MESSAGE": "nonsense"}, "deferred 4.5.0"),
    ],
)
async def test_a_failure_applies_to_every_recipient(
    script: dict[str, Answer], expected: str, extensions: tuple[str, ...]
) -> None:
    async with RemoteHost(script, extensions=extensions) as remote:
        session = await session_with(remote)
        outcomes = await send(session, A, B, timeouts=SHORT_TIMEOUTS)
        assert summary(outcomes) == {"a": expected, "b": expected}
        assert remote.messages == []
        session.leave()


@pytest.mark.slow
async def test_only_a_host_that_may_have_the_message_excludes_others() -> None:
    for phase, elsewhere in (("RCPT", True), ("DATA", True), ("MESSAGE", False)):
        async with RemoteHost({phase: DROP}) as remote:
            session = await session_with(remote)
            outcomes = await send(session, A)
            assert outcomes["a@example.net"].elsewhere is elsewhere, phase


@pytest.mark.parametrize("answer", [DROP, then_drop("421 4.3.2 Bye")])
async def test_a_lost_session_is_recognised_before_the_reply_to_mail(answer: Answer) -> None:
    async with RemoteHost() as remote:
        session = await session_with(remote)
        await send(session, A)
        remote.on["MAIL"] = answer
        with pytest.raises(SessionBroken):
            await send(session, B)
        assert not session.alive


@both_ways
async def test_a_refused_transaction_is_reset_before_the_next(extensions: tuple[str, ...]) -> None:
    async with RemoteHost({"RCPT": "550 5.1.1 No"}, extensions=extensions) as remote:
        session = await session_with(remote)
        await send(session, A)
        del remote.on["RCPT"]
        outcomes = await send(session, B)
        assert summary(outcomes) == {"b": "delivered 2.0.0"}
        assert "RSET" in remote.commands()
        await send(session, C)
        assert remote.commands().count("RSET") == 1, "it is not needed after a successful transaction"
        session.leave()


async def test_data_accepted_without_a_recipient_sends_nothing() -> None:  # RFC 2920 §3.1
    async with RemoteHost({"RCPT": "550 5.1.1 No", "DATA": "354 Go on"}) as remote:
        session = await session_with(remote)
        outcomes = await send(session, A, B)
        assert summary(outcomes) == {"a": "failed 5.1.1", "b": "failed 5.1.1"}
        assert [taken.content for taken in remote.messages] == [b""]
        session.leave()


async def test_mail_refused_with_everything_pipelined_behind_it() -> None:
    async with RemoteHost({"MAIL": "451 4.3.0 Later", "RCPT": "503 5.5.1 MAIL first"}) as remote:
        session = await session_with(remote)
        assert summary(await send(session, A, B)) == {"a": "deferred 4.3.0", "b": "deferred 4.3.0"}
        remote.on.clear()
        assert summary(await send(session, A)) == {"a": "delivered 2.0.0"}, "the session stays synchronised"
        session.leave()


async def test_a_reply_before_the_end_of_a_large_message() -> None:
    large = RAW + b"x" * 76 + b"\r\n" + (b"y" * 76 + b"\r\n") * 100_000

    async with RemoteHost({"DATA": "354 Go on\r\n552 5.3.4 Too big after all"}) as remote:
        session = await session_with(remote)
        outcomes = await send(session, A, content=large, timeouts=SHORT_TIMEOUTS)
        assert summary(outcomes) == {"a": "failed 5.3.4"}
        assert not session.usable


# --- extensions that a host offers and a message needs ---


async def test_size_is_known_before_mail() -> None:  # RFC 1870
    async with RemoteHost(extensions=("SIZE 50",)) as remote:
        session = await session_with(remote)
        outcomes = await send(session, A)
        assert summary(outcomes) == {"a": "failed 5.3.4"}
        assert outcomes["a@example.net"].text == "the host takes messages of at most 50 bytes"
        assert not any(line.startswith("MAIL") for line in remote.all_commands)
        session.leave()


@pytest.mark.parametrize("offered", ["SIZE", "SIZE 0", "SIZE 99999999999999999999999", "SIZE nonsense"])
async def test_size_without_a_limit(offered: str) -> None:
    async with RemoteHost(extensions=(offered,)) as remote:
        session = await session_with(remote)
        assert summary(await send(session, A)) == {"a": "delivered 2.0.0"}
        session.leave()


EIGHT_BIT = b"Subject: x\r\n\r\nGr\xc3\xbc\xc3\x9fe\r\n"


async def test_eight_bit_text() -> None:  # RFC 6152
    async with RemoteHost() as remote:
        session = await session_with(remote)
        await send(session, A, content=EIGHT_BIT)
        assert remote.messages[0].mail.endswith(" BODY=8BITMIME")
        assert remote.messages[0].content == EIGHT_BIT
        session.leave()


async def test_eight_bit_text_for_a_host_without_8bitmime() -> None:
    async with RemoteHost(extensions=("PIPELINING",)) as remote:
        session = await session_with(remote)
        assert summary(await send(session, A, content=EIGHT_BIT, eight_bit="bounce")) == {"a": "failed 5.6.3"}
        assert summary(await send(session, A, content=EIGHT_BIT, eight_bit="send")) == {"a": "delivered 2.0.0"}
        assert summary(await send(session, A, content=EIGHT_BIT)) == {"a": "delivered 2.0.0"}
        as_it_is, converted = remote.messages
        assert as_it_is.mail == converted.mail == "MAIL FROM:<s@example.org>"
        assert as_it_is.content == EIGHT_BIT
        message = email.message_from_bytes(converted.content)
        assert message.get_payload(decode=True) == b"Gr\xc3\xbc\xc3\x9fe\r\n"
        assert (converted.content.isascii(), message.get_content_charset()) == (True, "utf-8")
        session.leave()


UTF8_HEADER = "Subject: Grüße\r\n\r\nHello\r\n".encode()
UTF8_RECIPIENT = RelayRecipient("grüße@example.net")


async def test_smtputf8_is_asked_for_only_when_needed() -> None:  # RFC 6531 §3.2
    async with RemoteHost() as remote:
        session = await session_with(remote)
        await send(session, A, smtputf8=True)
        await send(session, UTF8_RECIPIENT)
        await send(session, A, content=UTF8_HEADER, smtputf8=True)
        await send(session, A, content=UTF8_HEADER)  # 8-bit bytes of unknown meaning: sent as they are
        assert ["SMTPUTF8" in taken.mail for taken in remote.messages] == [False, True, True, False]
        assert remote.messages[1].rcpt == ("RCPT TO:<grüße@example.net>",)
        session.leave()


async def test_smtputf8_cannot_be_converted() -> None:  # RFC 6531 §3.5
    async with RemoteHost(extensions=("8BITMIME",)) as remote:
        session = await session_with(remote)
        assert summary(await send(session, UTF8_RECIPIENT)) == {"g": "failed 5.6.7"}
        assert summary(await send(session, A, reverse_path="ü@example.org")) == {"a": "failed 5.6.7"}
        assert summary(await send(session, A, content=UTF8_HEADER, smtputf8=True)) == {"a": "failed 5.6.7"}
        session.leave()


async def test_dsn_parameters_are_passed_on() -> None:  # RFC 3461 §5.2.1
    wishes = RcptParameters((Notify.SUCCESS, Notify.DELAY), "rfc822;b+c@example.net")
    recipient = RelayRecipient("a@example.net", wishes)
    for extensions, passed in ((EXTENSIONS, True), (("PIPELINING",), False)):
        async with RemoteHost(extensions=extensions) as remote:
            session = await session_with(remote)
            outcomes = await send(session, recipient, ret=Ret.HDRS, envid="a+b=c")
            assert outcomes["a@example.net"].dsn_passed is passed
            (taken,) = remote.messages
            assert (" RET=HDRS ENVID=a+2Bb+3Dc" in taken.mail) is passed
            assert taken.rcpt[0].endswith(" NOTIFY=SUCCESS,DELAY ORCPT=rfc822;b+2Bc@example.net") is passed
            session.leave()


async def test_the_null_reverse_path() -> None:
    async with RemoteHost(extensions=()) as remote:
        session = await session_with(remote)
        await send(session, A, reverse_path="")
        assert remote.messages[0].mail == "MAIL FROM:<>"
        session.leave()


async def test_a_reply_is_bounded_and_kept_without_control_characters() -> None:
    async with RemoteHost({"RCPT": "550-5.1.1 \x1b[2J\x07no\r\n" * 40 + "550 5.1.1 " + "x" * 900}) as remote:
        session = await session_with(remote)
        [result] = (await send(session, A)).values()
        assert result.text.startswith("550 5.1.1 ?[2J?no ?[2J?no")
        assert (result.status, len(result.text)) == ("5.1.1", 1000)
        session.leave()


@pytest.mark.parametrize("address", ["a\r\nRCPT TO:<x@example.net", "a\x00@example.net", "a\n@b"])
async def test_no_address_injects_a_command(address: str) -> None:
    async with RemoteHost() as remote:
        session = await session_with(remote)
        assert summary(await send(session, RelayRecipient(address))) == {"a": "failed 5.1.3"}
        assert summary(await send(session, A, reverse_path=address)) == {"a": "failed 5.1.7"}
        assert not any(line.startswith(("MAIL", "RCPT")) for line in remote.all_commands)
        assert {path: result.status for path, result in (await send(session, RelayRecipient(address), B)).items()} == {
            address: "5.1.3",
            "b@example.net": "2.0.0",
        }
        session.leave()


# --- bytes ---


@pytest.mark.parametrize(
    ("content", "stuffed"),
    [
        (b"", b"\r\n.\r\n"),
        (b"a\r\n", b"a\r\n.\r\n"),
        (b"a", b"a\r\n.\r\n"),
        (b".", b"..\r\n.\r\n"),
        (b".\r\n.\r\n", b"..\r\n..\r\n.\r\n"),
        (b"a\r\n.b\r\n..\r\nc.\r\n", b"a\r\n..b\r\n...\r\nc.\r\n.\r\n"),
    ],
)
def test_dot_stuffing(content: bytes, stuffed: bytes) -> None:  # RFC 5321 §4.5.2
    assert b"".join(add_transparency(pieces(content, []))) == stuffed


@pytest.mark.parametrize("before", range(-3, 4))
@pytest.mark.parametrize("around", [b".", b"..", b"\r\n.", b"x\r\n..\r\n.\r\n", b"\r\n"])
def test_dot_stuffing_in_pieces(before: int, around: bytes) -> None:
    """A piece may end anywhere: in a long line, before or after a line end, before a dot."""
    for content in (b"a" * (BLOCK + before) + around + b"z", b"a\r\n" * (BLOCK // 3) + b"b" * before + around):
        sent = list(add_transparency(pieces(content, [])))
        assert max(map(len, sent)) < 2 * BLOCK
        expected = content.replace(b"\r\n.", b"\r\n..")
        assert b"".join(sent) == expected + (b".\r\n" if content.endswith(b"\r\n") else b"\r\n.\r\n")


@pytest.mark.parametrize("content", [b"a\n.\r\nMAIL FROM:<>", b"a\r.\rb", b"a\r\n.\nb\n", b"\n\r\n\r"])
async def test_no_bare_line_end_is_sent(content: bytes) -> None:  # RFC 5321 §2.3.8: nothing to smuggle with
    async with outgoing(content).opened() as clean:
        data = b"".join(add_transparency(pieces(clean, [])))
    assert not re.search(rb"\r(?!\n)|(?<!\r)\n", data)
    assert data.count(b"\r\n.\r\n") + data.startswith(b".\r\n") == 1


def test_a_clean_message_is_not_copied() -> None:
    assert with_crlf(RAW) is RAW
