"""The command line: services, administration, upkeep, and the platform on one machine."""
