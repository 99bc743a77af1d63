"""The client and the framework-free optimizer, against real servers."""
