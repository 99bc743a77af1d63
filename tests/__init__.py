"""The tests. Helpers shared by several folders: `specs`, `databases`, `servers`, `calls`."""
