"""Packs are examined in groups, each once."""

from paquebot.blobs.store import PackInfo
from paquebot.janitor.indexes import GROUP, in_groups


def test_each_pack_is_in_one_group_and_progress_is_reported() -> None:
    infos = [PackInfo(f"{number:026}", number) for number in range(2500)]
    lines: list[str] = []
    groups = [list(group) for group in in_groups(infos, lines.append)]
    assert [info for group in groups for info in group] == infos
    assert {len(group) for group in groups[:-1]} == {GROUP}
    assert lines == ["1,024 of 2,500 packs examined", "2,048 of 2,500 packs examined"]


def test_few_packs_report_no_progress() -> None:
    lines: list[str] = []
    assert [list(group) for group in in_groups([PackInfo("a", 1)], lines.append)] == [[PackInfo("a", 1)]]
    assert list(in_groups([], lines.append)) == []
    assert lines == []
