"""Good logins remembered: by account, hash and password, for a time, up to a number."""

from paquebot.recipient_validation.login_cache import LoginCache


def test_only_the_very_same_login_is_known() -> None:
    cache = LoginCache(10.0, 100, lambda: 0.0)
    cache.remember(1, "hash", "secret")
    assert cache.knows(1, "hash", "secret")
    assert not cache.knows(2, "hash", "secret")
    assert not cache.knows(1, "other hash", "secret")
    assert not cache.knows(1, "hash", "Secret")
    assert not cache.knows(1, "has", "hsecret")
    assert not LoginCache(10.0, 100, lambda: 0.0).knows(1, "hash", "secret")


def test_use_does_not_extend_the_time() -> None:
    now = 0.0
    cache = LoginCache(10.0, 100, lambda: now)
    cache.remember(1, "hash", "secret")
    now = 5.0
    assert cache.knows(1, "hash", "secret")
    now = 9.9
    assert cache.knows(1, "hash", "secret")
    now = 10.0
    assert not cache.knows(1, "hash", "secret")


def test_entries_are_bounded_oldest_first() -> None:
    cache = LoginCache(10.0, 2, lambda: 0.0)
    for account_id in (1, 2, 1, 3):
        cache.remember(account_id, "hash", "secret")
    assert len(cache) == 2
    assert [cache.knows(account_id, "hash", "secret") for account_id in (1, 2, 3)] == [True, False, True]


def test_no_time_remembers_nothing() -> None:
    cache = LoginCache(0.0, 100, lambda: 0.0)
    cache.remember(1, "hash", "secret")
    assert len(cache) == 0
