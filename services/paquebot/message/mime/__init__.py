"""The MIME structure of a message (RFC 2045, RFC 2046)."""
