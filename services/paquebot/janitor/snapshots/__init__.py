"""Snapshots of the mailboxes' metadata in the bucket."""
