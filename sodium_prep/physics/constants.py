"""Physical constants of the sodium-23 nucleus."""

from __future__ import annotations

from typing import Final

GAMMA_BAR_23NA_HZ_PER_T: Final = 11.262e6
"""Gyromagnetic ratio over 2 pi of 23Na, Hz/T."""
