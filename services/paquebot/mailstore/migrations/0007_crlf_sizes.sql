-- How many octets POP3 sends of a message: each of its lines ends with CRLF there (RFC 1939 §3, §11).
-- Old code writes no such number, and reads none.
-- floor: 1

-- Octets of prefix and message with each line ended by CRLF. Null: not known. What came over SMTP has a prefix and no
-- other lines; of what older programs appended, POP3 finds it out when it first lists the message, and keeps it.
ALTER TABLE mailstore.messages ADD COLUMN crlf_size bigint;
GRANT UPDATE (crlf_size) ON mailstore.messages TO paquebot_pop3;

-- As it was, with `crlf_sizes`. Old code gives none.
DROP FUNCTION mailstore.append_messages;

-- Messages into one mailbox, all or none. `claims`: the caller's session takes \Recent (RFC 3501 §2.3.2) of these and
-- of those before them; `recent_from` is then the first UID that it has taken, else null.
CREATE FUNCTION mailstore.append_messages(
    account bigint, mailbox integer, octets_allowed bigint, claims boolean, words text[],
    -- Each message, in the order of the UIDs they get; its keywords as one text with spaces between them.
    queue_ids text[], sizes bigint[], internal_dates timestamptz[], system_flags smallint[], keyword_lists text[],
    packs text[], blob_offsets bigint[], blob_lengths bigint[], blob_sizes bigint[],
    blob_compressions smallint[], blob_encryptions smallint[],
    thread_keys bytea[], prefixes bytea[], summaries bytea[], crlf_sizes bigint[] DEFAULT NULL
) RETURNS TABLE (uid_validity bigint, first_uid bigint, mod_seq bigint, recent_from bigint)
LANGUAGE plpgsql
SET plan_cache_mode = force_generic_plan  -- a plan of its own for each call would cost more than the call
AS $$
#variable_conflict use_column
DECLARE
    added integer := cardinality(queue_ids);
    added_octets bigint := (SELECT sum(size) FROM unnest(sizes) AS size);
    added_unseen integer := (SELECT count(*) FROM unnest(system_flags) AS flags WHERE flags & 1 = 0);
    added_deleted integer := (SELECT count(*) FROM unnest(system_flags) AS flags WHERE flags & 8 <> 0);
    box mailstore.mailboxes;
BEGIN
    PERFORM FROM mailstore.accounts a
    WHERE a.account_id = account AND a.deleted_at IS NULL AND a.octets + added_octets <= octets_allowed
    FOR NO KEY UPDATE;
    IF NOT FOUND THEN
        RETURN;
    END IF;
    SELECT b.* INTO box FROM mailstore.mailboxes b
    WHERE b.account_id = account AND b.mailbox_id = mailbox AND b.selectable AND b.keywords @> words
      AND b.uid_next + added <= 4294967296
    FOR NO KEY UPDATE;
    IF NOT FOUND THEN
        RETURN;
    END IF;

    UPDATE mailstore.accounts a
    SET octets = a.octets + added_octets, messages = a.messages + added
    WHERE a.account_id = account;

    UPDATE mailstore.mailboxes b
    SET uid_next = b.uid_next + added,
        highest_mod_seq = b.highest_mod_seq + 1,
        recent_from = CASE WHEN claims THEN b.uid_next + added ELSE b.recent_from END,
        recent = CASE WHEN claims THEN 0 ELSE b.recent + added END,
        messages = b.messages + added,
        unseen = b.unseen + added_unseen,
        deleted = b.deleted + added_deleted,
        octets = b.octets + added_octets
    WHERE b.account_id = account AND b.mailbox_id = mailbox;

    INSERT INTO mailstore.messages (
        account_id, mailbox_id, uid, mod_seq, flags, keywords, size, internal_date, save_date,
        pack, blob_offset, blob_length, blob_size, blob_compression, blob_encryption,
        queue_id, thread_key, prefix, summary, crlf_size
    )
    SELECT account, mailbox, box.uid_next + place - 1, box.highest_mod_seq + 1, flags,
           CASE list WHEN '' THEN '{}' ELSE string_to_array(list, ' ') END,
           size, internal_date, now(),
           pack, blob_offset, blob_length, blob_size, blob_compression, blob_encryption,
           queue_id, thread_key, prefix, summary, crlf_size
    FROM unnest(
        queue_ids, sizes, internal_dates, system_flags, keyword_lists, packs, blob_offsets, blob_lengths, blob_sizes,
        blob_compressions, blob_encryptions, thread_keys, prefixes, summaries, crlf_sizes
    ) WITH ORDINALITY AS m (
        queue_id, size, internal_date, flags, list, pack, blob_offset, blob_length, blob_size,
        blob_compression, blob_encryption, thread_key, prefix, summary, crlf_size, place
    );

    RETURN QUERY SELECT box.uid_validity, box.uid_next, box.highest_mod_seq + 1,
                        CASE WHEN claims THEN box.recent_from END;
END
$$;

REVOKE EXECUTE ON FUNCTION mailstore.append_messages FROM PUBLIC;
GRANT EXECUTE ON FUNCTION mailstore.append_messages TO paquebot_imap;
