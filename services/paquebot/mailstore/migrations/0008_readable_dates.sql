-- Dates that no program of ours can read back: asyncpg wrote the first moment of year 1 as -infinity. Whatever writes
-- such a date from now on, a pod of the version before or a change of a row that has one, writes the bound next to it
-- (paquebot.mailstore.dates). Rows that have one already are read within the bounds by every service, and mended where
-- they are changed, by the janitor's snapshots and by `paquebot verify --repair`: so nothing here reads the table, and
-- no constraint refuses what pods of the version before do with such a row.

CREATE FUNCTION mailstore.keep_dates_readable() RETURNS trigger
LANGUAGE plpgsql
AS $$
BEGIN
    IF NEW.internal_date < '0001-01-01 00:00:00.000001+00' THEN
        NEW.internal_date := '0001-01-02 00:00:00+00';
    ELSIF NEW.internal_date > '9999-12-31 23:59:59.999998+00' THEN
        NEW.internal_date := '9999-12-30 23:59:59+00';
    END IF;
    IF NEW.save_date NOT BETWEEN '0001-01-01 00:00:00.000001+00' AND '9999-12-31 23:59:59.999998+00' THEN
        NEW.save_date := now();
    END IF;
    RETURN NEW;
END
$$;

CREATE TRIGGER messages_dates BEFORE INSERT OR UPDATE ON mailstore.messages FOR EACH ROW
WHEN (NEW.internal_date NOT BETWEEN '0001-01-01 00:00:00.000001+00' AND '9999-12-31 23:59:59.999998+00'
      OR NEW.save_date NOT BETWEEN '0001-01-01 00:00:00.000001+00' AND '9999-12-31 23:59:59.999998+00')
EXECUTE FUNCTION mailstore.keep_dates_readable();

-- What the newest run of each of the janitor's stages could not do, of single things: its runs end and are never
-- scraped, so the delivery service shows the count.
CREATE TABLE mailstore.upkeep_troubles (
    stage   text COLLATE "C" NOT NULL,
    subject text COLLATE "C" NOT NULL,
    reason  text        NOT NULL,
    since   timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (stage, subject)
);

GRANT SELECT, INSERT, UPDATE, DELETE ON mailstore.upkeep_troubles TO paquebot_janitor;
GRANT SELECT ON mailstore.upkeep_troubles TO paquebot_delivery;
