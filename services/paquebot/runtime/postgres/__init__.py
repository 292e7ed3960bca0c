"""The pool of PostgreSQL connections, and migrations."""
