"""FETCH: its plan, and the bytes of sections (RFC 3501 §6.4.5)."""
