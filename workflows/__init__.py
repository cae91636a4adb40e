"""Nipype workflows of the participant level, one file per stage."""
