"""The delivery service: accepted messages from the queue into the mailboxes of local accounts."""
