"""Messages read from S3 for FETCH and SEARCH, within their account's share of memory."""
