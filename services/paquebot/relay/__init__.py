"""The relay: carries accepted messages to other domains' hosts, tries again later, and tells senders what failed.

A job's way: `consumer` (`jobs`, what is for now, and for whom there are slots: `destinations`, `hosts`; what is behind
a backlog: `ahead`) → `worker` (who is still open, the message) → `courier` (host by host) → `handshake`, `session`,
`form` (what this host takes), `transaction` (SMTP) → `settlement` (what is recorded, told and scheduled, and in which
order). `resolver`, `routes`, `addresses` and `tls` decide where to and how safely.
"""
