"""The summary of a whole message: envelope semantics, cached headers, conversation key, bounds."""

from collections.abc import Iterable

import pytest

from paquebot.message import (
    CACHED_HEADERS,
    SUMMARY_VERSION,
    Address,
    MessageSummary,
    cached_header_fields,
    header_fields,
    limits,
    split_header,
    summarise,
)

RAW = (
    b"Received: by x\r\nFrom: a@x.test\r\nFrom: b@x.test\r\nSender:\r\nreply-to : r@x.test\r\nTo: c@x.test\r\n"
    b"To: d@x.test\r\nSubject: one\r\n two\r\nSubject: three\r\nDate:\r\nMessage-ID: <1@x.test>\r\n\r\nbody\r\n"
)


def shown(addresses: Iterable[Address]) -> list[str]:
    return [f"{address.mailbox.decode()}@{address.host.decode()}" for address in addresses]


def test_envelope() -> None:
    envelope = summarise(RAW).envelope
    assert shown(envelope.from_) == ["a@x.test", "b@x.test"]
    assert shown(envelope.to) == ["c@x.test", "d@x.test"]
    assert shown(envelope.reply_to) == ["r@x.test"]
    assert envelope.subject == b"one two"
    assert envelope.message_id == b"<1@x.test>"


def test_empty_sender_defaults_to_from() -> None:
    """RFC 3501 §7.4.2: absent, or present but empty."""
    envelope = summarise(RAW).envelope
    assert list(envelope.sender) == list(envelope.from_)
    absent = summarise(b"From: a@x.test\r\n\r\n").envelope
    assert list(absent.sender) == list(absent.reply_to) == list(absent.from_)


def test_absent_is_unset_and_empty_is_empty() -> None:
    envelope = summarise(RAW).envelope
    assert envelope.HasField("date")
    assert envelope.date == b""
    assert not envelope.HasField("in_reply_to")
    assert not envelope.cc


def test_groups_in_the_envelope() -> None:
    to = summarise(b"To: G: a@x.test;\r\n\r\n").envelope.to
    assert list(to) == [Address(mailbox=b"G"), Address(mailbox=b"a", host=b"x.test"), Address()]


def test_bytes_stay_as_they_are() -> None:
    summary = summarise(b"Subject: =?utf-8?q?a?= \xe9\r\nFrom: J\xf6rg <\xf6@x.test>\r\n\r\n")
    assert summary.envelope.subject == b"=?utf-8?q?a?= \xe9"
    assert summary.envelope.from_[0].name == b"J\xf6rg"
    assert cached_header_fields(summary, ["subject"]) == b"Subject: =?utf-8?q?a?= \xe9\r\n\r\n"


def test_a_view_gives_the_same_summary_as_bytes() -> None:
    assert summarise(memoryview(RAW)) == summarise(RAW)


def test_summary_survives_serialisation() -> None:
    summary = summarise(RAW)
    assert summary.version == SUMMARY_VERSION
    assert MessageSummary.FromString(summary.SerializeToString()) == summary


def test_cached_fields_in_the_order_of_the_message() -> None:
    summary = summarise(RAW)
    assert cached_header_fields(summary, ["SUBJECT", "To", "X-Priority"]) == (
        b"To: c@x.test\r\nTo: d@x.test\r\nSubject: one\r\n two\r\nSubject: three\r\n\r\n"
    )
    assert cached_header_fields(summary, []) == b"\r\n"


def test_names_that_are_not_cached_are_unknown() -> None:
    assert cached_header_fields(summarise(RAW), ["Subject", "Received"]) is None


def test_a_cache_of_another_version_is_ignored() -> None:
    summary = summarise(RAW)
    summary.version = SUMMARY_VERSION + 1
    assert cached_header_fields(summary, ["Subject"]) is None


@pytest.mark.parametrize(
    "names",
    [
        "From To Cc Bcc Subject Date Message-ID Priority X-Priority References Newsgroups In-Reply-To Content-Type "
        "Reply-To",
        "date subject from to cc message-id in-reply-to references content-type x-priority x-uniform-type-identifier "
        "x-universally-unique-identifier list-id list-unsubscribe bimi-indicator bimi-location x-bimi-indicator-hash "
        "authentication-results dkim-signature",
        "DATE FROM SENDER SUBJECT TO CC MESSAGE-ID REFERENCES CONTENT-TYPE CONTENT-DESCRIPTION IN-REPLY-TO REPLY-TO "
        "LINES LIST-POST LIST-SUBSCRIBE LIST-UNSUBSCRIBE X-LABEL X-ORIGINAL-TO",
        "date subject from content-type to cc reply-to message-id references in-reply-to list-unsubscribe sender "
        "X-K9mail-Identity",
        "X-TUID Message-ID",
        "MAIL-FOLLOWUP-TO MAIL-REPLY-TO LIST-POST DISPOSITION-NOTIFICATION-TO X-DRAFT-INFO IMPORTANCE",
    ],
    ids=["thunderbird", "apple", "mutt", "k9", "mbsync", "webmail"],
)
def test_fields_that_clients_request_are_cached(names: str) -> None:
    summary = summarise(RAW)
    assert cached_header_fields(summary, names.split()) == header_fields(RAW[: split_header(RAW)], names.split())


def test_fields_that_do_not_fit_are_named_and_the_others_kept() -> None:
    long_ = b"References: " + b"<x@y.test>\r\n " * 1000 + b"\r\n"
    raw = b"Subject: x\r\n" + long_ + b"To: a@b.test\r\n\r\n"
    summary = summarise(raw)
    assert list(summary.headers_left_out) == ["references"]
    assert cached_header_fields(summary, ["References"]) is None
    assert cached_header_fields(summary, ["Subject", "To"]) == b"Subject: x\r\nTo: a@b.test\r\n\r\n"


def test_all_fields_of_a_name_share_its_bound() -> None:
    raw = (b"List-Id: " + b"x" * 1000 + b"\r\n") * 10 + b"Subject: x\r\n\r\n"
    assert list(summarise(raw).headers_left_out) == ["list-id"]


def test_total_of_cached_fields_is_bounded_longest_first() -> None:
    names = ["to", "cc", "subject", "references", "list-id"]
    raw = b"".join(name.encode() + b": " + b"x" * (4200 + i) + b"\r\n" for i, name in enumerate(names)) + b"\r\n"
    summary = summarise(raw)
    assert list(summary.headers_left_out) == ["list-id", "references"]
    assert sum(len(field.raw) for field in summary.headers) <= limits.HEADERS_KEPT


def test_a_header_that_was_not_read_to_its_end_is_unknown() -> None:
    raw = b"Subject: x\r\n" + b"X-Long: y\r\n" * (limits.MAX_HEADER // 10) + b"To: a@b.test\r\n\r\nbody"
    summary = summarise(raw)
    assert set(summary.headers_left_out) == CACHED_HEADERS
    assert cached_header_fields(summary, ["Subject"]) is None
    assert summary.envelope.subject == b"x"
    assert summary.body.body_length == 4


def test_thread_key_joins_a_conversation() -> None:
    first = summarise(b"Message-ID: <root@x>\r\n\r\n").thread_key
    reply = summarise(b"Message-ID: <2@x>\r\nIn-Reply-To: <root@x>\r\n\r\n").thread_key
    later = summarise(b"Message-ID: <3@x>\r\nIn-Reply-To: <2@x>\r\nReferences: <root@x>\r\n <2@x>\r\n\r\n").thread_key
    other = summarise(b"Message-ID: <other@x>\r\n\r\n").thread_key
    assert first == reply == later != other
    assert len(first) == 16
    assert summarise(b"Subject: x\r\n\r\n").thread_key == b""
