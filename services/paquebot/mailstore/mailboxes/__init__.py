"""The tree of an account's mailboxes, and subscriptions."""
