"""Magnitude and phase, or real and imaginary part, of a scanner through the steps that make one real image of them."""

from __future__ import annotations

import nibabel as nib
import numpy as np
import pytest
from nipype.pipeline.engine import Workflow

from sodium_prep.bids.inputs import collect
from sodium_prep.cli.plan import describe_session
from sodium_prep.interfaces.base import load_json
from sodium_prep.interfaces.sodium import load_noise
from sodium_prep.report.methods import build_methods
from sodium_prep.settings import Settings
from sodium_prep.workflows.planning import plan_series
from sodium_prep.workflows.sodium import _image_chain, _quantification, _window
from tests.bids import study
from tests.bids.study import SODIUM
from tests.quant.complex_head import AFFINE, HEAD, VOXEL_MM, complex_head

BLOCK = study.SIDECAR["SodiumAcquisition"] | {"NominalResolution": [VOXEL_MM] * 3}


@pytest.fixture
def scan(tmp_path):
    """Root of a study with parts of one image, and the chain of its image in a graph."""
    image = complex_head(3.0)
    parts = {"mag": np.abs(image), "phase": np.angle(image), "real": image.real, "imag": image.imag}
    root = study.make_study(tmp_path / "study")

    def make(names, kspace_filter):
        (root / SODIUM).unlink()
        block = BLOCK | {"KSpaceFilter": kspace_filter}
        for name in names:
            path = study.put_sodium(
                root, SODIUM.replace("_PDw", f"_part-{name}_PDw"), Units="rad", SodiumAcquisition=block
            )
            study.put_image(path, parts[name].astype(np.float32), AFFINE)
        folders = {"bids_dir": root, "output_dir": tmp_path / "out", "work_dir": tmp_path / "work"}
        settings = Settings(**folders, analysis_level="participant", version="0")
        inputs = collect(root, "01", "01")
        plan = plan_series(inputs.sodium[0], inputs, settings)
        workflow = Workflow(name="chain", base_dir=str(tmp_path / "work"))
        workflow.config["execution"] = {"remove_unnecessary_outputs": "false"}
        window = _window(plan)
        reports = _image_chain(workflow, plan, window, "none", 42, 1).reports
        nodes = {node.name: node for node in workflow.run().nodes()}
        facts = {}
        for node, name in reports:
            facts |= load_json(getattr(nodes[node.name].result.outputs, name))
        return plan, nodes, facts, describe_session(inputs, settings)

    return make


@pytest.mark.parametrize(("names", "kspace_filter"), [(("mag", "phase"), "none"), (("real", "imag"), "unknown")])
def test_a_run_in_two_parts_becomes_one_real_image(scan, names, kspace_filter):
    plan, nodes, facts, described = scan(names, kspace_filter)
    found = nib.load(nodes["image1"].result.outputs.out_file)
    assert found.get_fdata()[HEAD].mean() == pytest.approx(3.0, rel=0.01)
    assert found.affine == pytest.approx(AFFINE)
    assert load_noise(nodes["image1"].result.outputs.noise_file).sd[0, 0, 0] == pytest.approx(1.0, rel=0.03)
    assert (facts["floor"], facts["floor_corrected"]) == ("zero-mean", False)
    assert facts["phase_left"] < 0.02
    assert facts["clipped_fraction"] == 0.0
    assert "complex image as given: " in described
    assert all(f"part-{name}_PDw" in described for name in names)
    assert "They were complex" in build_methods(plan.ran).paragraphs[0][1]
    # A real part with its phase shows no object where it is negative, so the window is sought without the phase.
    if kspace_filter == "unknown":
        assert nodes["window"].inputs.in_files == [nodes["given1"].result.outputs.out_file]
    # Clipping shows in what the scanner stored, and in a phase it does not.
    stored = _quantification(plan, (), ("none",), ()).inputs.stored_files
    assert [f"part-{name}" in path for name, path in zip(names, stored, strict=False)] == [True] * len(stored)
    assert len(stored) == (1 if "phase" in names else 2)
