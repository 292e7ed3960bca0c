"""Replies written and read (RFC 5321 §4.2, RFC 2034, RFC 3463)."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paquebot.wire.smtp import replies
from paquebot.wire.smtp.replies import MAX_REPLY_LINE, BadReply, Reply, join_reply, parse_reply_line

_NAMED = {name: value for name, value in vars(replies).items() if isinstance(value, Reply)}
_TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\r\n\x85\u2028\u2029"), max_size=40).map(str.strip)


def read(data: bytes) -> Reply:
    return join_reply([parse_reply_line(line) for line in data.split(b"\n")[:-1]])


@pytest.mark.parametrize("name", sorted(_NAMED))
def test_every_named_reply_is_well_formed(name: str) -> None:
    reply = _NAMED[name]
    data = reply.encode()
    assert data.isascii()
    assert all(len(line) + 2 <= MAX_REPLY_LINE for line in data.split(b"\r\n"))
    assert read(data) == reply
    if reply.enhanced_status:  # RFC 3463 §2: the class is the code's
        assert re.fullmatch(r"[245]\.\d{1,3}\.\d{1,3}", reply.enhanced_status)
        assert reply.enhanced_status[0] == str(reply.code)[0]
    else:
        assert reply.code // 100 == 3 or reply.code == 220


@given(
    st.integers(min_value=200, max_value=599),
    st.sampled_from([1, 7, 123]),
    st.lists(_TEXT, min_size=1, max_size=4),
)
def test_replies_round_trip(code: int, detail: int, lines: list[str]) -> None:
    status = f"{code // 100}.1.{detail}" if code // 100 != 3 else ""
    reply = Reply(code, status, "\n".join(lines))
    if status:
        assert read(reply.encode()) == reply


def test_several_lines() -> None:
    data = b"250-2.1.5 one\r\n250-2.1.5 two\r\n250 2.1.5 three\r\n"
    assert Reply(250, "2.1.5", "one\ntwo\nthree").encode() == data
    assert read(data) == Reply(250, "2.1.5", "one\ntwo\nthree")
    assert str(read(data)) == "250 2.1.5 one two three"


@pytest.mark.parametrize(
    ("data", "reply"),
    [
        (b"250\r\n", Reply(250, "", "")),
        (b"250 \r\n", Reply(250, "", "")),
        (b"250 ok\n", Reply(250, "", "ok")),
        (b"550 5.1.1\r\n", Reply(550, "5.1.1", "")),
        (b"550 4.1.1 no\r\n", Reply(550, "", "4.1.1 no")),
        (b"550 5.1.1234 no\r\n", Reply(550, "", "5.1.1234 no")),
        (b"550 5.1.1no\r\n", Reply(550, "", "5.1.1no")),
        (b"354 3.1.1 go\r\n", Reply(354, "", "3.1.1 go")),
        (b"550-no\r\n550 5.1.1 such\r\n", Reply(550, "5.1.1", "no\nsuch")),
        (b"550 \xff\r\n", Reply(550, "", "\ufffd")),
    ],
)
def test_replies_of_real_servers(data: bytes, reply: Reply) -> None:
    assert read(data) == reply


@pytest.mark.parametrize(
    "line", [b"", b"25", b"2500 x", b"abc", b"150 x", b"600 x", b"250_x", b"\xb2\xb50 x", b" 250 x"]
)
def test_bad_reply_lines(line: bytes) -> None:
    with pytest.raises(BadReply):
        parse_reply_line(line)


def test_lines_that_do_not_form_one_reply() -> None:
    for data in (b"250-one\r\n251 two\r\n", b"250-one\r\n", b""):
        with pytest.raises(BadReply):
            read(data)


def test_classes() -> None:
    assert replies.OK.is_positive
    assert replies.START_DATA.is_positive
    assert replies.OVER_QUOTA.is_temporary
    assert not replies.OVER_QUOTA.is_permanent
    assert replies.TOO_BIG.is_permanent
