"""The regional table of total sodium concentration."""
