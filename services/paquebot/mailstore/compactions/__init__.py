"""Compaction of accounts' messages into fewer packs."""
