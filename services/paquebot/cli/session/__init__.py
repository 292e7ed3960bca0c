"""`paquebot session`: record the sessions of an account."""

from paquebot.cli.session.command import session_app

__all__ = ["session_app"]
