"""The lengths of lines."""

MAX_COMMAND = 4096
"""Octets of a command line, CRLF included. RFC 2449 §4 asks for 255; a password may have 1,024 octets, and clients send
SASL's base64 of it in the line of AUTH."""

MAX_RESPONSE = 512
"""Octets of the first line of a response, CRLF included (RFC 2449 §4)."""
