"""A service process: settings to exit code, workers, health and metrics, background tasks."""
