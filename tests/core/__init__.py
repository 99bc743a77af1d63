"""The decisions, as pure functions: no database, no server."""
