"""The reader refuses an object below `snapshots/` that differs from what was written."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paquebot.janitor.snapshots.objects import BadSnapshot, compress, decompress, seal, unseal
from paquebot.v1.snapshot_pb2 import SnapshotManifest, SnapshotPart, SnapshotRun

RUN = SnapshotRun(version=1, run="01ARZ3NDEKTSV4RRFFQ69G5FAV", mailstore="name", pages=3, accounts=12_000)
SEALED = seal(RUN)


def test_what_was_sealed_is_read() -> None:
    assert unseal(SnapshotRun, SEALED) == RUN
    assert unseal(SnapshotRun, b"frames of an object before it" + SEALED) == RUN


@given(at=st.integers(0, len(SEALED) - 1), bit=st.integers(0, 7))
def test_a_changed_bit_is_refused(at: int, bit: int) -> None:
    damaged = bytearray(SEALED)
    damaged[at] ^= 1 << bit
    with pytest.raises(BadSnapshot):
        unseal(SnapshotRun, bytes(damaged))


@given(st.integers(0, len(SEALED) - 1))
def test_a_cut_object_is_refused(length: int) -> None:
    with pytest.raises(BadSnapshot):
        unseal(SnapshotRun, SEALED[:length])
    with pytest.raises(BadSnapshot):
        unseal(SnapshotRun, SEALED[length + 1 :])


@given(st.binary(max_size=200))
def test_a_frame_of_anything_is_refused_or_read(frame: bytes) -> None:
    with pytest.raises(BadSnapshot):
        decompress(SnapshotPart, frame)


def test_another_format_version_is_refused() -> None:
    with pytest.raises(BadSnapshot, match="format version 2; this program reads 1"):
        unseal(SnapshotManifest, seal(SnapshotManifest(version=2)))


def test_a_frame_over_the_limit_is_refused() -> None:
    with pytest.raises(BadSnapshot, match="over the limit"):
        decompress(SnapshotPart, compress(SnapshotPart(delivered=["x" * 65 * 2**20])))
