"""Messages converted for a next host that takes less (RFC 6152 §3)."""
