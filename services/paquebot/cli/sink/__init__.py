"""`paquebot sink`: an SMTP server that takes every message, to try the relay with."""
