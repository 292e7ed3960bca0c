"""The gRPC service that says where mail goes, who logs in, and lets administrators change both."""
