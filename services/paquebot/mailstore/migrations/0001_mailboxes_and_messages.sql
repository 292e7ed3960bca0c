-- Mailboxes, messages and what is remembered of them. Every primary key starts with account_id, so that the data
-- can be split by account. The only writer of uid and mod_seq is paquebot.mailstore, under the mailbox row's lock.
-- floor: 1

-- The row to lock before anything of the account that changes its usage or its tree of mailboxes. It stays when the
-- account is deleted, so that a late delivery cannot bring the account back.
CREATE TABLE mailstore.accounts (
    account_id        bigint PRIMARY KEY,
    octets            bigint  NOT NULL DEFAULT 0 CHECK (octets >= 0),
    messages          bigint  NOT NULL DEFAULT 0 CHECK (messages >= 0),
    last_mailbox_id   integer NOT NULL,
    last_uid_validity bigint  NOT NULL CHECK (last_uid_validity BETWEEN 1 AND 4294967295),
    deleted_at        timestamptz
) WITH (fillfactor = 50);

-- Usage alone, for those who may know no more.
CREATE VIEW mailstore.quota AS
    SELECT account_id, octets, messages FROM mailstore.accounts WHERE deleted_at IS NULL;

CREATE TABLE mailstore.mailboxes (
    account_id       bigint  NOT NULL,
    mailbox_id       integer NOT NULL,
    name             text    COLLATE "C" NOT NULL,
    uid_validity     bigint  NOT NULL CHECK (uid_validity BETWEEN 1 AND 4294967295),
    uid_next         bigint  NOT NULL DEFAULT 1 CHECK (uid_next BETWEEN 1 AND 4294967296),
    highest_mod_seq  bigint  NOT NULL DEFAULT 1,
    recent_from      bigint  NOT NULL DEFAULT 1,
    recent           integer NOT NULL DEFAULT 0 CHECK (recent >= 0),
    expunged_horizon bigint  NOT NULL DEFAULT 0,
    messages         integer NOT NULL DEFAULT 0 CHECK (messages >= 0),
    unseen           integer NOT NULL DEFAULT 0 CHECK (unseen >= 0),
    deleted          integer NOT NULL DEFAULT 0 CHECK (deleted >= 0),
    octets           bigint  NOT NULL DEFAULT 0 CHECK (octets >= 0),
    keywords         text[]  NOT NULL DEFAULT '{}',
    special_use      text,
    selectable       boolean NOT NULL DEFAULT true,
    PRIMARY KEY (account_id, mailbox_id),
    UNIQUE (account_id, name)
) WITH (fillfactor = 50);  -- counters change with every message: leave room for updates in place

CREATE TABLE mailstore.subscriptions (
    account_id bigint NOT NULL,
    name       text   COLLATE "C" NOT NULL,
    PRIMARY KEY (account_id, name)
);

CREATE TABLE mailstore.messages (
    account_id       bigint   NOT NULL,
    mailbox_id       integer  NOT NULL,
    uid              bigint   NOT NULL,
    mod_seq          bigint   NOT NULL,
    flags            smallint NOT NULL,
    keywords         text[]   NOT NULL,
    size             bigint   NOT NULL,
    internal_date    timestamptz NOT NULL,
    save_date        timestamptz NOT NULL,
    pack             text     COLLATE "C" NOT NULL,
    blob_offset      bigint   NOT NULL,
    blob_length      bigint   NOT NULL,
    blob_size        bigint   NOT NULL,
    blob_compression smallint NOT NULL,
    blob_encryption  smallint NOT NULL,
    queue_id         text     COLLATE "C" NOT NULL,
    thread_key       bytea    NOT NULL,
    prefix           bytea    NOT NULL,
    summary          bytea    NOT NULL,
    PRIMARY KEY (account_id, mailbox_id, uid)
) WITH (toast_tuple_target = 256);  -- of rows over 2 KB the summary lies beside, away from what flags need

CREATE INDEX messages_by_mod_seq ON mailstore.messages (account_id, mailbox_id, mod_seq);
CREATE INDEX messages_by_pack ON mailstore.messages (pack);

CREATE TABLE mailstore.expunged (
    account_id  bigint  NOT NULL,
    mailbox_id  integer NOT NULL,
    mod_seq     bigint  NOT NULL,
    uid         bigint  NOT NULL,
    expunged_at timestamptz NOT NULL,
    PRIMARY KEY (account_id, mailbox_id, mod_seq, uid)
);

CREATE INDEX expunged_by_time ON mailstore.expunged USING brin (expunged_at);

CREATE TABLE mailstore.deliveries (
    account_id   bigint NOT NULL,
    queue_id     text   COLLATE "C" NOT NULL,
    delivered_at timestamptz NOT NULL,
    refused      boolean NOT NULL,  -- over quota, for good: its sender is told, and later room changes nothing
    PRIMARY KEY (account_id, queue_id)
);

CREATE INDEX deliveries_by_time ON mailstore.deliveries USING brin (delivered_at);

CREATE TABLE mailstore.maildrop_locks (
    account_id bigint PRIMARY KEY,
    owner      text NOT NULL,
    expires_at timestamptz NOT NULL
);

GRANT USAGE ON SCHEMA mailstore
    TO paquebot_delivery, paquebot_imap, paquebot_pop3, paquebot_janitor, paquebot_recipient_validation;

GRANT SELECT ON mailstore.quota TO paquebot_recipient_validation, paquebot_imap;

GRANT SELECT, INSERT, UPDATE ON mailstore.accounts, mailstore.mailboxes
    TO paquebot_delivery, paquebot_imap, paquebot_pop3;
GRANT SELECT, INSERT ON mailstore.subscriptions TO paquebot_delivery, paquebot_imap, paquebot_pop3;

GRANT SELECT, INSERT ON mailstore.messages, mailstore.deliveries TO paquebot_delivery;

GRANT SELECT, INSERT, UPDATE, DELETE ON mailstore.messages TO paquebot_imap;
GRANT SELECT, INSERT, DELETE ON mailstore.expunged TO paquebot_imap;
GRANT DELETE ON mailstore.mailboxes, mailstore.subscriptions TO paquebot_imap;

GRANT SELECT, DELETE ON mailstore.messages TO paquebot_pop3;
GRANT SELECT, INSERT ON mailstore.expunged TO paquebot_pop3;
GRANT SELECT, INSERT, UPDATE, DELETE ON mailstore.maildrop_locks TO paquebot_pop3;

GRANT SELECT, INSERT, UPDATE, DELETE
    ON mailstore.accounts, mailstore.mailboxes, mailstore.subscriptions, mailstore.messages, mailstore.expunged,
       mailstore.deliveries, mailstore.maildrop_locks
    TO paquebot_janitor;
