"""A head that moves beside vials that do not, from the scanner's file to the image that the chain goes on with."""

from __future__ import annotations

from dataclasses import asdict

import nibabel as nib
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from sodium_prep.interfaces.base import load_json
from sodium_prep.interfaces.reconstruct import ReconstructKspace
from sodium_prep.phantom.ellipsoids import ANALYTIC_HEAD, analytic_image
from sodium_prep.phantom.protocol import AGAR, PhantomProtocol, Vial
from sodium_prep.phantom.scan import Subject, measure, sodium_affine
from sodium_prep.phantom.sodium import ScannerFields, Source
from sodium_prep.physics.acquisition import Acquisition
from sodium_prep.recon.gridding import grid_image
from sodium_prep.recon.raw import write_ismrmrd

N, VOXEL_MM = 40, 6.0
PROTOCOL = PhantomProtocol(Acquisition(0.0005, 0.12, 90.0, 3.0, "DA-3DPR", 0.01, (VOXEL_MM,) * 3, 0.3), 1800, 96)
HEAD = [e for e in ANALYTIC_HEAD if not e.name.startswith("tube")]
VIALS = (Vial("right", 80.0, (97.0, 66.0, 0.0)), Vial("left", 50.0, (-97.0, 66.0, 0.0)))


def pose(turn_deg, shift_mm):
    out = np.eye(4)
    out[:3, :3] = Rotation.from_rotvec(turn_deg, degrees=True).as_matrix()
    out[:3, 3] = shift_mm
    return out


POSES = (np.eye(4), pose((4, 5, 0), (3, 0, 4)), pose((-3, -2, 4), (-3, 3, -2)))


def place(points, name, grow_mm=0.0):
    one = next(e for e in HEAD if e.name == name)
    return np.sum(((points - one.centre_mm) @ one.matrix / (np.array(one.semi_axes_mm) + grow_mm)) ** 2, axis=-1) < 1.0


def test_motion_blocks_recover_the_head_and_leave_the_vials(tmp_path):
    maps = sodium_affine(N, VOXEL_MM)
    source = Source(analytic_image(HEAD, (N,) * 3, maps), AGAR)
    subject = Subject([source], maps, np.eye(4), VIALS, 35.0, np.zeros((1, 3)), AGAR)
    still, moved = (
        measure(
            subject,
            PROTOCOL,
            PROTOCOL.acquisition,
            ScannerFields(),
            wm_snr=20.0,
            gain=1.0,
            flip_factor=1.0,
            rngs=[np.random.default_rng(0)],
            poses=poses,
        )[0]
        for poses in (POSES[:1], POSES)
    )
    write_ismrmrd(tmp_path / "kspace.h5", moved)
    step = ReconstructKspace(in_file=str(tmp_path / "kspace.h5"), acquisition=asdict(PROTOCOL.acquisition))
    done = step.run(motion_blocks=len(POSES), cwd=str(tmp_path)).outputs

    points = np.moveaxis(np.indices((N,) * 3), 0, -1) * VOXEL_MM + maps[:3, 3]
    ventricles = place(points, "ventricle-left") | place(points, "ventricle-right")
    head = [
        place(points, "wm", -10.0) & ~ventricles,
        place(points, "gm") & ~place(points, "wm"),
        place(points, "csf") & ~place(points, "gm"),
        ventricles,
    ]
    vials = [
        (np.linalg.norm(points[..., :2] - vial.centre_mm[:2], axis=-1) < vial.radius_mm)
        & (np.abs(points[..., 2]) < 24.0)
        for vial in VIALS
    ]

    def means(image):
        return np.array([image[one].mean() for one in (*head, *vials)])

    truth, uncorrected = (
        means(grid_image(r.kspace, r.trajectory, r.shape, r.voxel_mm)[0].real) for r in (still, moved)
    )
    ratio = means(nib.load(done.out_file).get_fdata()) / truth
    assert np.abs(uncorrected / truth - 1.0)[: len(head)].max() > 0.08
    np.testing.assert_allclose(ratio[: len(head)], 1.0, atol=0.015)
    np.testing.assert_allclose(ratio[len(head) :], 1.0, atol=0.04)
    told = load_json(done.report_file)
    assert told["motion_mm"] == pytest.approx(7.0, abs=2.0)
    assert ["moved by up to" in note for note in told["kspace_notes"]] == [True, False]
