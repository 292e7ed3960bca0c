"""Success notifications to remote reverse-paths are limited: the owner of the address may not have requested them."""

import pytest
from prometheus_client import REGISTRY

from paquebot.notification import SuccessLimits, SuccessShares


class Shares:
    def __init__(self, **limits: int) -> None:
        self.now = 50.0
        self.all = SuccessShares(SuccessLimits(**limits), lambda: self.now)

    def allowed(self, *reverse_paths: str) -> int:
        return sum(self.all.allow(path) for path in reverse_paths)


def suppressed(limit: str) -> float:
    return REGISTRY.get_sample_value("paquebot_notification_suppressed_total", {"limit": limit}) or 0.0


def test_one_reverse_path_has_a_limit_per_hour() -> None:
    shares = Shares(per_address=4)
    before = suppressed("address")
    assert shares.allowed(*["victim@example.net"] * 440) == 4
    assert suppressed("address") == before + 436
    assert shares.allowed("VICTIM@EXAMPLE.NET") == 0, "in any spelling"
    assert shares.allowed("other@example.net") == 1
    shares.now += 900.0
    assert shares.allowed(*["victim@example.net"] * 440) == 1, "a quarter of an hour brings a quarter back"
    shares.now += 999_999.0
    assert shares.allowed(*["victim@example.net"] * 440) == 4


def test_one_domain_has_a_limit_per_hour() -> None:
    shares = Shares(per_address=10, per_domain=5)
    assert shares.allowed(*(f"u{n}@example.net" for n in range(100))) == 5
    assert shares.allowed("u@example.org") == 1


def test_all_together_have_a_limit_per_hour() -> None:
    shares = Shares(total=7)
    assert shares.allowed(*(f"u@{n}.example" for n in range(100_000))) == 7
    assert Shares(total=0).allowed("u@example.net") == 0


def test_the_memory_of_the_limit_is_bounded() -> None:
    shares = Shares(per_address=1, per_domain=1, total=10**9)
    assert shares.allowed(*(f"u@{n}.example" for n in range(50_000))) == 50_000
    assert len(shares.all._used) == 20_000


def test_limits_below_zero_are_no_limits() -> None:
    with pytest.raises(ValueError, match="REPORT_SUCCESS"):
        SuccessLimits(total=-1)
