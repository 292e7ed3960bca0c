"""Snapshots of the metadata for the bucket, and the rebuild from them."""
