"""The grammar of commands: a function for each production, left to right over a cursor (RFC 3501 §9)."""
