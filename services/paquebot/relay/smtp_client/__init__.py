"""SMTP with other hosts (RFC 5321), as a client."""
