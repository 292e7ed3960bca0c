"""Compares database, bucket and stream, and repairs damaged rows."""
