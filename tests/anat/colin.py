"""Colin27 and label maps in its space, from Debian's ``mricron-data`` package; tests skip where it is absent."""

from __future__ import annotations

import os
from functools import lru_cache
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

_FOLDER = Path(os.environ.get("MRICRON_TEMPLATES", "/usr/share/mricron/templates"))


def mricron_path(name: str) -> Path:
    """A file of the package, for instance ``ch2.nii.gz``."""
    path = _FOLDER / name
    if not path.is_file():
        pytest.skip(f"{name} of Debian's mricron-data is not here (MRICRON_TEMPLATES says where)")
    return path


@lru_cache(maxsize=4)
def colin27(name: str = "ch2") -> tuple[np.ndarray, np.ndarray]:
    """Data in RAS order and affine: ``ch2`` is the head, ``ch2bet`` the brain, ``aal`` its labels."""
    image = nib.as_closest_canonical(nib.load(mricron_path(f"{name}.nii.gz")))
    return np.asarray(image.dataobj).squeeze(), image.affine
