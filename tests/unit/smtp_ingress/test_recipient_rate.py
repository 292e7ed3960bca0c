"""So many recipients at once, so many an hour after that, each account by itself."""

from __future__ import annotations

from paquebot.smtp_ingress import recipient_rate
from paquebot.smtp_ingress.recipient_rate import RecipientRates


def test_an_account_spends_and_earns_its_own_rate() -> None:
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


def test_zero_is_any_number() -> None:
    rates = RecipientRates(lambda: 0.0)
    assert all(rates.take(1, 0) for _ in range(1000))


def test_accounts_of_long_ago_are_forgotten() -> None:
    now = [0.0]
    rates = RecipientRates(lambda: now[0])
    for account in range(recipient_rate._KEPT):
        rates.take(account, 1)
    now[0] = 3600.0
    rates.take(-1, 1)
    assert len(rates._spent) == 1


def test_what_can_be_forgotten_is_not_looked_for_at_each_recipient() -> None:
    """Each look is at all accounts."""
    now = [0.0]
    rates = RecipientRates(lambda: now[0])
    for account in range(recipient_rate._KEPT):
        rates.take(account, 1)
    before = rates._spent
    assert rates.take(-1, 2)
    looked = rates._spent
    assert looked is not before
    assert rates.take(-1, 2)
    assert rates._spent is looked
