"""The rate limit of recipients per account: a burst, and a number per hour."""

from __future__ import annotations

from paquebot.smtp_ingress import recipient_rate
from paquebot.smtp_ingress.recipient_rate import RecipientRates


def test_each_account_has_its_own_rate() -> None:
    now = [0.0]
    rates = RecipientRates(lambda: now[0])
    assert [rates.take(1, 3) for _ in range(5)] == [True, True, True, False, False]
    assert rates.take(2, 3)
    now[0] = 1199.0
    assert not rates.take(1, 3)
    now[0] = 1200.0
    assert [rates.take(1, 3) for _ in range(2)] == [True, False]
    now[0] = 10 * 3600.0
    assert [rates.take(1, 3) for _ in range(4)] == [True, True, True, False]


def test_zero_is_no_limit() -> None:
    rates = RecipientRates(lambda: 0.0)
    assert all(rates.take(1, 0) for _ in range(1000))


def test_accounts_without_recipients_for_an_hour_are_dropped() -> None:
    now = [0.0]
    rates = RecipientRates(lambda: now[0])
    for account in range(recipient_rate._MAX_ACCOUNTS):
        rates.take(account, 1)
    now[0] = 3600.0
    rates.take(-1, 1)
    assert len(rates._spent) == 1


def test_old_accounts_are_not_looked_for_at_each_recipient() -> None:
    """A search for old accounts reads all of them."""
    now = [0.0]
    rates = RecipientRates(lambda: now[0])
    for account in range(recipient_rate._MAX_ACCOUNTS):
        rates.take(account, 1)
    before = rates._spent
    assert rates.take(-1, 2)
    pruned = rates._spent
    assert pruned is not before
    assert rates.take(-1, 2)
    assert rates._spent is pruned
