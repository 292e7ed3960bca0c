"""The selected mailbox as one session sees it, and changes that other sessions make (RFC 3501 §5.2)."""
