"""The lengths that RFC 2449 §4 gives to lines."""

MAX_COMMAND = 255
"""Octets of a command line, CRLF included."""

MAX_RESPONSE = 512
"""Octets of the first line of a response, CRLF included."""
