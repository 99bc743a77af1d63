"""Faults of processes, networks and databases: whatever fails, nothing that was acknowledged is lost or doubled."""
