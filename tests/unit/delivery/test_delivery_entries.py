"""From entries to deliveries and due notifications, without I/O."""

from __future__ import annotations

import datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paquebot.delivery.entries import EntryOutcome, RecipientDelivery, deliveries_of, prefix
from paquebot.delivery.reports import due, report_queue_id
from paquebot.delivery.settings import DeliverySettings
from paquebot.mailstore import DeliveryOutcome, DeliveryResult
from paquebot.message import Action
from paquebot.notification import ReportedRecipient
from paquebot.runtime.settings import SettingsError, load
from paquebot.v1.mail_pb2 import (
    NOTIFY_DELAY,
    NOTIFY_FAILURE,
    NOTIFY_NEVER,
    NOTIFY_SUCCESS,
    BlobRef,
    LocalRecipient,
    Notify,
)
from paquebot.v1.queue_pb2 import DeliverEntry
from paquebot.v1.summary_pb2 import MessageSummary

DELIVERED, DUPLICATE = DeliveryResult.DELIVERED, DeliveryResult.DUPLICATE
OVER_QUOTA, NO_ACCOUNT = DeliveryResult.OVER_QUOTA, DeliveryResult.NO_ACCOUNT


def entry(*recipients: LocalRecipient, reverse_path: str = "bob@example.org") -> DeliverEntry:
    return DeliverEntry(
        queue_id="01HQ0000000000000000000000",
        reverse_path=reverse_path,
        recipients=recipients,
        blob=BlobRef(pack="01HQ0000000000000000000001", size=100),
        summary=MessageSummary(thread_key=b"k" * 16),
        accepted_at_ms=1_700_000_000_000,
    )


def recipient(account_id: int = 1, *notify: Notify.ValueType) -> LocalRecipient:
    address = f"u{account_id}@example.org"
    return LocalRecipient(account_id=account_id, address=address, forward_path=address, notify=notify, quota_bytes=5)


def test_one_delivery_per_recipient() -> None:
    first, second = deliveries_of(entry(recipient(1), recipient(2)))
    assert (first.delivery.account_id, second.delivery.account_id) == (1, 2)
    message = first.delivery.message
    assert message.internal_date == datetime.datetime(2023, 11, 14, 22, 13, 20, tzinfo=datetime.UTC)
    assert message.prefix == b"Return-Path: <bob@example.org>\r\nDelivered-To: u1@example.org\r\n"
    assert message.size == 100 + len(message.prefix)
    assert message.thread_key == b"k" * 16
    assert first.delivery.quota_bytes == 5


@given(st.text(), st.text())
def test_addresses_stay_on_their_lines(reverse_path: str, address: str) -> None:
    lines = prefix(reverse_path, address).split(b"\r\n")
    assert len(lines) == 3
    assert lines[0].startswith(b"Return-Path: <")
    assert lines[0].endswith(b">")
    assert lines[1].startswith(b"Delivered-To: ")
    assert lines[2] == b""
    assert b"\r" not in b"".join(lines)
    assert b"\n" not in b"".join(lines)


def notifications(*pairs: tuple[LocalRecipient, DeliveryResult], reverse_path: str = "bob@example.org") -> object:
    whole = entry(*(one for one, _ in pairs), reverse_path=reverse_path)
    outcomes = [
        EntryOutcome(RecipientDelivery(whole, one, made.delivery), DeliveryOutcome(result))
        for (one, result), made in zip(pairs, deliveries_of(whole), strict=True)
    ]
    return [(action, [(one.recipient.account_id, one.status) for one in each]) for _, action, each in due(outcomes)]


@pytest.mark.parametrize(
    ("notify", "result", "reported"),
    [
        ((), DELIVERED, []),
        ((NOTIFY_FAILURE, NOTIFY_DELAY), DELIVERED, []),
        ((NOTIFY_SUCCESS,), DELIVERED, [(Action.DELIVERED, [(1, "2.0.0")])]),
        ((NOTIFY_SUCCESS,), DUPLICATE, [(Action.DELIVERED, [(1, "2.0.0")])]),
        ((), OVER_QUOTA, [(Action.FAILED, [(1, "5.2.2")])]),
        ((NOTIFY_FAILURE,), NO_ACCOUNT, [(Action.FAILED, [(1, "5.1.1")])]),
        ((NOTIFY_SUCCESS,), OVER_QUOTA, []),
        ((NOTIFY_NEVER,), OVER_QUOTA, []),
    ],
)
def test_which_recipients_are_reported(
    notify: tuple[Notify.ValueType, ...], result: DeliveryResult, reported: object
) -> None:
    """RFC 3461 §4.1"""
    assert notifications((recipient(1, *notify), result)) == reported


def test_one_notification_per_action() -> None:
    pairs = (
        (recipient(1, NOTIFY_SUCCESS), DELIVERED),
        (recipient(2, NOTIFY_FAILURE), OVER_QUOTA),
        (recipient(3), NO_ACCOUNT),
        (recipient(4, NOTIFY_SUCCESS), DUPLICATE),
    )
    assert notifications(*pairs) == [
        (Action.DELIVERED, [(1, "2.0.0"), (4, "2.0.0")]),
        (Action.FAILED, [(2, "5.2.2"), (3, "5.1.1")]),
    ]
    assert notifications(*pairs, reverse_path="") == []  # RFC 5321 §4.5.5


def test_a_notification_has_the_same_queue_id_again() -> None:
    one, two = ReportedRecipient(recipient(1), "5.2.2", ""), ReportedRecipient(recipient(2), "5.2.2", "")
    made = report_queue_id(entry(), Action.FAILED, [one, two])
    assert len(made) == 26
    assert made == report_queue_id(entry(), Action.FAILED, [two, one])
    assert made != report_queue_id(entry(), Action.FAILED, [one])
    assert made != report_queue_id(entry(), Action.DELIVERED, [one, two])


def test_settings_report_all_faults() -> None:
    with pytest.raises(SettingsError) as caught:
        load(DeliverySettings, {"PAQUEBOT_DELIVERY_OVER_QUOTA": "ignore", "PAQUEBOT_DELIVERY_TRIES": "0"})
    assert len(caught.value.faults) == 2
    with pytest.raises(SettingsError, match="must be at most 10 s"):
        load(DeliverySettings, {"PAQUEBOT_DELIVERY_PACE": "1m"})
