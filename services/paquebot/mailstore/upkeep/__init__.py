"""Checks, pack uses, figures and troubles, for janitor, verify and recover."""
