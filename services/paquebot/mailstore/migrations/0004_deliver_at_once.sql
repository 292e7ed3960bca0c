-- The plain case of a delivery in one call: new messages for INBOX of accounts that exist and have room. Locks,
-- checks and writes are one round trip instead of five, so the accounts are locked that much shorter. When anything
-- needs a decision (an account is missing, deleted or full; a message is known) nothing is written and no row is
-- returned; the caller then decides step by step (paquebot.mailstore.delivery).

CREATE FUNCTION mailstore.deliver_at_once(
    -- Each account once, in the order of the ids: its new messages, their octets, and the most it may have then.
    account_ids bigint[], counts integer[], octets_added bigint[], octets_allowed bigint[],
    -- Each message: whose it is, and which of that account's in this call, from 0.
    of_account bigint[], places integer[], queue_ids text[], sizes bigint[], internal_dates timestamptz[],
    packs text[], blob_offsets bigint[], blob_lengths bigint[], blob_sizes bigint[],
    blob_compressions smallint[], blob_encryptions smallint[],
    thread_keys bytea[], prefixes bytea[], summaries bytea[]
) RETURNS TABLE (account_id bigint, first_uid bigint, mod_seq bigint)
LANGUAGE plpgsql
SET plan_cache_mode = force_generic_plan  -- a plan of its own for each call would cost more than the call
AS $$
#variable_conflict use_column
DECLARE
    with_room integer;
BEGIN
    -- Sees what earlier holders of the locks committed: a row that was waited for is read again.
    SELECT count(*) INTO with_room
    FROM (
        SELECT account_id, octets FROM mailstore.accounts
        WHERE account_id = ANY (account_ids) AND deleted_at IS NULL
        ORDER BY account_id FOR NO KEY UPDATE
    ) locked
    JOIN unnest(account_ids, octets_added, octets_allowed) AS n (account_id, added, allowed) USING (account_id)
    WHERE octets + added <= allowed;
    IF with_room < cardinality(account_ids) THEN
        RETURN;
    END IF;

    -- The record comes first: its key says whether a message is known, and undoes no more than itself.
    BEGIN
        INSERT INTO mailstore.deliveries (account_id, queue_id, delivered_at, refused)
        SELECT k.account_id, k.queue_id, now(), false FROM unnest(of_account, queue_ids) AS k (account_id, queue_id);
    EXCEPTION WHEN unique_violation THEN
        RETURN;
    END;

    UPDATE mailstore.accounts a
    SET octets = octets + n.added, messages = messages + n.count
    FROM unnest(account_ids, counts, octets_added) AS n (id, count, added)
    WHERE a.account_id = n.id;

    RETURN QUERY
    WITH inbox AS (
        UPDATE mailstore.mailboxes b
        SET uid_next = uid_next + n.count,
            highest_mod_seq = highest_mod_seq + 1,
            recent = recent + n.count,
            messages = messages + n.count,
            unseen = unseen + n.count,
            octets = octets + n.added
        FROM unnest(account_ids, counts, octets_added) AS n (id, count, added)
        WHERE b.account_id = n.id AND b.mailbox_id = 1
        RETURNING b.account_id, b.uid_next - n.count AS first_uid, b.highest_mod_seq
    ), stored AS (
        INSERT INTO mailstore.messages (
            account_id, mailbox_id, uid, mod_seq, flags, keywords, size, internal_date, save_date,
            pack, blob_offset, blob_length, blob_size, blob_compression, blob_encryption,
            queue_id, thread_key, prefix, summary
        )
        SELECT inbox.account_id, 1, first_uid + place, highest_mod_seq, 0, '{}', size, internal_date, now(),
               pack, blob_offset, blob_length, blob_size, blob_compression, blob_encryption,
               queue_id, thread_key, prefix, summary
        FROM unnest(
            of_account, places, queue_ids, sizes, internal_dates, packs, blob_offsets, blob_lengths, blob_sizes,
            blob_compressions, blob_encryptions, thread_keys, prefixes, summaries
        ) AS m (
            id, place, queue_id, size, internal_date, pack, blob_offset, blob_length, blob_size,
            blob_compression, blob_encryption, thread_key, prefix, summary
        ) JOIN inbox ON inbox.account_id = m.id
    )
    SELECT inbox.account_id, inbox.first_uid, inbox.highest_mod_seq FROM inbox;
END
$$;

REVOKE EXECUTE ON FUNCTION mailstore.deliver_at_once FROM PUBLIC;
GRANT EXECUTE ON FUNCTION mailstore.deliver_at_once TO paquebot_delivery;
