"""A small, whole BIDS study on disk, for tests to use or to spoil."""

from __future__ import annotations

import json
from pathlib import Path

import nibabel as nib
import numpy as np

SODIUM = "sub-01/ses-01/anat/sub-01_ses-01_acq-sodium_PDw.nii.gz"
T1W = "sub-01/ses-01/anat/sub-01_ses-01_T1w.nii.gz"
KSPACE = "sourcedata/sub-01/ses-01/sodium/sub-01_ses-01_acq-sodium_kspace.h5"

SIDECAR = {
    "ResonantNucleus": "23Na",
    "MagneticFieldStrength": 3,
    "EchoTime": 0.0005,
    "RepetitionTime": 0.12,
    "FlipAngle": 90,
    "PulseSequenceType": "DA-3DPR",
    "SodiumAcquisition": {
        "Trajectory": "DA-3DPR",
        "ReadoutDuration": 0.01,
        "LinearFraction": 0.2,
        "NominalResolution": [4.0, 4.0, 4.0],
        "KSpaceFilter": "hamming",
    },
    "SodiumReferences": [
        {"Label": "vial50", "Concentration": 50.0, "Matrix": "agar", "T1": 0.035, "T2starSlow": 0.025},
        {"Label": "vial100", "Concentration": 100.0, "Matrix": "agar", "T1": 0.035, "T2starSlow": 0.025,
         "CentreRAS": [10, 10, 10], "Radius": 9.0},
    ],
}  # fmt: skip


def affine(size_mm: float = 4.0) -> np.ndarray:
    """RAS+ affine with the world's origin near the first voxel."""
    matrix = np.diag([size_mm, size_mm, size_mm, 1.0])
    matrix[:3, 3] = -4.0
    return matrix


def noise(shape: tuple[int, ...] = (24, 24, 24), seed: int = 0) -> np.ndarray:
    """Values that gzip cannot shorten, as in a measured image."""
    return np.random.default_rng(seed).normal(100, 10, shape).astype(np.float32)


def put_image(path: Path, data: np.ndarray | None = None, matrix: np.ndarray | None = None) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(noise() if data is None else data, affine() if matrix is None else matrix), path)
    return path


def put_json(path: Path, content: dict) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))
    return path


def put_sodium(root: Path, name: str = SODIUM, **changes) -> Path:
    """A sodium image with its sidecar; a change to None takes a key away."""
    content = {key: value for key, value in (SIDECAR | changes).items() if value is not None}
    put_json(root / name.replace(".nii.gz", ".json"), content)
    return put_image(root / name)


def make_study(root: Path) -> Path:
    """One participant, one session: a T1w and a sodium image."""
    put_json(root / "dataset_description.json", {"Name": "study", "BIDSVersion": "1.10.0", "DatasetType": "raw"})
    put_image(root / T1W)
    put_sodium(root)
    return root


def put_kspace(root: Path, name: str = KSPACE) -> Path:
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(64))
    put_json(path.with_suffix(".json"), SIDECAR)
    return path
