"""Finds and checks the inputs, names and writes the outputs."""
