"""The messages of a mailbox: reading and changing them."""
