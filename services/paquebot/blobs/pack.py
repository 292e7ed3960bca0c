"""The pack: many messages in one immutable object that describes itself.

Layout: entries one after another, each one zstd frame of a raw RFC 5322 message, with the frame's own checksum (packs
of older programs have none in their frames); the `PackIndex` (protobuf);
the index's length (4 bytes, little-endian); the first 8 bytes of its SHA-256; `MAGIC` (8 bytes). An index names
queue id and envelope of each entry, so the bucket alone is enough to deliver what it holds (invariant 2).

Format version 1 is a pack as accepted. Version 2 was written again by the janitor for one account, which its index
names: a program that does not know of that must not read the index, or `recover` would deliver old mail once more.
"""

import datetime
import hashlib
import struct
import threading
from dataclasses import dataclass, field

import zstandard
from google.protobuf.message import DecodeError

from paquebot.blobs.ulid import ulid_time_ms
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
    """One for a thread: both objects release the GIL at work and must not be used by two threads at once."""

    def __init__(self) -> None:
        self.compressor = zstandard.ZstdCompressor(level=_LEVEL, write_checksum=True)
        self.decompressor = zstandard.ZstdDecompressor()


_codec = _Codec()


class BadPack(Exception):
    """What was read is not what was written: no pack, cut off, or an entry that does not match its checksum.

    Either the object is damaged or S3 answered wrongly this time; both look alike, so to try again may help.
    """


def pack_key(pack: str) -> str:
    """The object's name: `packs/<yyyy>/<mm>/<dd>/<ulid>`, from the ULID's own time (UTC).
    Raises ValueError when `pack` is not a ULID."""
    day = datetime.datetime.fromtimestamp(ulid_time_ms(pack) / 1000, datetime.UTC)
    return f"{PREFIX}{day:%Y/%m/%d}/{pack}"


@dataclass(frozen=True, slots=True)
class Frame:
    """One message ready for a pack."""

    content: bytes
    size: int
    sha256: bytes
    compression: Compression.ValueType


def compress(raw: bytes) -> Frame:
    """Hash and compress one message. Releases the GIL for large ones."""
    return Frame(_codec.compressor.compress(raw), len(raw), hashlib.sha256(raw).digest(), COMPRESSION_ZSTD)


@dataclass(slots=True)
class PackWriter:
    """Gathers frames and their index. Not thread-safe."""

    pack: str
    size: int = 0
    account_id: int = 0
    """For which account the messages are written again; 0: they were just accepted."""
    _index: PackIndex = field(default_factory=PackIndex)
    _frames: list[bytes] = field(default_factory=list)

    def add(self, envelope: Envelope, frame: Frame) -> BlobRef:
        """Append one message; returns where it will lie."""
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
    """The reference with which jobs name an entry. Mailbox rows keep all of it but the SHA-256."""
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
        raise BadPack("shorter than a trailer")
    length, _, magic = TRAILER.unpack(trailer)
    if magic != MAGIC:
        raise BadPack("no pack: the magic number is not there")
    if length > MAX_INDEX:
        raise BadPack(f"index of {length} bytes is over the limit")
    return int(length)


def parse_index(tail: bytes) -> PackIndex:
    """The index, from the last bytes of the object: all of the index and the trailer at least. Raises BadPack."""
    length = index_length(tail[-TRAILER.size :])
    if length + TRAILER.size > len(tail):
        raise BadPack("the index is longer than what there is")
    end = len(tail) - TRAILER.size
    data = tail[end - length : end]
    _, checksum, _ = TRAILER.unpack(tail[end:])
    if _checksum(data) != checksum:
        raise BadPack("index does not match its checksum")
    try:
        index = PackIndex.FromString(data)
    except DecodeError as error:
        raise BadPack(f"index cannot be read: {error}") from None
    if index.version not in (FORMAT_VERSION, REWRITTEN_VERSION):
        raise BadPack(f"format version {index.version}; this program reads {FORMAT_VERSION} and {REWRITTEN_VERSION}")
    if (index.version == REWRITTEN_VERSION) != bool(index.account_id):
        raise BadPack(f"format version {index.version} with account {index.account_id}")
    return index


def _checksum(index: bytes) -> bytes:
    return hashlib.sha256(index).digest()[:8]


def decode_entry(ref: BlobRef, data: bytes) -> bytes:
    """The message, from the stored bytes `ref` names, compared with the checksum of its frame and with the SHA-256 of
    `ref`, as far as there are any: see `is_checked`. Raises BadPack."""
    if len(data) != ref.length:
        raise BadPack(f"{len(data)} bytes where {ref.length} are stored")
    message = _decoded(ref.compression, ref.encryption, ref.size, data)
    if len(message) != ref.size:
        raise BadPack(f"{len(message)} bytes where {ref.size} are told")
    if ref.sha256:
        check_digest(message, ref.sha256)
    return message


def check_digest(message: bytes, sha256: bytes) -> None:
    """Raises BadPack."""
    if hashlib.sha256(message).digest() != sha256:
        raise BadPack("the message does not match its SHA-256")


def is_checked(ref: BlobRef, data: bytes) -> bool:
    """Whether `decode_entry` would have found any change of the stored bytes `data`."""
    if ref.sha256:
        return True
    return ref.compression == COMPRESSION_ZSTD and bool(zstandard.get_frame_parameters(data).has_checksum)


def _decoded(compression: Compression.ValueType, encryption: Encryption.ValueType, size: int, data: bytes) -> bytes:
    if encryption != ENCRYPTION_NONE:
        raise BadPack(f"encryption {encryption} is not known")
    if compression == COMPRESSION_NONE:
        return data
    if compression != COMPRESSION_ZSTD:
        raise BadPack(f"compression {compression} is not known")
    try:
        if zstandard.get_frame_parameters(data).content_size != size:
            raise BadPack("the frame's size is not the one told")
        return _codec.decompressor.decompress(data, max_output_size=size)
    except zstandard.ZstdError as error:
        raise BadPack(f"frame cannot be read: {error}") from None
