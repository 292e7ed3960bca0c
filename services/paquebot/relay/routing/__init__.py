"""From a domain to the hosts that take its mail."""
