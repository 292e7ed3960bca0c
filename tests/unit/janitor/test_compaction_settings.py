"""Settings of the compaction: their defaults, and faults."""

from __future__ import annotations

import pytest

from paquebot.janitor.settings import CompactionSettings
from paquebot.runtime.settings import SettingsError, describe, load


def test_read_from_the_environment() -> None:
    found = load(CompactionSettings, {"PAQUEBOT_JANITOR_COMPACT": "no", "PAQUEBOT_JANITOR_COMPACT_MESSAGE": "2MiB"})
    assert (found.enabled, found.saved_packs, found.age) == (False, 16, 86400.0)
    rule = found.rule()
    assert (rule.pack_bytes, rule.share_bytes) == (4 * 2**20, 2**20)
    assert rule.floor_bytes == 2**20  # at most the maximum share, for any size of messages
    assert all(name.startswith("PAQUEBOT_JANITOR_") and help_ for name, _, help_ in describe(CompactionSettings))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("JANITOR_COMPACT_PACKS", "0"),
        ("JANITOR_PACK_BYTES", "1"),
        ("JANITOR_PACK_BYTES", "1GiB"),
        ("JANITOR_LIVE_SHARE", "1.5"),
    ],
)
def test_a_wrong_one_is_named(name: str, value: str) -> None:
    with pytest.raises(SettingsError, match=f"PAQUEBOT_{name}"):
        load(CompactionSettings, {f"PAQUEBOT_{name}": value})
