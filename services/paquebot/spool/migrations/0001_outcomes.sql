-- What became of each remote recipient, and of local ones whose job an operator dropped. Recorded before the job's acknowledgement, so that a job that comes again sends nothing twice, and
-- `recover` knows what needs no second attempt.
CREATE TABLE spool.outcomes (
    queue_id     text        NOT NULL,
    forward_path text        NOT NULL,
    outcome      smallint    NOT NULL,           -- paquebot.spool.outcomes.Outcome
    at           timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (queue_id, forward_path)
);
CREATE INDEX outcomes_at ON spool.outcomes USING brin (at);

GRANT USAGE ON SCHEMA spool TO paquebot_relay, paquebot_janitor;
GRANT SELECT, INSERT ON spool.outcomes TO paquebot_relay;
GRANT SELECT, INSERT, DELETE ON spool.outcomes TO paquebot_janitor;
