"""The gRPC service that resolves recipients, authenticates logins, and administers the directory."""
