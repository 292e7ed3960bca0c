"""The pack: many messages in one immutable object that describes itself.

Layout: entries one after another, each one zstd frame of a raw RFC 5322 message, with the frame's own checksum (packs
of older programs have none in their frames); the `PackIndex` (protobuf);
the index's length (4 bytes, little-endian); the first 8 bytes of its SHA-256; `MAGIC` (8 bytes). An index names
queue id and envelope of each entry, so the bucket alone is enough to deliver what it holds (invariant 2).

Format version 1 is a pack as accepted. The janitor writes version 2 for one account, which its index names: a program
that does not know of version 2 must not read the index, or `recover` would deliver old mail once more.
"""

import datetime
import hashlib
import struct
import threading
from dataclasses import dataclass, field

import zstandard
from google.protobuf.message import DecodeError

from paquebot.runtime.ulid import ulid_time_ms
from paquebot.v1.mail_pb2 import (
    COMPRESSION_NONE,
    COMPRESSION_ZSTD,
    ENCRYPTION_NONE,
    BlobRef,
    Compression,
    Encryption,
    Envelope,
    PackEntry,
    PackIndex,
)

FORMAT_VERSION = 1
REWRITTEN_VERSION = 2
MAGIC = b"PAQUEBT1"
TRAILER = struct.Struct("<I8s8s")
PREFIX = "packs/"
MAX_INDEX = 64 * 2**20

_LEVEL = 1  # mail is mostly text or base64: level 3 costs twice the time and saves 2-3 % more


class _Codec(threading.local):
    """One for each thread: both objects release the GIL at work and must not be used by two threads at once."""

    def __init__(self) -> None:
        self.compressor = zstandard.ZstdCompressor(level=_LEVEL, write_checksum=True)
        self.decompressor = zstandard.ZstdDecompressor()


_codec = _Codec()


class BadPack(Exception):
    """The bytes read are not those written: not a pack, cut off, or an entry that does not match its checksum.

    Either the object is damaged or S3 answered wrongly this time; both look the same, so a retry may help.
    """


def pack_key(pack: str) -> str:
    """The object's name: `packs/<yyyy>/<mm>/<dd>/<ulid>`, from the ULID's own time (UTC).
    Raises ValueError when `pack` is not a ULID."""
    day = datetime.datetime.fromtimestamp(ulid_time_ms(pack) / 1000, datetime.UTC)
    return f"{PREFIX}{day:%Y/%m/%d}/{pack}"


@dataclass(frozen=True, slots=True)
class Frame:
    """One message ready for a pack: its content as it is stored (`compression`), and size and SHA-256 of the content
    as accepted."""

    content: bytes
    size: int
    sha256: bytes
    compression: Compression.ValueType


def compress(content: bytes) -> Frame:
    """Hash and compress one message. Releases the GIL for large ones."""
    return Frame(_codec.compressor.compress(content), len(content), hashlib.sha256(content).digest(), COMPRESSION_ZSTD)


@dataclass(slots=True)
class PackWriter:
    """Collects frames and their index. Not thread-safe."""

    pack: str
    size: int = 0
    account_id: int = 0
    """The account for which the janitor writes these messages again; 0: they were just accepted."""
    _index: PackIndex = field(default_factory=PackIndex)
    _frames: list[bytes] = field(default_factory=list)

    def add(self, envelope: Envelope, frame: Frame) -> BlobRef:
        """Append one message; returns its reference."""
        entry = self._index.entries.add(
            offset=self.size,
            length=len(frame.content),
            size=frame.size,
            sha256=frame.sha256,
            compression=frame.compression,
            encryption=ENCRYPTION_NONE,
        )
        entry.envelope.CopyFrom(envelope)
        self._frames.append(frame.content)
        self.size += len(frame.content)
        return entry_ref(self.pack, entry)

    def finish(self, now_ms: int) -> bytes:
        """The whole object."""
        self._index.version = REWRITTEN_VERSION if self.account_id else FORMAT_VERSION
        self._index.account_id = self.account_id
        self._index.pack = self.pack
        self._index.written_at_ms = now_ms
        index = self._index.SerializeToString()
        return b"".join((*self._frames, index, TRAILER.pack(len(index), _checksum(index), MAGIC)))


def entry_ref(pack: str, entry: PackEntry) -> BlobRef:
    """The reference with which jobs name an entry. Mailbox rows have all of it except the SHA-256."""
    return BlobRef(
        pack=pack,
        offset=entry.offset,
        length=entry.length,
        size=entry.size,
        compression=entry.compression,
        encryption=entry.encryption,
        sha256=entry.sha256,
    )


def is_at(ref: BlobRef, entry: PackEntry) -> bool:
    """Whether `ref`, of a mailbox row or of a job, names this entry of its pack."""
    place = ref.offset, ref.length, ref.size, ref.compression, ref.encryption
    return place == (entry.offset, entry.length, entry.size, entry.compression, entry.encryption)


def index_length(trailer: bytes) -> int:
    """Bytes of the index, from the last TRAILER.size bytes of the object. Raises BadPack."""
    if len(trailer) != TRAILER.size:
        raise BadPack("not a pack: shorter than a trailer")
    length, _, magic = TRAILER.unpack(trailer)
    if magic != MAGIC:
        raise BadPack("not a pack: bad magic")
    if length > MAX_INDEX:
        raise BadPack(f"an index of {length} bytes: at most {MAX_INDEX} are read")
    return int(length)


def parse_index(tail: bytes) -> PackIndex:
    """The index, from the last bytes of the object, at least the whole index and the trailer. Raises BadPack."""
    length = index_length(tail[-TRAILER.size :])
    if length + TRAILER.size > len(tail):
        raise BadPack("the index is longer than the object")
    end = len(tail) - TRAILER.size
    data = tail[end - length : end]
    _, checksum, _ = TRAILER.unpack(tail[end:])
    if _checksum(data) != checksum:
        raise BadPack("the index does not match its checksum")
    try:
        index = PackIndex.FromString(data)
    except DecodeError as error:
        raise BadPack(f"bad index: {error}") from None
    if index.version not in (FORMAT_VERSION, REWRITTEN_VERSION):
        raise BadPack(f"format version {index.version}; this program reads {FORMAT_VERSION} and {REWRITTEN_VERSION}")
    if (index.version == REWRITTEN_VERSION) != bool(index.account_id):
        raise BadPack(f"format version {index.version} with account {index.account_id}")
    return index


def _checksum(index: bytes) -> bytes:
    return hashlib.sha256(index).digest()[:8]


def decode_entry(ref: BlobRef, stored: bytes) -> bytes:
    """The content of a message, from the stored bytes that `ref` names. Checks the checksum of the frame and the
    SHA-256 of `ref`, where they exist: see `is_checked`. Raises BadPack."""
    if len(stored) != ref.length:
        raise BadPack(f"{len(stored)} bytes instead of {ref.length}")
    content = _decoded(ref.compression, ref.encryption, ref.size, stored)
    if len(content) != ref.size:
        raise BadPack(f"a message of {len(content)} bytes instead of {ref.size}")
    if ref.sha256:
        check_digest(content, ref.sha256)
    return content


def check_digest(content: bytes, sha256: bytes) -> None:
    """Raises BadPack."""
    if hashlib.sha256(content).digest() != sha256:
        raise BadPack("the message does not match its SHA-256")


def is_checked(ref: BlobRef, stored: bytes) -> bool:
    """Whether `decode_entry` detects any change of the stored bytes."""
    if ref.sha256:
        return True
    return ref.compression == COMPRESSION_ZSTD and bool(zstandard.get_frame_parameters(stored).has_checksum)


def _decoded(compression: Compression.ValueType, encryption: Encryption.ValueType, size: int, stored: bytes) -> bytes:
    if encryption != ENCRYPTION_NONE:
        raise BadPack(f"unknown encryption {encryption}")
    if compression == COMPRESSION_NONE:
        return stored
    if compression != COMPRESSION_ZSTD:
        raise BadPack(f"unknown compression {compression}")
    try:
        if zstandard.get_frame_parameters(stored).content_size != size:
            raise BadPack("the frame has another size than its reference")
        return _codec.decompressor.decompress(stored, max_output_size=size)
    except zstandard.ZstdError as error:
        raise BadPack(f"bad frame: {error}") from None
