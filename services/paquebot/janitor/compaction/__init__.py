"""Compaction: writes an account's scattered messages together."""
