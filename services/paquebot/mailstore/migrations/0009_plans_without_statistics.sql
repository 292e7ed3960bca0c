-- Changes of many messages whose plans do not depend on statistics. On a table that was never analysed the planner takes
-- each mailbox for empty, so that any index that starts with (account_id, mailbox_id) seems as good as the primary key:
-- it read the whole mailbox for each UID. Now each UID is looked up by itself, in an order that only the primary key has,
-- and what was found is changed where it lies (decision 43).
-- What the functions take, return and lock is as before.

-- Flags and keywords of the messages of `named` that exist (RFC 3501 §6.4.6): system flags become
-- (flags & kept) | added; `words_op` is ADD, REMOVE or REPLACE. What changed after `unchanged_since` is left alone, and
-- is `modified` (RFC 7162 §3.1.3). A message that has the flags already keeps its mod_seq. The arrays tell of all
-- messages but the modified ones, as they are then, going up by UID. Raises serialization_failure when somebody who
-- holds no lock of the mailbox (POP3 keeps sizes so) changed a row meanwhile: the same call works again.
CREATE OR REPLACE FUNCTION mailstore.store_flags(
    account bigint, mailbox integer, named bigint[], kept smallint, added smallint, words_op text, words text[],
    unchanged_since bigint
) RETURNS TABLE (
    highest bigint, uids bigint[], flags smallint[], mod_seqs bigint[], keyword_uids bigint[], keyword_lists text[],
    changed bigint[], modified bigint[]
)
LANGUAGE plpgsql
SET plan_cache_mode = force_generic_plan
SET enable_seqscan = off
SET enable_bitmapscan = off
SET enable_sort = off  -- what must be in order comes from the index that has it
AS $$
#variable_conflict use_column
DECLARE
    next_mod_seq bigint;
    places tid[];
    less_unseen integer;
    more_deleted integer;
    written integer;
BEGIN
    SELECT b.highest_mod_seq + 1 INTO next_mod_seq FROM mailstore.mailboxes b
    WHERE b.account_id = account AND b.mailbox_id = mailbox AND b.keywords @> words
    FOR NO KEY UPDATE;
    IF NOT FOUND THEN
        RETURN;
    END IF;

    SELECT array_agg(place) FILTER (WHERE changes),
           count(*) FILTER (WHERE changes AND old_flags & 1 = 0) - count(*) FILTER (WHERE changes AND new_flags & 1 = 0),
           count(*) FILTER (WHERE changes AND new_flags & 8 <> 0) - count(*) FILTER (WHERE changes AND old_flags & 8 <> 0),
           array_agg(uid ORDER BY uid) FILTER (WHERE may_change),
           array_agg(new_flags ORDER BY uid) FILTER (WHERE may_change),
           array_agg(CASE WHEN changes THEN next_mod_seq ELSE mod_seq END ORDER BY uid) FILTER (WHERE may_change),
           array_agg(uid ORDER BY uid) FILTER (WHERE may_change AND new_words <> '{}'),
           array_agg(array_to_string(new_words, ' ') ORDER BY uid) FILTER (WHERE may_change AND new_words <> '{}'),
           array_agg(uid ORDER BY uid) FILTER (WHERE changes),
           array_agg(uid ORDER BY uid) FILTER (WHERE NOT may_change)
    INTO places, less_unseen, more_deleted,
         store_flags.uids, store_flags.flags, store_flags.mod_seqs, store_flags.keyword_uids, store_flags.keyword_lists,
         store_flags.changed, store_flags.modified
    FROM (
        SELECT *, may_change AND (new_flags <> old_flags OR NOT (new_words @> old_words AND new_words <@ old_words))
                   AS changes
        FROM (
            SELECT found.*,
                   old_flags & kept | added AS new_flags,
                   CASE
                       WHEN words_op = 'REPLACE' THEN words
                       WHEN words = '{}' THEN old_words
                       WHEN words_op = 'ADD' THEN old_words || ARRAY(
                           SELECT word FROM unnest(words) WITH ORDINALITY AS w (word, n)
                           WHERE word <> ALL (old_words) ORDER BY n)
                       ELSE ARRAY(
                           SELECT word FROM unnest(old_words) WITH ORDINALITY AS w (word, n)
                           WHERE word <> ALL (words) ORDER BY n)
                   END AS new_words,
                   unchanged_since IS NULL OR mod_seq <= unchanged_since AS may_change
            FROM (SELECT DISTINCT asked FROM unnest(named) AS asked) n CROSS JOIN LATERAL (
                SELECT m.ctid AS place, m.uid, m.mod_seq, m.flags AS old_flags, m.keywords AS old_words
                FROM mailstore.messages m
                WHERE m.account_id = account AND m.mailbox_id = mailbox AND m.uid BETWEEN n.asked AND n.asked
                ORDER BY m.uid
            ) found
            OFFSET 0
        ) told
        OFFSET 0
    ) judged;

    store_flags.highest := next_mod_seq - 1;
    IF places IS NOT NULL THEN
        UPDATE mailstore.messages m
        SET mod_seq = next_mod_seq,
            flags = m.flags & kept | added,
            keywords = CASE
                WHEN words_op = 'REPLACE' THEN words
                WHEN words = '{}' THEN m.keywords
                WHEN words_op = 'ADD' THEN m.keywords || ARRAY(
                    SELECT word FROM unnest(words) WITH ORDINALITY AS w (word, n)
                    WHERE word <> ALL (m.keywords) ORDER BY n)
                ELSE ARRAY(
                    SELECT word FROM unnest(m.keywords) WITH ORDINALITY AS w (word, n)
                    WHERE word <> ALL (words) ORDER BY n)
            END
        WHERE m.ctid = ANY (places);
        GET DIAGNOSTICS written = ROW_COUNT;
        IF written < cardinality(places) THEN
            RAISE serialization_failure USING MESSAGE = 'a message was changed meanwhile';
        END IF;
        UPDATE mailstore.mailboxes b
        SET highest_mod_seq = next_mod_seq, unseen = b.unseen - less_unseen, deleted = b.deleted + more_deleted
        WHERE b.account_id = account AND b.mailbox_id = mailbox;
        store_flags.highest := next_mod_seq;
    END IF;
    RETURN NEXT;
END
$$;

-- Takes messages away: of the UIDs `named`, or of all when it is null; with `only_deleted` those with \Deleted. Each
-- leaves a row in `expunged`. `removed` is null when there was none; `mod_seq` is the mailbox's highest then. Raises
-- serialization_failure as store_flags does.
CREATE OR REPLACE FUNCTION mailstore.remove_messages(
    account bigint, mailbox integer, named bigint[], only_deleted boolean
) RETURNS TABLE (mod_seq bigint, removed bigint[])
LANGUAGE plpgsql
SET plan_cache_mode = force_generic_plan
SET enable_seqscan = off
SET enable_bitmapscan = off
SET enable_sort = off
AS $$
#variable_conflict use_column
DECLARE
    box mailstore.mailboxes;
    places tid[];
    gone integer;
    octets_gone bigint;
    recent_gone integer;
    unseen_gone integer;
    deleted_gone integer;
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
    remove_messages.mod_seq := box.highest_mod_seq;
    IF only_deleted AND box.deleted = 0 THEN
        RETURN NEXT;
        RETURN;
    END IF;

    IF named IS NULL THEN
        SELECT array_agg(place), array_agg(uid) INTO places, remove_messages.removed FROM (
            SELECT m.ctid AS place, m.uid FROM mailstore.messages m
            WHERE m.account_id = account AND m.mailbox_id = mailbox AND (m.flags & 8 <> 0 OR NOT only_deleted)
            ORDER BY m.uid
        ) found;
    ELSE
        SELECT array_agg(place), array_agg(uid ORDER BY uid) INTO places, remove_messages.removed
        FROM (SELECT DISTINCT asked FROM unnest(named) AS asked) n CROSS JOIN LATERAL (
            SELECT m.ctid AS place, m.uid FROM mailstore.messages m
            WHERE m.account_id = account AND m.mailbox_id = mailbox AND m.uid BETWEEN n.asked AND n.asked
              AND (m.flags & 8 <> 0 OR NOT only_deleted)
            ORDER BY m.uid
        ) found;
    END IF;
    IF places IS NULL THEN
        RETURN NEXT;
        RETURN;
    END IF;

    WITH gone AS (
        DELETE FROM mailstore.messages m WHERE m.ctid = ANY (places) RETURNING m.uid, m.flags, m.size
    )
    SELECT count(*), coalesce(sum(size), 0), count(*) FILTER (WHERE uid >= box.recent_from),
           count(*) FILTER (WHERE flags & 1 = 0), count(*) FILTER (WHERE flags & 8 <> 0)
    INTO gone, octets_gone, recent_gone, unseen_gone, deleted_gone
    FROM gone;
    IF gone < cardinality(places) THEN
        RAISE serialization_failure USING MESSAGE = 'a message was changed meanwhile';
    END IF;
    INSERT INTO mailstore.expunged (account_id, mailbox_id, mod_seq, uid, expunged_at)
    SELECT account, mailbox, box.highest_mod_seq + 1, uid, now() FROM unnest(remove_messages.removed) AS uid;
    UPDATE mailstore.mailboxes b
    SET highest_mod_seq = b.highest_mod_seq + 1, messages = b.messages - gone, octets = b.octets - octets_gone,
        recent = b.recent - recent_gone, unseen = b.unseen - unseen_gone, deleted = b.deleted - deleted_gone
    WHERE b.account_id = account AND b.mailbox_id = mailbox;
    UPDATE mailstore.accounts a SET octets = a.octets - octets_gone, messages = a.messages - gone
    WHERE a.account_id = account;
    remove_messages.mod_seq := box.highest_mod_seq + 1;
    RETURN NEXT;
END
$$;

-- As it was, but that INBOX is looked for among the mailboxes of `account_ids`: without statistics the planner looked
-- through the INBOXes of all accounts.
CREATE OR REPLACE FUNCTION mailstore.deliver_at_once(
    -- Each account once, in the order of the ids: its new messages, their octets, and the most it may have then.
    account_ids bigint[], counts integer[], octets_added bigint[], octets_allowed bigint[],
    -- Each message: whose it is, and which of that account's in this call, from 0.
    of_account bigint[], places integer[], queue_ids text[], sizes bigint[], internal_dates timestamptz[],
    packs text[], blob_offsets bigint[], blob_lengths bigint[], blob_sizes bigint[],
    blob_compressions smallint[], blob_encryptions smallint[],
    thread_keys bytea[], prefixes bytea[], summaries bytea[]
) RETURNS TABLE (account_id bigint, first_uid bigint, mod_seq bigint)
LANGUAGE plpgsql
SET enable_seqscan = off
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
        WHERE b.account_id = n.id AND b.mailbox_id = 1 AND b.account_id = ANY (account_ids)
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
