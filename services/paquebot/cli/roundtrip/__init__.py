"""`paquebot roundtrip`: submit a message and read it back."""
