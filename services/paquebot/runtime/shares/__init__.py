"""Bounded memory, connections and time of the event loop, and the shares that clients and accounts have of them."""
