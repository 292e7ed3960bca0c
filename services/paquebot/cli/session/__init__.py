"""`paquebot session`: what the mail programs of an account say, and what they are answered."""

from paquebot.cli.session.command import session_app

__all__ = ["session_app"]
