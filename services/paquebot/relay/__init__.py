"""The relay: carries accepted messages to other domains' hosts, tries again later, and notifies senders of failures.

A job's way: `queue.consumer` claims it (`queue.ahead`: jobs that are moved ahead of a backlog) → `queue.admission` (is
it for now?) → `queue.destinations`, `queue.slots` (its turn) → `worker` (to its end) → `attempt` → `courier` (host by
host) → `smtp_client.visit` (one host: session, form, transactions) → `settlement` (what is recorded, reported and
scheduled, and in which order). `routing` decides where to; `smtp_client.tls` how safely.
"""
