"""Aliases resolved to their recipients, in any graph."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paquebot.directory.lookup import AccountEntry, AliasEntry, DirectoryEntry, ForeignDomain, NoEntry
from paquebot.directory.resolution import MAX_LEVELS, MAX_RECIPIENTS, Resolution, ResolutionRefusal, resolve
from paquebot.wire.address import Address, parse_address


class Table:
    """A directory in a table: alias → targets, or an account id; counts the lookups."""

    def __init__(self, entries: Mapping[str, list[str] | int]) -> None:
        self._entries = entries
        self.lookups = 0

    async def __call__(self, addresses: Sequence[Address]) -> dict[Address, DirectoryEntry]:
        self.lookups += 1
        assert len(set(addresses)) == len(addresses)
        return {address: self._entry(address) for address in addresses}

    def _entry(self, address: Address) -> DirectoryEntry:
        if address.domain != "here":
            return ForeignDomain()
        match self._entries.get(address.local):
            case None:
                return NoEntry()
            case int(account_id):
                return AccountEntry(account_id, address, True, 0, detail="", by_name=True)
            case targets:
                return AliasEntry(tuple(targets), True, detail="", by_name=True)


def accounts(resolution: Resolution) -> list[int]:
    return [target.account_id for target in resolution.local]


async def test_one_lookup_for_any_number_of_accounts() -> None:
    table = Table({f"a{number}": number for number in range(50)})
    resolutions = await resolve([f"a{number}@here" for number in range(50)], table)
    assert [accounts(resolution) for resolution in resolutions] == [[number] for number in range(50)]
    assert table.lookups == 1


async def test_one_more_lookup_for_each_level_of_aliases() -> None:
    table = Table({"a": 1, "b": ["a@here"], "c": ["b@here"], "d": ["a@here"]})
    resolutions = await resolve(["c@here", "d@here", "a@here"], table)
    assert [accounts(resolution) for resolution in resolutions] == [[1], [1], [1]]
    assert table.lookups == 3


async def test_bad_addresses_need_no_lookup() -> None:
    table = Table({})
    (resolution,) = await resolve(["nonsense"], table)
    assert resolution.refusal is ResolutionRefusal.BAD_ADDRESS
    assert table.lookups == 0


async def test_duplicates_collapse_and_two_paths_are_not_a_loop() -> None:
    table = Table({"a": 1, "x": ["y@here", "z@here"], "y": ["a@here", "r@there"], "z": ["a@here", "r@there"]})
    (resolution,) = await resolve(["x@here"], table)
    assert accounts(resolution) == [1]
    assert [str(target.address) for target in resolution.remote] == ["r@there"]
    assert resolution.dropped == 0


async def test_an_alias_without_recipients_has_the_refusal_of_its_targets() -> None:
    table = Table({"x": ["y@here", "x2@here"], "x2": ["x@here"]})
    (resolution,) = await resolve(["x@here"], table)
    assert resolution.refusal is ResolutionRefusal.NO_SUCH_ACCOUNT


async def test_aliases_may_relay_where_the_sender_may_not() -> None:
    table = Table({"x": ["r@there"]})
    aliased, direct = await resolve(["x@here", "r@there"], table)
    assert [target.aliased for target in aliased.remote] == [True]
    assert direct.refusal is ResolutionRefusal.RELAY_DENIED


async def test_other_address_literals_are_refused_unless_enabled() -> None:
    table = Table({"x": ["r@[127.0.0.4]"]})
    paths = ["r@[127.0.0.4]", "r@[IPv6:::1]", "x@here"]
    for resolution in await resolve(paths, table, may_relay=True):
        assert (resolution.refusal, resolution.remote) == (ResolutionRefusal.DOMAIN_DISABLED, ())
    for resolution in await resolve(paths, table, may_relay=True, other_literals=True):
        assert len(resolution.remote) == 1
    [stranger, *_] = await resolve(paths, table, other_literals=True)
    assert stranger.refusal is ResolutionRefusal.RELAY_DENIED


async def test_the_limits() -> None:
    chain: dict[str, list[str] | int] = {f"c{number}": [f"c{number + 1}@here"] for number in range(MAX_LEVELS)}
    chain[f"c{MAX_LEVELS}"] = 1
    too_deep, deep = await resolve(["c0@here", "c1@here"], Table(chain))
    assert too_deep.refusal is ResolutionRefusal.ALIAS_LOOP
    assert accounts(deep) == [1]
    wide = Table({"w": [f"r{number}@there" for number in range(MAX_RECIPIENTS - 1)]})
    (enough,) = await resolve(["w@here"], wide)
    assert len(enough.remote) == MAX_RECIPIENTS - 1
    too_wide = Table({"w": [f"r{number}@there" for number in range(MAX_RECIPIENTS)]})
    (refused,) = await resolve(["w@here"], too_wide)
    assert refused == Resolution(refusal=ResolutionRefusal.ALIAS_LOOP)


async def test_a_graph_that_grows_at_each_level_is_refused_early(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each alias leads to a hundred others: the number of lookups is bounded, not a hundred to the tenth."""
    read = 0

    def counting(text: str) -> Address:
        nonlocal read
        read += 1
        return parse_address(text)

    monkeypatch.setattr("paquebot.directory.resolution.parse_address", counting)
    doubling = Table({f"{level}-{number}": [f"{level + 1}-{number * 100 + one}@here" for one in range(100)]
                      for level in range(3) for number in range(100**level)})  # fmt: skip
    (refused,) = await resolve(["0-0@here"], doubling)
    assert refused == Resolution(refusal=ResolutionRefusal.ALIAS_LOOP)
    assert read <= MAX_RECIPIENTS + 100


_names = st.sampled_from("abcdef")
_targets = st.lists(st.tuples(_names, st.sampled_from(["here", "there"])), min_size=1, max_size=4)


@given(st.dictionaries(_names, st.one_of(_targets, st.integers(1, 3)), max_size=6), _names)
async def test_any_graph_resolves_to_the_reachable_recipients(
    graph: dict[str, list[tuple[str, str]] | int], start: str
) -> None:
    written = {
        name: leads if isinstance(leads, int) else [f"{local}@{domain}" for local, domain in leads]
        for name, leads in graph.items()
    }
    (resolution,) = await resolve([f"{start}@here"], Table(written))
    reached = {f"{start}@here"}
    while True:
        more = {
            target
            for address in reached
            if address.endswith("@here") and isinstance(leads := written.get(address[0]), list)
            for target in leads
        }
        if more <= reached:
            break
        reached |= more
    ids = {leads for at in reached if at.endswith("@here") and isinstance(leads := written.get(at[0]), int)}
    assert set(accounts(resolution)) == ids
    assert {target.address for target in resolution.remote} == {
        parse_address(address) for address in reached if address.endswith("@there")
    }
    assert (resolution.refusal is None) == bool(resolution.local or resolution.remote)
