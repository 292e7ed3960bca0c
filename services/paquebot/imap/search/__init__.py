"""SEARCH: its keys, the facts of a message, and the run of a search (RFC 3501 §6.4.4)."""
