"""The step that moves the counters of an account of a restored backup beyond all UIDs, mod-sequences, UIDVALIDITYs and
ids that were given after the backup.
"""

from paquebot.mailstore.locks import lock_accounts
from paquebot.mailstore.snapshots.restoring import ID_ADVANCE, LARGE_ACCOUNT_SECONDS, MOD_SEQ_ADVANCE
from paquebot.mailstore.uid_ceilings import NO_UID, UID_ROOM
from paquebot.runtime.postgres.pool import Connection
from paquebot.v1.snapshot_pb2 import AccountSnapshot

_ACCOUNT = """
    UPDATE mailstore.accounts
    SET last_mailbox_id = least(greatest(last_mailbox_id, $2) + $4, 2147483647 - $4),
        last_uid_validity = least(
            greatest(last_uid_validity, $3, extract(epoch FROM now())::bigint) + $4, 4294967295)
    WHERE account_id = $1 RETURNING last_uid_validity
"""
# UID_ROOM more than was promised: the bucket too may be a backup, older than the last raise of a ceiling.
_KNOWN = """
    UPDATE mailstore.mailboxes b
    SET uid_next = p.uid_next, uid_ceiling = p.uid_next + $5,
        highest_mod_seq = b.highest_mod_seq + $6, expunged_horizon = b.highest_mod_seq + $6
    FROM unnest($2::int[], $3::bigint[], $4::bigint[]) AS p (mailbox_id, uid_validity, uid_next)
    WHERE b.account_id = $1 AND b.mailbox_id = p.mailbox_id AND b.uid_validity = p.uid_validity
      AND p.uid_next > b.uid_next
    RETURNING b.mailbox_id
"""
_UNKNOWN = """
    UPDATE mailstore.mailboxes
    SET uid_validity = $3, uid_ceiling = 4294967296,
        highest_mod_seq = highest_mod_seq + $4, expunged_horizon = highest_mod_seq + $4
    WHERE account_id = $1 AND NOT mailbox_id = ANY($2::int[])
"""
# A client that comes back with an old mod-sequence gets all flags, and must compare the UIDs.
_MESSAGES = """
    WITH forgotten AS (DELETE FROM mailstore.expunged WHERE account_id = $1)
    UPDATE mailstore.messages m SET mod_seq = b.highest_mod_seq
    FROM mailstore.mailboxes b
    WHERE m.account_id = $1 AND b.account_id = m.account_id AND b.mailbox_id = m.mailbox_id
"""


async def advance_counters(
    connection: Connection, account_id: int, known: AccountSnapshot, times: int
) -> tuple[int, int]:
    """As `Rebuilds.advance_counters`."""
    promised = [
        (box.mailbox_id, box.uid_validity, uid_next)
        for box in known.mailboxes
        if (uid_next := box.uid_ceiling + (times + 1) * UID_ROOM) + UID_ROOM <= NO_UID
    ]
    await connection.execute(f"SET LOCAL statement_timeout = '{LARGE_ACCOUNT_SECONDS:g}s'")
    if account_id not in await lock_accounts(connection, [account_id]):
        return 0, 0
    ids = known.last_mailbox_id, known.last_uid_validity
    uid_validity = await connection.fetchval(_ACCOUNT, account_id, *ids, (times + 1) * ID_ADVANCE)
    columns = list(map(list, zip(*promised, strict=True))) if promised else [[], [], []]
    mod_seqs = (times + 1) * MOD_SEQ_ADVANCE
    advanced = await connection.fetch(_KNOWN, account_id, *columns, UID_ROOM, mod_seqs)
    kept = [row["mailbox_id"] for row in advanced]
    status: str = await connection.execute(_UNKNOWN, account_id, kept, uid_validity, mod_seqs)
    await connection.execute(_MESSAGES, account_id, timeout=LARGE_ACCOUNT_SECONDS)
    renewed = int(status.rpartition(" ")[2])
    return len(kept) + renewed, renewed
