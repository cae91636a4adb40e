"""Raw data of a scanner from the data set to the image that the chain goes on with."""

from __future__ import annotations

import h5py
import nibabel as nib
import numpy as np
import pytest
from nipype.pipeline.engine import Workflow

from sodium_prep.bids.inputs import collect
from sodium_prep.errors import InputError
from sodium_prep.interfaces.base import load_json
from sodium_prep.settings import Settings
from sodium_prep.workflows.planning import plan_series
from sodium_prep.workflows.sodium import _image_chain, _quantification
from tests.bids import study
from tests.bids.study import KSPACE, SIDECAR
from tests.recon.analytic import Ellipsoid, complex_noise, small_trajectory
from tests.recon.siemens import POSITION, readout, write_twix

SPOKES, SAMPLES, FILE = 1200, 65, "sourcedata/sub-01/ses-01/sodium/trajectory.h5"
BLOCK = {"TrajectoryFile": FILE, "NominalResolution": [8.0] * 3, "FieldOfView": [192.0] * 3, "NumberOfSpokes": SPOKES}
BALL = Ellipsoid(3.0, (60.0, 60.0, 60.0))


@pytest.fixture
def root(tmp_path):
    """A study with a Siemens file of two echoes, the second of which is another image."""
    root = study.make_study(tmp_path / "study")
    trajectory = small_trajectory(SPOKES, SAMPLES, resolution_mm=8.0, linear_fraction=0.5)
    path = (root / KSPACE).with_suffix(".dat")
    study.put_json(path.with_suffix(".json"), SIDECAR | {"EchoTime": 0.0003, "SodiumAcquisition": BLOCK})
    noise = 50.0 * complex_noise(np.random.default_rng(0), (1, 4000))
    samples = BALL.spectrum(trajectory.k_per_mm).astype(np.complex64)[:, None]
    lines = range(SPOKES)
    write_twix(path, [readout(gain * samples[i], i, 0, e) for i in lines for e, gain in ((0, 1.0), (1, 0.5))], noise)
    with h5py.File(root / FILE, "w") as file:
        file["k"] = 1e3 * trajectory.k_per_mm.astype(np.float64)
        file["k"].attrs["units"] = "1/m"
    return root


def test_raw_data_of_siemens_become_an_image(root, tmp_path):
    folders = {"bids_dir": root, "output_dir": tmp_path / "out", "work_dir": tmp_path / "work"}
    inputs = collect(root, "01", "01")
    plan = plan_series(inputs.sodium[0], inputs, Settings(**folders, analysis_level="participant", version="0"))
    workflow = Workflow(name="chain", base_dir=str(tmp_path / "work"))
    workflow.config["execution"] = {"remove_unnecessary_outputs": "false"}
    _image_chain(workflow, plan, None, "none", 42, 1)
    (run,) = workflow.run().nodes()
    image = nib.load(run.result.outputs.out_file)
    index = np.stack(np.meshgrid(*(np.arange(24),) * 3, indexing="ij"), axis=-1)
    world = index @ image.affine[:3, :3].T + image.affine[:3, 3]
    distance = np.linalg.norm(world - POSITION * [-1, -1, 1], axis=-1)
    assert image.get_fdata()[(distance < 45.0) & (distance > 10.0)].mean() == pytest.approx(3.0, rel=0.02)
    assert (
        "holds 2 echoes, but its sidecar the EchoTime of the first"
        in load_json(run.result.outputs.report_file)["kspace_notes"][0]
    )
    quantify = _quantification(plan, (), ("none", "kspace"), ()).inputs
    assert quantify.described == plan.raw[0][0].described == run.inputs.described
    # The step is done again where the trajectory has changed.
    before = run.inputs.get_hashval("content")[1]
    (root / FILE).write_bytes((root / FILE).read_bytes() + b" ")
    assert run.inputs.get_hashval("content")[1] != before


def test_a_trajectory_that_cannot_be_had_is_told_before_any_work(root):
    sidecar = (root / KSPACE).with_suffix(".json")
    for block, message in (
        (BLOCK | {"TrajectoryFile": "../elsewhere.h5"}, "TrajectoryFile, which is not in the data set"),
        (BLOCK | {"TrajectoryFile": "absent.h5"}, "absent.h5: cannot be read: it is not there"),
        ({"Trajectory": "DA-3DPR"}, "lacks NumberOfSpokes, ReadoutDuration, NominalResolution, LinearFraction"),
    ):
        study.put_json(sidecar, SIDECAR | {"SodiumAcquisition": block})
        with pytest.raises(InputError, match=message):
            collect(root, "01", "01")
