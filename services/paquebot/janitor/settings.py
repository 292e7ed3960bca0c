"""The settings of `paquebot janitor`, and of its compaction."""

from dataclasses import dataclass

from paquebot.mailstore import CompactionRule
from paquebot.runtime.engine_settings import NatsSettings, PostgresSettings, S3Settings
from paquebot.runtime.settings import ByteSize, Seconds, setting


@dataclass(frozen=True, slots=True)
class CompactionSettings:
    enabled: bool = setting("JANITOR_COMPACT", True, help="write an account's scattered messages together")
    age: Seconds = setting(
        "JANITOR_COMPACT_AGE", Seconds(86400.0), help="minimum age of packs from which messages are moved"
    )
    saved_packs: int = setting(
        "JANITOR_COMPACT_PACKS", 16, help="minimum number of packs by which compaction must reduce an account"
    )
    message_bytes: ByteSize = setting(
        "JANITOR_COMPACT_MESSAGE",
        ByteSize(128 * 2**10),
        help="maximum stored size of a message to move, unless most of its pack is dead",
    )
    pack_bytes: ByteSize = setting(
        "JANITOR_PACK_BYTES", ByteSize(4 * 2**20), help="size of the packs that compaction writes"
    )
    live_share: float = setting(
        "JANITOR_LIVE_SHARE", 0.5, help="packs with a smaller live share are emptied, 0 to 1; 0: never"
    )
    max_bytes: ByteSize = setting("JANITOR_COMPACT_BYTES", ByteSize(4 * 2**30), help="maximum bytes moved in one run")
    max_seconds: Seconds = setting("JANITOR_COMPACT_SECONDS", Seconds(1200.0), help="timeout for compaction in one run")
    lease: Seconds = setting(
        "JANITOR_COMPACT_LEASE",
        Seconds(300.0),
        help="timeout after which another janitor may take over an account from one that moves nothing",
    )

    def __post_init__(self) -> None:
        if self.saved_packs < 1:
            raise ValueError("PAQUEBOT_JANITOR_COMPACT_PACKS must be at least 1")
        if not 2**12 <= self.pack_bytes <= 2**28:
            raise ValueError("PAQUEBOT_JANITOR_PACK_BYTES must be between 4KiB and 256MiB")
        if not 0 <= self.live_share <= 1:
            raise ValueError(f"PAQUEBOT_JANITOR_LIVE_SHARE must be between 0 and 1, not {self.live_share}")

    def rule(self) -> CompactionRule:
        return CompactionRule(self.saved_packs, self.pack_bytes, self.message_bytes)


@dataclass(frozen=True, slots=True)
class JanitorSettings:
    nats: NatsSettings
    s3: S3Settings
    postgres: PostgresSettings
    min_age: Seconds = setting(
        "JANITOR_MIN_AGE", Seconds(86400.0), help="minimum age of packs that the janitor deletes"
    )
    orphan_age: Seconds = setting(
        "JANITOR_ORPHAN_AGE",
        Seconds(14 * 86400.0),
        help="age at which a pack with refused mail, which its senders still have, is deleted",
    )
    records_age: Seconds = setting(
        "JANITOR_RECORDS_AGE", Seconds(30 * 86400.0), help="how long records of deliveries and relays are kept"
    )
    expunged_age: Seconds = setting(
        "JANITOR_EXPUNGED_AGE", Seconds(90 * 86400.0), help="how long IMAP clients can learn what was expunged"
    )
    snapshot: bool = setting(
        "JANITOR_SNAPSHOT", True, help="write the mailboxes' metadata into the bucket, for recover --rebuild"
    )
    compaction: CompactionSettings = CompactionSettings()

    def __post_init__(self) -> None:
        if self.records_age < self.orphan_age:
            raise ValueError("PAQUEBOT_JANITOR_RECORDS_AGE must be at least PAQUEBOT_JANITOR_ORPHAN_AGE")
