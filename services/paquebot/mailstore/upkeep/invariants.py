"""The mailstore's invariants, as queries for the rows that break them; run after every test that used a mailstore."""

from paquebot.runtime.postgres.pool import Postgres

_OF_ACCOUNT = "($1::bigint IS NULL OR account_id = $1)"

_COUNTS = f"""
    SELECT format('mailbox %s/%s (%s): counters are %s, of its messages %s', account_id, mailbox_id, name,
                  (b.messages, b.recent, b.unseen, b.deleted, b.octets),
                  (m.messages, m.recent, m.unseen, m.deleted, m.octets))
    FROM mailstore.mailboxes b CROSS JOIN LATERAL (
        SELECT count(*) AS messages, count(*) FILTER (WHERE uid >= b.recent_from) AS recent,
               count(*) FILTER (WHERE flags & 1 = 0) AS unseen,
               count(*) FILTER (WHERE flags & 8 <> 0) AS deleted, coalesce(sum(size), 0) AS octets
        FROM mailstore.messages WHERE account_id = b.account_id AND mailbox_id = b.mailbox_id
    ) m
    WHERE {_OF_ACCOUNT} AND (b.messages, b.recent, b.unseen, b.deleted, b.octets)
          IS DISTINCT FROM (m.messages, m.recent, m.unseen, m.deleted, m.octets)
"""  # noqa: S608 - only constants are put in
_USAGE = f"""
    SELECT format('account %s: usage is %s, of its messages %s', account_id,
                  (a.octets, a.messages), (m.octets, m.messages))
    FROM mailstore.accounts a CROSS JOIN LATERAL (
        SELECT coalesce(sum(size), 0) AS octets, count(*) AS messages
        FROM mailstore.messages WHERE account_id = a.account_id
    ) m
    WHERE {_OF_ACCOUNT} AND (a.octets, a.messages) IS DISTINCT FROM (m.octets, m.messages)
"""  # noqa: S608 - only constants are put in
_NUMBERS = f"""
    SELECT format('message %s/%s/%s: mod_seq %s, in a mailbox with uid_next %s, highest mod_seq %s',
                  account_id, mailbox_id, uid, mod_seq, uid_next, highest_mod_seq)
    FROM mailstore.messages JOIN mailstore.mailboxes USING (account_id, mailbox_id)
    WHERE {_OF_ACCOUNT} AND (uid < 1 OR uid >= uid_next OR mod_seq > highest_mod_seq OR NOT selectable)
"""  # noqa: S608 - only constants are put in
_KEYWORDS = f"""
    SELECT format('message %s/%s/%s: keywords %s in a mailbox with %s',
                  account_id, mailbox_id, uid, m.keywords, b.keywords)
    FROM mailstore.messages m JOIN mailstore.mailboxes b USING (account_id, mailbox_id)
    WHERE {_OF_ACCOUNT} AND NOT m.keywords <@ b.keywords
"""  # noqa: S608 - only constants are put in
_SIZES = f"""
    SELECT format('message %s/%s/%s: size %s is not blob %s and prefix %s',
                  account_id, mailbox_id, uid, size, blob_size, length(prefix))
    FROM mailstore.messages WHERE {_OF_ACCOUNT} AND size <> blob_size + length(prefix)
"""  # noqa: S608 - only constants are put in
_WITHOUT_MAILBOX = f"""
    SELECT format('message %s/%s/%s: in no mailbox', account_id, mailbox_id, uid)
    FROM mailstore.messages LEFT JOIN mailstore.mailboxes b USING (account_id, mailbox_id)
    WHERE {_OF_ACCOUNT} AND b.name IS NULL
"""  # noqa: S608 - only constants are put in
_EXISTING_AND_EXPUNGED = f"""
    SELECT format('message %s/%s/%s: exists and is recorded as expunged', account_id, mailbox_id, uid)
    FROM mailstore.messages JOIN mailstore.expunged USING (account_id, mailbox_id, uid) WHERE {_OF_ACCOUNT}
"""  # noqa: S608 - only constants are put in
_EXPUNGES = f"""
    SELECT format('expunge %s/%s/%s: mod_seq %s, in a mailbox with uid_next %s, highest mod_seq %s, horizon
    %s',
                  account_id, mailbox_id, uid, mod_seq, uid_next, highest_mod_seq, expunged_horizon)
    FROM mailstore.expunged LEFT JOIN mailstore.mailboxes b USING (account_id, mailbox_id)
    WHERE {_OF_ACCOUNT} AND (b.name IS NULL OR uid >= uid_next OR mod_seq > highest_mod_seq
                             OR mod_seq <= expunged_horizon)
"""  # noqa: S608 - only constants are put in
_MAILBOXES = f"""
    SELECT format('mailbox %s/%s (%s): id or uid_validity %s was never given, or it claims recent from %s of
    %s',
                  account_id, mailbox_id, b.name, uid_validity, recent_from, uid_next)
    FROM mailstore.mailboxes b LEFT JOIN mailstore.accounts a USING (account_id)
    WHERE {_OF_ACCOUNT} AND (a.account_id IS NULL OR a.deleted_at IS NOT NULL OR recent_from > uid_next
                             OR mailbox_id > last_mailbox_id OR uid_validity > last_uid_validity)
"""  # noqa: S608 - only constants are put in
_TREE = f"""
    SELECT format('mailbox %s/%s (%s): a superior is missing', account_id, mailbox_id, name)
    FROM mailstore.mailboxes b
    WHERE {_OF_ACCOUNT} AND name LIKE '%/%' AND NOT EXISTS (
        SELECT FROM mailstore.mailboxes s
        WHERE s.account_id = b.account_id AND s.name = regexp_replace(b.name, '/[^/]*$', ''))
"""  # noqa: S608 - only constants are put in
_INBOX = f"""
    SELECT format('account %s: has no INBOX', account_id) FROM mailstore.accounts a
    WHERE {_OF_ACCOUNT} AND deleted_at IS NULL AND NOT EXISTS (
        SELECT FROM mailstore.mailboxes b
        WHERE b.account_id = a.account_id AND mailbox_id = 1 AND name = 'INBOX' AND selectable)
"""  # noqa: S608 - only constants are put in

_ALL = (
    _COUNTS,
    _USAGE,
    _NUMBERS,
    _KEYWORDS,
    _SIZES,
    _WITHOUT_MAILBOX,
    _EXISTING_AND_EXPUNGED,
    _EXPUNGES,
    _MAILBOXES,
    _TREE,
    _INBOX,
)


async def broken_invariants(postgres: Postgres, account_id: int | None = None) -> list[str]:
    """Every broken invariant, a sentence each, of one account or of all. All queries see one state of the database."""
    faults: list[str] = []
    async with postgres.transaction("check", snapshot=True) as connection:
        for sql in _ALL:
            faults.extend(row[0] for row in await connection.fetch(sql, account_id))
    return faults
