-- Domains, accounts, their passwords, and aliases.
-- Local parts are stored in canonical form (lower case, NFC), domains as A-labels in lower case.
-- floor: 1

CREATE TABLE directory.domains (
    name                text PRIMARY KEY,
    alias_of            text REFERENCES directory.domains (name),
    catch_all           text NOT NULL DEFAULT '',          -- address; empty: none
    enabled             boolean NOT NULL DEFAULT true,
    default_quota_bytes bigint NOT NULL DEFAULT 0 CHECK (default_quota_bytes >= 0),  -- 0: none
    created_at          timestamptz NOT NULL DEFAULT now(),
    CHECK (name <> '' AND name = lower(name)),
    CHECK (alias_of <> name)
);
CREATE INDEX domains_alias_of ON directory.domains (alias_of) WHERE alias_of IS NOT NULL;

-- Account ids name mail for ever: the identity is never set by hand, never reset, so none is used again.
CREATE TABLE directory.accounts (
    account_id    bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    local_part    text NOT NULL,
    domain        text NOT NULL REFERENCES directory.domains (name),
    display_name  text NOT NULL DEFAULT '',
    password_hash text NOT NULL,                           -- argon2id in PHC string format
    enabled       boolean NOT NULL DEFAULT true,
    quota_bytes   bigint NOT NULL DEFAULT 0 CHECK (quota_bytes >= 0),  -- 0: none
    created_at    timestamptz NOT NULL DEFAULT now(),
    UNIQUE (domain, local_part)
);
CREATE INDEX accounts_oldest ON directory.accounts (domain, account_id) WHERE enabled;

-- An app password is random (100 bits), so one SHA-256 keeps it safe and a login with it costs no argon2.
CREATE TABLE directory.app_passwords (
    app_password_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    account_id      bigint NOT NULL REFERENCES directory.accounts (account_id) ON DELETE CASCADE,
    name            text NOT NULL,
    digest          bytea NOT NULL CHECK (octet_length(digest) = 32),
    created_at      timestamptz NOT NULL DEFAULT now(),
    last_used_on    date,
    UNIQUE (account_id, name),
    UNIQUE (account_id, digest)
);

CREATE TABLE directory.aliases (
    domain     text NOT NULL REFERENCES directory.domains (name),
    local_part text NOT NULL,
    targets    text[] NOT NULL CHECK (cardinality(targets) BETWEEN 1 AND 100),
    enabled    boolean NOT NULL DEFAULT true,
    created_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (domain, local_part)
);

GRANT USAGE ON SCHEMA directory TO paquebot_recipient_validation;
GRANT SELECT, INSERT, UPDATE, DELETE ON
    directory.domains, directory.accounts, directory.app_passwords, directory.aliases
    TO paquebot_recipient_validation;
