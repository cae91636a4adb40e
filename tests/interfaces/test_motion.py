"""A head that moves beside vials that do not, from the scanner's file to the image that the chain goes on with."""

from __future__ import annotations

from dataclasses import asdict

import nibabel as nib
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from sodium_prep.interfaces.base import load_json
from sodium_prep.interfaces.sodium import ReconstructKspace
from sodium_prep.phantom.ellipsoids import ANALYTIC_HEAD, analytic_image
from sodium_prep.phantom.protocol import AGAR, PhantomProtocol, Vial
from sodium_prep.phantom.scan import Subject, measure, sodium_affine
from sodium_prep.phantom.sodium import ScannerFields, Source
from sodium_prep.physics.acquisition import Acquisition
from sodium_prep.recon.raw import write_ismrmrd

N, VOXEL_MM = 40, 6.0
PROTOCOL = PhantomProtocol(Acquisition(0.0005, 0.12, 90.0, 3.0, "DA-3DPR", 0.01, (VOXEL_MM,) * 3, 0.3), 2400, 96)
HEAD = [e for e in ANALYTIC_HEAD if not e.name.startswith("tube")]
VIALS = (Vial("right", 80.0, (97.0, 66.0, 0.0)), Vial("left", 50.0, (-97.0, 66.0, 0.0)))


def pose(turn_deg, shift_mm):
    out = np.eye(4)
    out[:3, :3] = Rotation.from_rotvec(turn_deg, degrees=True).as_matrix()
    out[:3, 3] = shift_mm
    return out


POSES = (np.eye(4), pose((3, 3, 0), (3, 0, 2)), pose((-3, 2, 3), (0, 3, -2)), pose((0, -3, -3), (-3, -2, 0)))


def place(points, name, grow_mm):
    one = next(e for e in HEAD if e.name == name)
    return np.sum(((points - one.centre_mm) @ one.matrix / (np.array(one.semi_axes_mm) + grow_mm)) ** 2, axis=-1) < 1.0


@pytest.fixture(scope="module")
def means(tmp_path_factory):
    """Means of places in the image of a file, and what is told of it."""
    folder = tmp_path_factory.mktemp("motion")
    maps = sodium_affine(60, 4.0)
    source = Source(analytic_image(HEAD, (60, 60, 60), maps, 2), AGAR)
    subject = Subject([source], maps, np.eye(4), VIALS, 35.0, np.zeros((1, 3)), AGAR)
    points = np.moveaxis(np.indices((N,) * 3), 0, -1) * VOXEL_MM + sodium_affine(N, VOXEL_MM)[:3, 3]
    ventricles = [place(points, f"ventricle-{side}", 0.0) for side in ("left", "right")]
    places = [
        place(points, "wm", -10.0) & ~np.any(ventricles, axis=0),
        place(points, "gm", 0.0),
        np.any(ventricles, axis=0),
    ]
    for vial in VIALS:
        beside = np.linalg.norm(points[..., :2] - vial.centre_mm[:2], axis=-1) < vial.radius_mm
        places.append(beside & (np.abs(points[..., 2]) < 24.0))

    def of(poses, blocks):
        (raw,) = measure(
            subject,
            PROTOCOL,
            PROTOCOL.acquisition,
            ScannerFields(),
            wm_snr=20.0,
            gain=1.0,
            flip_factor=1.0,
            rngs=[np.random.default_rng(0)],
            poses=poses,
        )
        write_ismrmrd(folder / "kspace.h5", raw)
        step = ReconstructKspace(in_file=str(folder / "kspace.h5"), acquisition=asdict(PROTOCOL.acquisition))
        done = step.run(motion_blocks=blocks, cwd=str(folder)).outputs
        image = nib.load(done.out_file).get_fdata()
        return np.array([image[place].mean() for place in places]), load_json(done.report_file)

    return of


def test_motion_blocks_recover_the_head_and_leave_the_vials(means):
    truth, told = means(POSES[:1], 0)
    assert told["motion_mm"] is None
    uncorrected = means(POSES, 0)[0] / truth
    corrected, told = means(POSES, 4)
    assert np.abs(uncorrected[:3] - 1.0).max() > 0.08
    np.testing.assert_allclose(corrected / truth, 1.0, atol=0.03)
    assert told["motion_mm"] == pytest.approx(6.0, abs=3.0)
    assert ["moved by up to" in note for note in told["kspace_notes"]] == [True, False]
