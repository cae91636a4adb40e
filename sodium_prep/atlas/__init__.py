"""Atlases and their label tables."""
