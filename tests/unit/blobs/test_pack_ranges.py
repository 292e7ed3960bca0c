"""The plan of ranged GETs, for any messages in any order."""

from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st

from paquebot.blobs.ranges import PackRange, plan_ranges
from paquebot.v1.mail_pb2 import BlobRef

PACKS = ("01ARZ3NDEKTSV4RRFFQ69G5FAV", "01ARZ3NDEKTSV4RRFFQ69G5FAW", "01ARZ3NDEKTSV4RRFFQ69G5FAX")


@st.composite
def refs(draw: st.DrawFn) -> list[BlobRef]:
    """Entries of a few packs as they lie there, some left out, in any order, some asked for twice."""
    found: list[BlobRef] = []
    for pack in PACKS:
        offset = 0
        for length, hole in draw(st.lists(st.tuples(st.integers(1, 300), st.integers(0, 200)), max_size=20)):
            found.append(BlobRef(pack=pack, offset=offset, length=length, size=length))
            offset += length + hole
    again = draw(st.lists(st.sampled_from(found), max_size=3)) if found else []
    found += [BlobRef.FromString(ref.SerializeToString()) for ref in again]
    return draw(st.permutations(found))


def covers(span: PackRange, ref: BlobRef) -> bool:
    return span.pack == ref.pack and span.start <= ref.offset and ref.offset + ref.length <= span.end


@given(refs(), st.integers(0, 200), st.integers(1, 1500))
def test_each_message_is_in_exactly_one_request(wanted: list[BlobRef], gap: int, longest: int) -> None:
    planned = plan_ranges(wanted, max_gap=gap, max_bytes=longest)
    assert sorted(id(ref) for span in planned for ref in span.refs) == sorted(map(id, wanted))
    assert all(covers(span, ref) for span in planned for ref in span.refs)


@given(refs(), st.integers(0, 200), st.integers(1, 1500))
def test_gaps_and_lengths_are_limited(wanted: list[BlobRef], gap: int, longest: int) -> None:
    for span in plan_ranges(wanted, max_gap=gap, max_bytes=longest):
        entries = sorted((ref.offset, ref.offset + ref.length) for ref in span.refs)
        assert span.start == entries[0][0]
        assert span.end == max(end for _, end in entries)
        assert span.end - span.start <= max(longest, *(end - start for start, end in entries))
        for (_, end), (start, _) in itertools.pairwise(entries):
            assert start - end <= gap


@given(refs(), st.integers(0, 200))
def test_requests_come_in_the_order_of_their_first_messages(wanted: list[BlobRef], gap: int) -> None:
    place = {id(ref): index for index, ref in enumerate(wanted)}
    firsts = [min(place[id(ref)] for ref in span.refs) for span in plan_ranges(wanted, max_gap=gap)]
    assert firsts == sorted(firsts)


@given(refs(), st.integers(0, 200))
def test_no_two_requests_could_have_been_one(wanted: list[BlobRef], gap: int) -> None:
    by_pack: dict[str, list[PackRange]] = {}
    for span in plan_ranges(wanted, max_gap=gap):
        by_pack.setdefault(span.pack, []).append(span)
    for found in by_pack.values():
        found.sort(key=lambda span: span.start)
        assert all(later.start - earlier.end > gap for earlier, later in itertools.pairwise(found))


def test_no_messages_need_no_request() -> None:
    assert plan_ranges([]) == []
