"""Group tables and group statistics."""
