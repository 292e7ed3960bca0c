-- floor: 1
-- An account that was removed, until its mail is gone too: the role that removes accounts has no right to mail.
-- Only ids that stand here are ever purged; an account that is merely missing (a restored backup) keeps its mail.
CREATE TABLE directory.removed_accounts (
    account_id bigint      PRIMARY KEY,
    removed_at timestamptz NOT NULL DEFAULT now()
);

GRANT SELECT, INSERT ON directory.removed_accounts TO paquebot_recipient_validation;
GRANT USAGE ON SCHEMA directory TO paquebot_janitor;
GRANT SELECT, DELETE ON directory.removed_accounts TO paquebot_janitor;
