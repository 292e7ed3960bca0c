-- What IMAP and POP3 do to one mailbox, each in one call: the locks, the checks and the writes. A transaction step by
-- step holds the locks for as many round trips, and others of the account wait for them. Each statement of a function
-- sees what earlier holders of the locks committed; the locks are taken in the order (account, mailbox), as everywhere.
-- When something is to be refused, or a keyword is not spelled as the mailbox knows it, nothing is written and no row
-- is returned: the caller then goes step by step, or says why.

-- Messages into one mailbox, all or none. `claims`: the caller's session takes \Recent (RFC 3501 §2.3.2) of these and
-- of those before them; `recent_from` is then the first UID that it has taken, else null.
CREATE FUNCTION mailstore.append_messages(
    account bigint, mailbox integer, octets_allowed bigint, claims boolean, words text[],
    -- Each message, in the order of the UIDs they get; its keywords as one text with spaces between them.
    queue_ids text[], sizes bigint[], internal_dates timestamptz[], system_flags smallint[], keyword_lists text[],
    packs text[], blob_offsets bigint[], blob_lengths bigint[], blob_sizes bigint[],
    blob_compressions smallint[], blob_encryptions smallint[],
    thread_keys bytea[], prefixes bytea[], summaries bytea[]
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
        queue_id, thread_key, prefix, summary
    )
    SELECT account, mailbox, box.uid_next + place - 1, box.highest_mod_seq + 1, flags,
           CASE list WHEN '' THEN '{}' ELSE string_to_array(list, ' ') END,
           size, internal_date, now(),
           pack, blob_offset, blob_length, blob_size, blob_compression, blob_encryption,
           queue_id, thread_key, prefix, summary
    FROM unnest(
        queue_ids, sizes, internal_dates, system_flags, keyword_lists, packs, blob_offsets, blob_lengths, blob_sizes,
        blob_compressions, blob_encryptions, thread_keys, prefixes, summaries
    ) WITH ORDINALITY AS m (
        queue_id, size, internal_date, flags, list, pack, blob_offset, blob_length, blob_size,
        blob_compression, blob_encryption, thread_key, prefix, summary, place
    );

    RETURN QUERY SELECT box.uid_validity, box.uid_next, box.highest_mod_seq + 1,
                        CASE WHEN claims THEN box.recent_from END;
END
$$;

-- Flags and keywords of the messages of `named` that exist (RFC 3501 §6.4.6): system flags become
-- (flags & kept) | added; `words_op` is ADD, REMOVE or REPLACE. What changed after `unchanged_since` is left alone, and
-- is `modified` (RFC 7162 §3.1.3). A message that has the flags already keeps its mod_seq. The arrays tell of all
-- messages but the modified ones, as they are then, going up by UID.
CREATE FUNCTION mailstore.store_flags(
    account bigint, mailbox integer, named bigint[], kept smallint, added smallint, words_op text, words text[],
    unchanged_since bigint
) RETURNS TABLE (
    highest bigint, uids bigint[], flags smallint[], mod_seqs bigint[], keyword_uids bigint[], keyword_lists text[],
    changed bigint[], modified bigint[]
)
LANGUAGE plpgsql
SET plan_cache_mode = force_generic_plan
AS $$
#variable_conflict use_column
DECLARE
    next_mod_seq bigint;
BEGIN
    SELECT b.highest_mod_seq + 1 INTO next_mod_seq FROM mailstore.mailboxes b
    WHERE b.account_id = account AND b.mailbox_id = mailbox AND b.keywords @> words
    FOR NO KEY UPDATE;
    IF NOT FOUND THEN
        RETURN;
    END IF;

    RETURN QUERY
    WITH found AS MATERIALIZED (
        SELECT m.uid, m.mod_seq, m.flags AS old_flags, m.keywords AS old_words,
               m.flags & kept | added AS flags,
               CASE
                   WHEN words_op = 'REPLACE' THEN words
                   WHEN words = '{}' THEN m.keywords
                   WHEN words_op = 'ADD' THEN m.keywords || ARRAY(
                       SELECT word FROM unnest(words) WITH ORDINALITY AS w (word, place)
                       WHERE word <> ALL (m.keywords) ORDER BY place)
                   ELSE ARRAY(
                       SELECT word FROM unnest(m.keywords) WITH ORDINALITY AS w (word, place)
                       WHERE word <> ALL (words) ORDER BY place)
               END AS words,
               unchanged_since IS NULL OR m.mod_seq <= unchanged_since AS may_change
        FROM mailstore.messages m
        WHERE m.account_id = account AND m.mailbox_id = mailbox AND m.uid = ANY (named)
    ), judged AS MATERIALIZED (
        SELECT *, may_change AND (flags <> old_flags OR NOT (words @> old_words AND words <@ old_words)) AS changes
        FROM found
    ), written AS (
        UPDATE mailstore.messages m
        SET mod_seq = next_mod_seq, flags = j.flags, keywords = j.words
        FROM judged j
        WHERE m.account_id = account AND m.mailbox_id = mailbox AND m.uid = j.uid AND j.changes
    ), total AS MATERIALIZED (
        SELECT count(*) AS messages,
               count(*) FILTER (WHERE flags & 1 = 0) - count(*) FILTER (WHERE old_flags & 1 = 0) AS unseen,
               count(*) FILTER (WHERE flags & 8 <> 0) - count(*) FILTER (WHERE old_flags & 8 <> 0) AS deleted
        FROM judged WHERE changes
    ), counted AS (
        UPDATE mailstore.mailboxes b
        SET highest_mod_seq = next_mod_seq, unseen = b.unseen + total.unseen, deleted = b.deleted + total.deleted
        FROM total
        WHERE b.account_id = account AND b.mailbox_id = mailbox AND total.messages > 0
    )
    SELECT next_mod_seq - CASE WHEN total.messages = 0 THEN 1 ELSE 0 END, told.*
    FROM total CROSS JOIN (
        SELECT array_agg(uid ORDER BY uid) FILTER (WHERE may_change),
               array_agg(flags ORDER BY uid) FILTER (WHERE may_change),
               array_agg(CASE WHEN changes THEN next_mod_seq ELSE mod_seq END ORDER BY uid) FILTER (WHERE may_change),
               array_agg(uid ORDER BY uid) FILTER (WHERE may_change AND words <> '{}'),
               array_agg(array_to_string(words, ' ') ORDER BY uid) FILTER (WHERE may_change AND words <> '{}'),
               array_agg(uid ORDER BY uid) FILTER (WHERE changes),
               array_agg(uid ORDER BY uid) FILTER (WHERE NOT may_change)
        FROM judged
    ) told;
END
$$;

-- Takes messages away: of the UIDs `named`, or of all when it is null; with `only_deleted` those with \Deleted. Each
-- leaves a row in `expunged`. `removed` is null when there was none; `mod_seq` is the mailbox's highest then.
CREATE FUNCTION mailstore.remove_messages(account bigint, mailbox integer, named bigint[], only_deleted boolean)
RETURNS TABLE (mod_seq bigint, removed bigint[])
LANGUAGE plpgsql
SET plan_cache_mode = force_generic_plan
AS $$
#variable_conflict use_column
DECLARE
    box mailstore.mailboxes;
    going bigint[] := named;
BEGIN
    PERFORM FROM mailstore.accounts a WHERE a.account_id = account AND a.deleted_at IS NULL FOR NO KEY UPDATE;
    IF NOT FOUND THEN
        RETURN;
    END IF;
    SELECT b.* INTO box FROM mailstore.mailboxes b
    WHERE b.account_id = account AND b.mailbox_id = mailbox
    FOR NO KEY UPDATE;
    IF NOT FOUND THEN
        RETURN;
    END IF;
    IF only_deleted AND box.deleted = 0 THEN
        RETURN QUERY SELECT box.highest_mod_seq, NULL::bigint[];
        RETURN;
    END IF;
    IF going IS NULL THEN
        SELECT array_agg(m.uid) INTO going FROM mailstore.messages m
        WHERE m.account_id = account AND m.mailbox_id = mailbox AND (m.flags & 8 <> 0 OR NOT only_deleted);
    END IF;

    RETURN QUERY
    WITH gone AS (
        DELETE FROM mailstore.messages m
        WHERE m.account_id = account AND m.mailbox_id = mailbox AND m.uid = ANY (going)
          AND (m.flags & 8 <> 0 OR NOT only_deleted)
        RETURNING m.uid, m.flags, m.size
    ), total AS MATERIALIZED (
        SELECT count(*) AS messages, coalesce(sum(size), 0) AS octets,
               count(*) FILTER (WHERE uid >= box.recent_from) AS recent,
               count(*) FILTER (WHERE flags & 1 = 0) AS unseen,
               count(*) FILTER (WHERE flags & 8 <> 0) AS deleted
        FROM gone
    ), counted AS (
        UPDATE mailstore.mailboxes b
        SET highest_mod_seq = b.highest_mod_seq + 1, messages = b.messages - total.messages,
            octets = b.octets - total.octets, recent = b.recent - total.recent, unseen = b.unseen - total.unseen,
            deleted = b.deleted - total.deleted
        FROM total WHERE b.account_id = account AND b.mailbox_id = mailbox AND total.messages > 0
    ), used AS (
        UPDATE mailstore.accounts a
        SET octets = a.octets - total.octets, messages = a.messages - total.messages
        FROM total WHERE a.account_id = account AND total.messages > 0
    ), noted AS (
        INSERT INTO mailstore.expunged (account_id, mailbox_id, mod_seq, uid, expunged_at)
        SELECT account, mailbox, box.highest_mod_seq + 1, uid, now() FROM gone
    )
    SELECT box.highest_mod_seq + CASE WHEN total.messages > 0 THEN 1 ELSE 0 END,
           (SELECT array_agg(uid ORDER BY uid) FROM gone)
    FROM total;
END
$$;

REVOKE EXECUTE ON FUNCTION mailstore.append_messages, mailstore.store_flags, mailstore.remove_messages FROM PUBLIC;
GRANT EXECUTE ON FUNCTION mailstore.append_messages, mailstore.store_flags, mailstore.remove_messages
    TO paquebot_imap;
GRANT EXECUTE ON FUNCTION mailstore.store_flags, mailstore.remove_messages TO paquebot_pop3;
