-- floor: 1
-- The version of an account's own password, so that a session knows whether its password still is the account's. A
-- stronger hash of the same password keeps the version.
ALTER TABLE directory.accounts ADD COLUMN password_version bigint NOT NULL DEFAULT 1;

-- Failed logins, as levels that fall with time. subject: an account's id; below 0: a login that nobody has, by a keyed
-- hash; 0: any. network: an IPv4 address or an IPv6 /64; '': any. Not logged to disk: a crash of the engine forgives
-- failures, and a guesser's attempts cost the engine no write that waits for the disk.
CREATE UNLOGGED TABLE directory.login_failures (
    subject bigint           NOT NULL,
    network text             NOT NULL,
    level   double precision NOT NULL,
    at      timestamptz      NOT NULL,
    PRIMARY KEY (subject, network)
);
CREATE INDEX login_failures_at ON directory.login_failures (at);

-- Networks from which an account's own password was right lately: failures of others do not slow it down there.
CREATE TABLE directory.login_networks (
    account_id   bigint NOT NULL REFERENCES directory.accounts (account_id) ON DELETE CASCADE,
    network      text   NOT NULL,
    last_used_on date   NOT NULL,
    PRIMARY KEY (account_id, network)
);

-- The key of the hashes of logins that nobody has: what is typed as a login may be a password. One row.
CREATE TABLE directory.login_key (
    one boolean PRIMARY KEY DEFAULT true CHECK (one),
    key bytea   NOT NULL
);
INSERT INTO directory.login_key (key)
VALUES (sha256(convert_to(gen_random_uuid()::text || gen_random_uuid()::text, 'UTF8')));

GRANT SELECT, INSERT, UPDATE, DELETE ON directory.login_failures, directory.login_networks
    TO paquebot_recipient_validation;
GRANT SELECT ON directory.login_key TO paquebot_recipient_validation;
