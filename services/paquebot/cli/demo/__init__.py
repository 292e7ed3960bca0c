"""`paquebot demo`: the demo domain and its accounts."""
