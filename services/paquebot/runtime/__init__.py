"""What every service process has: settings, the network, engines, health, and fair shares."""
