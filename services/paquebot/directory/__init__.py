"""Domains, accounts, aliases and credentials: PostgreSQL's schema `directory`, reached only through here."""
