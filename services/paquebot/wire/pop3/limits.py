"""The lengths of lines."""

MAX_COMMAND = 2048
"""Octets of a command line, CRLF included. RFC 2449 §4 keeps clients to 255, and so to short passwords; some have
longer ones, and `wire.sasl` takes logins and passwords of 1,024."""

MAX_RESPONSE = 512
"""Octets of the first line of a response, CRLF included (RFC 2449 §4)."""
