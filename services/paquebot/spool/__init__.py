"""The spool: accepts messages. `Spool.accept` returns only when the message is kept (invariant 1)."""

from paquebot.spool.spool import Prepared, Spool, SpoolRefused, SpoolSettings, SpoolUnavailable, Stored

__all__ = ["Prepared", "Spool", "SpoolRefused", "SpoolSettings", "SpoolUnavailable", "Stored"]
