"""From bytes to text and back: charsets, encoded words, transfer encodings."""
