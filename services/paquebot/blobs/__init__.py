"""The content of messages in S3-compatible storage: packs of messages, each message read with one ranged GET."""

from paquebot.blobs.errors import BlobMissing, BlobsRefused, BlobsUnavailable
from paquebot.blobs.pack import BadPack, PackWriter, decode_entry, pack_key
from paquebot.blobs.store import BlobStore
from paquebot.runtime.ulid import new_ulid, ulid_time_ms

__all__ = [
    "BadPack",
    "BlobMissing",
    "BlobStore",
    "BlobsRefused",
    "BlobsUnavailable",
    "PackWriter",
    "decode_entry",
    "new_ulid",
    "pack_key",
    "ulid_time_ms",
]
