"""The cache of good logins: by account, hash and password, for a time, up to a number."""

from paquebot.recipient_validation.login_cache import LoginCache


def test_only_the_same_login_is_cached() -> None:
    cache = LoginCache(10.0, 100, lambda: 0.0)
    cache.add(1, "hash", "secret")
    assert cache.has(1, "hash", "secret")
    assert not cache.has(2, "hash", "secret")
    assert not cache.has(1, "other hash", "secret")
    assert not cache.has(1, "hash", "Secret")
    assert not cache.has(1, "has", "hsecret")
    assert not LoginCache(10.0, 100, lambda: 0.0).has(1, "hash", "secret")


def test_use_does_not_extend_the_time() -> None:
    now = 0.0
    cache = LoginCache(10.0, 100, lambda: now)
    cache.add(1, "hash", "secret")
    now = 5.0
    assert cache.has(1, "hash", "secret")
    now = 9.9
    assert cache.has(1, "hash", "secret")
    now = 10.0
    assert not cache.has(1, "hash", "secret")


def test_the_oldest_entry_is_evicted_first() -> None:
    cache = LoginCache(10.0, 2, lambda: 0.0)
    for account_id in (1, 2, 1, 3):
        cache.add(account_id, "hash", "secret")
    assert len(cache) == 2
    assert [cache.has(account_id, "hash", "secret") for account_id in (1, 2, 3)] == [True, False, True]


def test_without_a_time_nothing_is_cached() -> None:
    cache = LoginCache(0.0, 100, lambda: 0.0)
    cache.add(1, "hash", "secret")
    assert len(cache) == 0
