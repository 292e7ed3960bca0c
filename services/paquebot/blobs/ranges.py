"""Plans the ranged GETs that read many messages: neighbours in one pack share a request, in whatever order the caller
lists them.

A gap of up to 64 KiB is read and thrown away: a request costs more than such a gap does, at the client, at the
server, and on the bill. Pure: no I/O.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from operator import itemgetter

from paquebot.v1.mail_pb2 import BlobRef

MAX_GAP_BYTES = 64 * 1024
MAX_RANGE_BYTES = 1024 * 1024
"""Maximum of one request, unless a single entry is longer: what a thread holds before it decompresses."""

_Placed = tuple[int, int, int, BlobRef]  # offset, end, place in the caller's order, entry


@dataclass(frozen=True, slots=True)
class PackRange:
    """One ranged GET: the bytes `start` <= n < `end` of a pack, and the entries in them by offset."""

    pack: str
    start: int
    end: int
    refs: tuple[BlobRef, ...]


def plan_ranges(
    refs: Iterable[BlobRef], *, max_gap: int = MAX_GAP_BYTES, max_bytes: int = MAX_RANGE_BYTES
) -> list[PackRange]:
    """The requests that read `refs`, each ref in exactly one request; ordered by their first refs."""
    packs: dict[str, list[_Placed]] = {}
    for place, ref in enumerate(refs):
        offset = ref.offset
        packs.setdefault(ref.pack, []).append((offset, offset + ref.length, place, ref))
    found = [
        (min(place for _, _, place, _ in run), _pack_range(pack, run))
        for pack, entries in packs.items()
        for run in _runs(entries, max_gap, max_bytes)
    ]
    found.sort(key=itemgetter(0))
    return [pack_range for _, pack_range in found]


def _runs(entries: list[_Placed], max_gap: int, max_bytes: int) -> Iterator[list[_Placed]]:
    """Neighbours in one pack."""
    entries.sort(key=itemgetter(0, 1, 2))
    run: list[_Placed] = []
    start = end = 0
    for entry in entries:
        if run and (entry[0] - end > max_gap or max(end, entry[1]) - start > max_bytes):
            yield run
            run = []
        if not run:
            start = end = entry[0]
        run.append(entry)
        end = max(end, entry[1])
    yield run


def _pack_range(pack: str, run: list[_Placed]) -> PackRange:
    return PackRange(pack, run[0][0], max(end for _, end, _, _ in run), tuple(ref for _, _, _, ref in run))
