"""Administration of domains, accounts and aliases, through recipient_validation."""
