"""Analytic objects: ellipsoids whose blurred images are known in closed form, and their voxel fractions."""

from dataclasses import dataclass
from functools import lru_cache

import finufft
import numpy as np
from scipy.special import spherical_jn

from sodium_prep.physics.acquisition import Acquisition
from sodium_prep.physics.relaxation import tissue_relaxation
from sodium_prep.pvc.compartments import Compartments
from sodium_prep.pvc.psf import mtf

ACQUISITION = Acquisition(0.0005, 0.12, 90.0, 3.0, "DA-3DPR", 0.010, (4.0, 4.0, 4.0), 0.2)
SHAPE, VOXEL_MM = (48, 48, 47), 4.0
AFFINE = np.diag([VOXEL_MM, VOXEL_MM, VOXEL_MM, 1.0])
AFFINE[:3, 3] = [-95.0, -94.0, -92.0]
T1W_SHAPE = (80, 96, 80)
T1W_AFFINE = np.diag([2.0, 2.0, 2.0, 1.0])
T1W_AFFINE[:3, 3] = [-79.3, -95.2, -79.1]


def rigid(angles_deg=(4.0, -6.0, 9.0), shift_mm=(1.3, -2.1, 0.8)):
    x, y, z = np.deg2rad(angles_deg)
    rx = np.array([[1, 0, 0], [0, np.cos(x), -np.sin(x)], [0, np.sin(x), np.cos(x)]])
    ry = np.array([[np.cos(y), 0, np.sin(y)], [0, 1, 0], [-np.sin(y), 0, np.cos(y)]])
    rz = np.array([[np.cos(z), -np.sin(z), 0], [np.sin(z), np.cos(z), 0], [0, 0, 1]])
    out = np.eye(4)
    out[:3, :3], out[:3, 3] = rz @ ry @ rx, shift_mm
    return out


@dataclass(frozen=True)
class Ellipsoid:
    """Centre and semi-axes in mm of T1w space."""

    centre: tuple[float, float, float]
    axes: tuple[float, float, float]

    def contains(self, points):
        return sum(((p - c) / a) ** 2 for p, c, a in zip(points, self.centre, self.axes, strict=True)) < 1.0

    def transform(self, k):
        """Closed-form Fourier transform at k (n, 3), 1/mm."""
        q = 2.0 * np.pi * np.linalg.norm(k * np.asarray(self.axes), axis=1)
        form = np.where(q > 1e-4, 3.0 * spherical_jn(1, np.maximum(q, 1e-4)) / np.maximum(q, 1e-4), 1.0)
        return 4.0 / 3.0 * np.pi * np.prod(self.axes) * form * np.exp(-2j * np.pi * k @ np.asarray(self.centre))


HOLES = {
    "hippocampus-L": Ellipsoid((-22.0, -8.0, -12.0), (8.0, 14.0, 8.0)),
    "hippocampus-R": Ellipsoid((22.0, -8.0, -12.0), (8.0, 14.0, 8.0)),
    "ventricle-L": Ellipsoid((-10.0, 8.0, 15.0), (6.0, 22.0, 7.0)),
    "ventricle-R": Ellipsoid((10.0, 8.0, 15.0), (6.0, 22.0, 7.0)),
    "caudate": Ellipsoid((0.0, 30.0, -10.0), (10.0, 9.0, 10.0)),
}
LAYERS = [
    Ellipsoid((0.0, 0.0, 0.0), axes) for axes in ((72, 88, 72), (64, 80, 64), (58, 73, 58), (55, 70, 55), (46, 61, 46))
]
#: name: (tissue, kind, hemisphere, structure, solids added, solids taken away)
PARTS = {
    "cortex": ("GM", "region", "both", "cortex", [LAYERS[3]], [LAYERS[4]]),
    "white": ("WM", "region", "both", "wm", [LAYERS[4]], list(HOLES.values())),
    "hippocampus-L": ("GM", "region", "L", "hippocampus", [HOLES["hippocampus-L"]], []),
    "hippocampus-R": ("GM", "region", "R", "hippocampus", [HOLES["hippocampus-R"]], []),
    "ventricle-L": ("CSF", "region", "L", "csf", [HOLES["ventricle-L"]], []),
    "ventricle-R": ("CSF", "region", "R", "csf", [HOLES["ventricle-R"]], []),
    "caudate": ("GM", "region", "both", "deep_gm", [HOLES["caudate"]], []),
    "outer-CSF": ("CSF", "nuisance", "both", "", [LAYERS[2]], [LAYERS[3]]),
    "skull": ("extracerebral", "nuisance", "both", "", [LAYERS[1]], [LAYERS[2]]),
    "scalp": ("extracerebral", "nuisance", "both", "", [LAYERS[0]], [LAYERS[1]]),
}
TRUTH_MM = {
    "cortex": 45.0, "white": 35.0, "hippocampus-L": 55.0, "hippocampus-R": 48.0, "ventricle-L": 140.0,
    "ventricle-R": 140.0, "caudate": 41.0, "outer-CSF": 90.0, "skull": 2.0, "scalp": 25.0,
}  # fmt: skip


def share(solid, shape=T1W_SHAPE, affine=T1W_AFFINE, sub=4):
    """Volume fraction of a solid in each voxel, from sub^3 points."""
    offsets = (np.arange(sub) + 0.5) / sub - 0.5
    low, high = [], []
    for i, n in enumerate(shape):
        first, last = ((solid.centre[i] + sign * solid.axes[i] - affine[i, 3]) / affine[i, i] for sign in (-1, 1))
        low.append(max(int(first) - 1, 0))
        high.append(min(int(last) + 2, n))
    axes = [
        (np.arange(a, b)[:, None] + offsets).ravel() * affine[i, i] + affine[i, 3]
        for i, (a, b) in enumerate(zip(low, high, strict=True))
    ]
    inside = solid.contains(np.meshgrid(*axes, indexing="ij", sparse=True))
    x, y, z = (b - a for a, b in zip(low, high, strict=True))
    out = np.zeros(shape, np.float32)
    box = tuple(slice(a, b) for a, b in zip(low, high, strict=True))
    out[box] = inside.reshape(x, sub, y, sub, z, sub).mean((1, 3, 5))
    return out


_share = lru_cache(share)


def analytic_compartments(parts=PARTS):
    out = Compartments([], [], [], [], [], T1W_SHAPE, T1W_AFFINE)
    for index, (name, (tissue, kind, side, structure, added, taken)) in enumerate(parts.items()):
        weights = (sum(_share(s) for s in added) - sum(_share(s) for s in taken)).ravel()
        voxels = np.flatnonzero(weights > 1e-6)
        out.append(name, tissue, kind, voxels, weights[voxels], index=index, hemisphere=side, structure=structure)
    return out


def thin_cortex():
    """The analytic head with a cortex of 3 mm, most of which shares its voxels with a neighbour."""
    inner = Ellipsoid((0.0, 0.0, 0.0), (52.0, 67.0, 52.0))
    parts = dict(PARTS)
    parts["cortex"] = (*parts["cortex"][:5], [inner])
    parts["white"] = (*parts["white"][:4], [inner], parts["white"][5])
    return analytic_compartments(parts)


def analytic_image(
    amounts, parts=PARTS, sodium_to_t1w=None, shape=SHAPE, affine=AFFINE, acquisition=ACQUISITION, reach_mm=120.0
):
    """Image of solids by quadrature of the Fourier integral over a ball of k-space (Gauss-Legendre times sphere)."""
    sodium_to_t1w = np.eye(4) if sodium_to_t1w is None else sodium_to_t1w
    kmax = acquisition.kmax_per_mm[0]
    n = 2 * int(np.pi * kmax * reach_mm * 0.75) + 24
    # Half of the sphere: the image is real.
    mu, w_mu = (v[n // 2 :] for v in np.polynomial.legendre.leggauss(n))
    phi = 2.0 * np.pi * np.arange(2 * n) / (2 * n)
    sin = np.sqrt(1.0 - mu**2)
    unit = np.stack(
        [np.outer(sin, np.cos(phi)), np.outer(sin, np.sin(phi)), np.outer(mu, np.ones_like(phi))], axis=-1
    ).reshape(-1, 3)
    w_unit = 2.0 * np.repeat(w_mu, 2 * n) * np.pi / n
    x, w = np.polynomial.legendre.leggauss(n // 2 + 10)
    p = acquisition.linear_fraction
    k_rel = np.concatenate([p * (x + 1) / 2, p + (1 - p) * (x + 1) / 2])
    w_rel = np.concatenate([w * p / 2, w * (1 - p) / 2])
    total = np.zeros(shape)
    voxel = np.abs(np.diag(affine)[:3])
    centre = affine[:3, :3] @ (np.asarray(shape) // 2) + affine[:3, 3]
    for k_r, weight in zip(np.array_split(k_rel, 8), np.array_split(w_rel, 8), strict=True):
        k = (k_r[:, None, None] * kmax * unit).reshape(-1, 3)
        # An object at p_t1w = M p_sodium: turn k instead, and shift.
        turned = k @ sodium_to_t1w[:3, :3].T
        phase = np.exp(2j * np.pi * turned @ (sodium_to_t1w[:3, 3]) + 2j * np.pi * k @ centre)
        spectrum = np.zeros(len(k), complex)
        known = {}
        for name, (tissue, _, _, _, added, taken) in parts.items():
            decay = np.repeat(mtf(k_r, acquisition, tissue_relaxation(tissue, 3.0)), len(unit))
            for sign, solids in ((1.0, added), (-1.0, taken)):
                for solid in solids:
                    if solid not in known:
                        known[solid] = solid.transform(turned)
                    spectrum += sign * amounts[name] * decay * known[solid]
        jacobian = np.outer(k_r**2 * weight, w_unit).ravel() * kmax**3
        angles = (2.0 * np.pi * k * voxel).T
        total += finufft.nufft3d1(
            *angles.copy(), spectrum * jacobian * phase, shape, eps=1e-6, isign=1, nthreads=1
        ).real
    return total
