"""The summary of a message, from which most IMAP replies are made."""
