"""The relay: carries accepted messages to other domains' hosts, tries again later, and tells senders what failed.

A job's way: `consumer` (turns between destinations) → `worker` (who is still open, the message) → `courier` (host by
host) → `handshake`, `session`, `transaction` (SMTP) → `settlement` (what is recorded, told and scheduled, and in which
order). `resolver`, `routes` and `tls` decide where to and how safely.
"""
