-- Snapshots of the metadata in the bucket, and rebuilding from them.

-- No UID from here on may be given before a snapshot in the bucket promises a higher ceiling: after a rebuild the
-- mailbox goes on there, so that no UID is given twice. Without a snapshot there is nothing to go on from.
ALTER TABLE mailstore.mailboxes
    ADD COLUMN uid_ceiling bigint NOT NULL DEFAULT 4294967296,
    ADD CONSTRAINT mailboxes_uid_ceiling CHECK (uid_next <= uid_ceiling);

-- Which mailstore this is: the bucket's snapshots name it, so that upkeep of an empty one, made after a loss, does not
-- take all mail for garbage. A rebuild gives it the name of the one that was lost.
CREATE TABLE mailstore.identity (
    only_one boolean PRIMARY KEY DEFAULT true CHECK (only_one),
    name     text NOT NULL
);
INSERT INTO mailstore.identity (name) VALUES (gen_random_uuid()::text);

CREATE TABLE mailstore.snapshot_runs (
    run         text COLLATE "C" PRIMARY KEY,
    finished_at timestamptz NOT NULL,
    accounts    bigint NOT NULL
);

CREATE TABLE mailstore.rebuilds (
    rebuild       text COLLATE "C" PRIMARY KEY,
    run           text COLLATE "C" NOT NULL,  -- the snapshot it is made from; empty: none
    outcomes_lost boolean NOT NULL,
    accounts_to   bigint NOT NULL DEFAULT 0,                 -- accounts up to this one are read from the snapshot
    packs_to      text COLLATE "C" NOT NULL DEFAULT '',      -- packs up to this one are read
    finished_at   timestamptz
);

CREATE TABLE mailstore.rebuild_accounts (
    account_id bigint PRIMARY KEY,
    snapshot   bytea,                                         -- an AccountSnapshot; null: the bucket has none
    taken_at   timestamptz,
    records_since timestamptz
);

-- Messages on their way into `messages`. Those with mailbox 0 are in no snapshot: they go to INBOX.
CREATE TABLE mailstore.rebuild_messages (
    account_id       bigint   NOT NULL,
    mailbox_id       integer  NOT NULL,
    uid              bigint   NOT NULL,
    flags            smallint NOT NULL,
    keywords         text[]   NOT NULL,
    internal_date    timestamptz NOT NULL,
    save_date        timestamptz NOT NULL,
    queue_id         text     COLLATE "C" NOT NULL,
    thread_key       bytea    NOT NULL,
    prefix           bytea    NOT NULL,
    pack             text     COLLATE "C",                    -- null: not yet found in the bucket
    blob_offset      bigint,
    blob_length      bigint,
    blob_size        bigint,
    blob_compression smallint,
    blob_encryption  smallint,
    summary          bytea
);
CREATE INDEX rebuild_messages_by_place ON mailstore.rebuild_messages (account_id, mailbox_id, uid);
CREATE INDEX rebuild_messages_by_queue_id ON mailstore.rebuild_messages (queue_id);
CREATE UNIQUE INDEX rebuild_messages_arrivals ON mailstore.rebuild_messages (account_id, queue_id)
    WHERE mailbox_id = 0;

GRANT SELECT, UPDATE ON mailstore.identity TO paquebot_janitor;
GRANT SELECT, INSERT, DELETE ON mailstore.snapshot_runs TO paquebot_janitor;
GRANT SELECT ON mailstore.snapshot_runs TO paquebot_delivery;
GRANT SELECT, INSERT, UPDATE, DELETE
    ON mailstore.rebuilds, mailstore.rebuild_accounts, mailstore.rebuild_messages TO paquebot_janitor;
