"""Notifications that are due: NOTIFY, the null reverse-path, the next host's DSN; and their queue ids."""

import pytest

from paquebot.blobs import ulid_time_ms
from paquebot.message import Action
from paquebot.notification import is_wanted
from paquebot.relay.outcome import RelayOutcome, RelayResult, deferred, failed
from paquebot.relay.reports import due, report_queue_id, reported
from paquebot.relay.settlement import later
from paquebot.v1.mail_pb2 import (
    NOTIFY_DELAY,
    NOTIFY_FAILURE,
    NOTIFY_NEVER,
    NOTIFY_SUCCESS,
    Notify,
    RemoteRecipient,
)
from paquebot.v1.queue_pb2 import RelayJob

ACTIONS = (Action.FAILED, Action.DELAYED, Action.RELAYED, Action.EXPANDED)
JOB = RelayJob(queue_id="Q", reverse_path="s@example.org", domain="example.net", accepted_at_ms=1_700_000_000_000)


def recipient(*notify: Notify.ValueType, name: str = "a") -> RemoteRecipient:
    return RemoteRecipient(forward_path=f"{name}@example.net", domain="example.net", notify=notify)


@pytest.mark.parametrize(
    ("notify", "actions"),
    [  # RFC 3461 §4.1
        ((), {Action.FAILED, Action.DELAYED}),
        ((NOTIFY_NEVER,), set()),
        ((NOTIFY_SUCCESS,), {Action.RELAYED}),
        ((NOTIFY_FAILURE,), {Action.FAILED}),
        ((NOTIFY_DELAY,), {Action.DELAYED}),
        ((NOTIFY_FAILURE, NOTIFY_DELAY), {Action.FAILED, Action.DELAYED}),
        ((NOTIFY_SUCCESS, NOTIFY_FAILURE, NOTIFY_DELAY), {Action.FAILED, Action.DELAYED, Action.RELAYED}),
    ],
)
def test_notify_decides(notify: tuple[Notify.ValueType, ...], actions: set[Action]) -> None:
    assert {action for action in ACTIONS if is_wanted(recipient(*notify).notify, action)} == actions


def test_nothing_is_due_to_the_null_reverse_path() -> None:  # RFC 5321 §4.5.5
    job = RelayJob(queue_id="Q", reverse_path="")
    assert due(job, [(recipient(), failed("5.1.1", "no"))], Action.FAILED) == []


def test_a_next_host_with_dsn_reports_success_itself() -> None:  # RFC 3461 §5.2.2
    wanted = recipient(NOTIFY_SUCCESS)
    taken = RelayOutcome(RelayResult.DELIVERED, "2.0.0", "250 Ok")
    passed = RelayOutcome(RelayResult.DELIVERED, "2.0.0", "250 Ok", dsn_passed=True)
    assert due(JOB, [(wanted, taken)], Action.RELAYED) == [reported(wanted, taken)]
    assert due(JOB, [(wanted, passed)], Action.RELAYED) == []
    assert due(JOB, [(wanted, deferred("4.4.1", "away"))], Action.RELAYED) == []


def test_the_same_notification_has_the_same_queue_id() -> None:
    recipients = [reported(recipient(name=name), failed("5.1.1", "no")) for name in "ab"]
    name = report_queue_id(JOB, Action.FAILED, recipients)
    assert name == report_queue_id(JOB, Action.FAILED, list(reversed(recipients)))
    assert (len(name), ulid_time_ms(name)) == (26, JOB.accepted_at_ms)
    again = RelayJob()
    again.CopyFrom(JOB)
    again.attempt = 1
    others = [
        report_queue_id(JOB, Action.FAILED, recipients[:1]),
        report_queue_id(JOB, Action.DELAYED, recipients),
        report_queue_id(again, Action.FAILED, recipients),
    ]
    assert len({name, *others}) == 4


def test_the_same_attempt_is_scheduled_under_one_name() -> None:
    first, second = later(JOB, 100.0), later(JOB, 200.0)
    assert (first.message_id, first.later_subject) == (second.message_id, second.later_subject)
    assert first.subject == "relay.ready.example_net"
    assert first.later_subject == "relay.later.Q-example_net-0"
