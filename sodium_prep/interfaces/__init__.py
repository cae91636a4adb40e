"""Thin Nipype interfaces: read files, call one core function, write files."""
