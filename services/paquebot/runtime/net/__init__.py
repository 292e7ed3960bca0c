"""Connections of clients: listeners, TLS, the PROXY header, slots, deadlines."""
