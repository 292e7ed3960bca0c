"""ULIDs: order, time, and invalid ones."""

from __future__ import annotations

import time

import pytest

from paquebot.runtime.ulid import new_ulid, ulid_at, ulid_time_ms


def test_ids_are_unique_and_in_order() -> None:
    ids = [new_ulid() for _ in range(5000)]
    assert ids == sorted(set(ids))


def test_an_id_contains_its_time() -> None:
    before = time.time_ns() // 1_000_000
    made = ulid_time_ms(new_ulid())
    assert before <= made <= time.time_ns() // 1_000_000
    assert ulid_time_ms(ulid_at(made)) == made
    assert ulid_at(made) <= new_ulid()
    assert ulid_time_ms("7ZZZZZZZZZZZZZZZZZZZZZZZZZ") == 2**48 - 1


@pytest.mark.parametrize(
    "text",
    [
        "",
        "01KAR0G9W0000000000000000",  # 25 characters
        "01KAR0G9W000000000000000000",  # 27
        "01KAR0G9W000000000000000 1",
        "01KAR0G9W0000000000000000U",  # not in Crockford's alphabet
        "01KAR0G9W0000000000000000i",
        "01KAR0G9W0/../../../../../",
        "80000000000000000000000000",  # over 128 bits
    ],
)
def test_invalid_ids(text: str) -> None:
    with pytest.raises(ValueError, match="is not a ULID"):
        ulid_time_ms(text)
