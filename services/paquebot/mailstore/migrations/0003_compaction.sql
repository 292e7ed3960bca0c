-- The janitor writes an account's scattered messages together. What it knows of each account, and since when packs
-- are free of it. Old code neither reads nor needs any of it.
-- floor: 1

-- The lease under which one janitor rewrites an account's messages, and what the last look at the account found.
CREATE TABLE mailstore.compactions (
    account_id  bigint PRIMARY KEY,
    owner       text   NOT NULL DEFAULT '',
    expires_at  timestamptz NOT NULL DEFAULT '-infinity',
    measured_at timestamptz,
    rule        text   NOT NULL DEFAULT '',  -- the settings with which it was measured
    stored      bigint NOT NULL DEFAULT 0,   -- messages of the account then
    arrivals    bigint NOT NULL DEFAULT 0,   -- sum of uid_next then: the same means that nothing came since
    settled     boolean NOT NULL DEFAULT false,  -- no message was too young to move then
    packs       bigint NOT NULL DEFAULT 0,   -- the backlog: packs to read from, messages and stored octets to move
    messages    bigint NOT NULL DEFAULT 0,
    octets      bigint NOT NULL DEFAULT 0
) WITH (fillfactor = 80);

-- Packs that rows of an account referred to until a compaction moved them: readers may still hold a reference.
CREATE TABLE mailstore.left_packs (
    account_id bigint NOT NULL,
    pack       text   COLLATE "C" NOT NULL,
    left_at    timestamptz NOT NULL,
    PRIMARY KEY (account_id, pack)
);

CREATE INDEX left_packs_by_pack ON mailstore.left_packs (pack);
CREATE INDEX left_packs_by_time ON mailstore.left_packs USING brin (left_at);

GRANT SELECT, INSERT, UPDATE, DELETE ON mailstore.compactions, mailstore.left_packs TO paquebot_janitor;
-- It shows the backlog among the mailstore's figures.
GRANT SELECT ON mailstore.compactions TO paquebot_delivery;
