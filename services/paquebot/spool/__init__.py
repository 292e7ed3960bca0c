"""The spool: takes a message over for good. `Spool.accept` returns only when the message is kept (invariant 1)."""

from paquebot.spool.spool import Spool, SpoolSettings, SpoolUnavailable, Stored

__all__ = ["Spool", "SpoolSettings", "SpoolUnavailable", "Stored"]
