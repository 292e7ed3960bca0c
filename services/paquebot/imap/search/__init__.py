"""What a SEARCH asks: its keys, and what is known of a message (RFC 3501 §6.4.4)."""
