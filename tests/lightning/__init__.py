"""The callback in the real Trainer, against a real server."""
