"""A small head as a BIDS study, and the same head as FreeSurfer, FastSurfer or SynthSeg would leave it."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import nibabel as nib
import numpy as np
from scipy import ndimage
from scipy.spatial.transform import Rotation

from sodium_prep.anat.segmentation import labels_on_grid
from sodium_prep.atlas.bundled import load_atlas
from tests.anat.heads import make_head

CONFORMED = np.array([[-2, 0, 0, 120], [0, 0, 2, -130], [0, -2, 0, 124], [0, 0, 0, 1.0]])
SHAPE = (120, 120, 120)


def oblique_grid() -> tuple[np.ndarray, tuple[int, int, int]]:
    """Turned by 15 degrees, with thick slices."""
    shape = (84, 100, 60)
    affine = np.eye(4)
    affine[:3, :3] = Rotation.from_rotvec([0.2, 0.1, 0.15]).as_matrix() @ np.diag([2.4, 2.4, 4.0])
    affine[:3, 3] = np.array([0, -18, 5]) - affine[:3, :3] @ ((np.array(shape) - 1) / 2)
    return affine, shape


def resample(data: np.ndarray, affine: np.ndarray, grid: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    return ndimage.affine_transform(data.astype(np.float32), np.linalg.inv(affine) @ grid, output_shape=shape, order=1)


@lru_cache(maxsize=1)
def images() -> dict[str, np.ndarray]:
    """T1w on the oblique grid; intensity, brain and labels on the conformed grid."""
    head, atlas = make_head(2.0, bias=0.2, noise=0.02), load_atlas()
    own = resample(head.t1w, head.affine, CONFORMED, SHAPE)
    grid, shape = oblique_grid()
    labels = labels_on_grid(atlas.labels, atlas.affine, SHAPE, CONFORMED)
    brain = resample(head.brain, head.affine, CONFORMED, SHAPE) > 0.5
    return {
        "T1w": resample(head.t1w, head.affine, grid, shape),
        "orig": np.clip(own / own.max() * 255, 0, 255).astype(np.uint8),
        "brainmask": np.where(brain, np.maximum(own / own.max() * 255, 2), 0).astype(np.uint8),
        "labels": labels,
    }


def put_mgz(path: Path, data: np.ndarray, affine: np.ndarray = CONFORMED) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.MGHImage(data, affine), path)
    return path


def put_subject(folder: Path, *, shift_mm: float = 0.0, flip: bool = False, labels: str = "aparc+aseg") -> Path:
    """A folder of FreeSurfer with labels, brain mask and image."""
    affine = CONFORMED.copy()
    affine[1, 3] += shift_mm
    parts = {name: data[::-1] if flip else data for name, data in images().items()}
    put_mgz(folder / "mri" / f"{labels}.mgz", parts["labels"], affine)
    put_mgz(folder / "mri/brainmask.mgz", parts["brainmask"], affine)
    put_mgz(folder / "mri/orig.mgz", parts["orig"], affine)
    return folder
