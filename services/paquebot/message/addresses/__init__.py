"""Address lists of header fields (RFC 5322 §3.4)."""
