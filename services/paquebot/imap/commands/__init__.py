"""The handlers of commands, a file for each chapter of RFC 3501 §6."""
