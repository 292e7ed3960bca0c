"""Domains, accounts, aliases and credentials: the PostgreSQL schema `directory`, used only by this package."""
