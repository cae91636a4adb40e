"""What a session's workflow is told of derivatives: which it takes, and what the methods text says of them."""

import numpy as np
import pytest

from sodium_prep.bids.inputs import collect, parse_derivatives
from sodium_prep.cli.plan import describe_session
from sodium_prep.report.methods import build_methods
from sodium_prep.settings import Settings
from sodium_prep.workflows.planning import given_files, plan_series
from tests.bids import study

LABELS = "desc-aparcaseg_dseg"


@pytest.fixture
def plan(tmp_path):
    """Inputs with FreeSurfer's labels, brain mask and fractions; the settings of an atlas and spaces."""
    root, folder = study.make_study(tmp_path / "study"), tmp_path / "fs"
    study.put_json(folder / "dataset_description.json", {"Name": "fs", "BIDSVersion": "1.10.0"})
    names = ["desc-brain_mask", *(f"label-{tissue}_probseg" for tissue in ("GM", "WM", "CSF"))]
    for name in names:
        study.put_image(folder / f"sub-01/ses-01/anat/sub-01_ses-01_{name}.nii.gz")
    labels = np.where(study.noise() > 100, 1005, 17).astype(np.int32)
    study.put_image(folder / f"sub-01/ses-01/anat/sub-01_ses-01_{LABELS}.nii.gz", labels)
    derivatives = parse_derivatives([f"fs={folder}"])
    inputs = collect(root, "01", "01", derivatives=derivatives)

    def make(**options):
        folders = {"bids_dir": root, "output_dir": tmp_path / "out", "work_dir": tmp_path / "work"}
        settings = Settings(**folders, analysis_level="participant", derivatives=derivatives, version="0", **options)
        text = " ".join(t for _, t in build_methods(plan_series(inputs.sodium[0], inputs, settings).ran).paragraphs)
        return given_files(inputs, settings), text, describe_session(inputs, settings)

    return make


def test_freesurfer_labels_serve_the_bundled_atlas_only(plan):
    assert "segmentation" in plan(output_spaces=("T1w",))[0]
    assert "segmentation" not in plan(output_spaces=("T1w",), atlas=("/mine/parcels.nii.gz",))[0]


def test_a_plan_says_what_is_taken_and_what_is_looked_for(plan):
    ours, own = plan()[2], plan(atlas=("/mine/parcels.nii.gz",))[2]
    assert "taken as given: brain mask, tissue fractions, atlas labels" in ours
    assert "atlas labels" not in own
    assert "vials (2, to be found in the image)" in ours


def test_methods_tell_the_anatomy_that_ran(plan):
    _, alone, _ = plan(output_spaces=("T1w",))
    assert "taken from fs: brain mask, tissue fractions and atlas labels." in alone
    for words in ("diffeomorphic", "N4", "estimated together", "extracted"):
        assert words not in alone
    _, template, _ = plan(output_spaces=("T1w", "MNI152NLin6Asym"))
    assert "symmetric diffeomorphic registration" in template
    assert "for nothing else" in template
    assert "numpy 2" in template
    assert "antspyx 0" in template


def test_a_receive_profile_that_cannot_be_had_is_told(tmp_path):
    root = study.make_study(tmp_path / "study")
    folders = {"bids_dir": root, "output_dir": tmp_path / "out", "work_dir": tmp_path / "work"}

    def planned(method):
        settings = Settings(**folders, analysis_level="participant", version="0", receive_profile=method)
        found = plan_series(collect(root, "01", "01").sodium[0], collect(root, "01", "01"), settings)
        return found.receive, [text for text in found.warnings if "receive profile" in text], found.b1_pair_facts

    assert planned("auto") == ("none", [], (0.0, 0.0))
    assert planned("fit")[0] == "fit"
    for method in ("pair", "reciprocity"):
        assert planned(method)[0] == "none"
        assert f"--receive-profile {method}" in planned(method)[1][0]
    for flip in (1, 2):
        name = f"sub-01/ses-01/fmap/sub-01_ses-01_flip-{flip}_TB1DAM.nii.gz"
        facts = {"ResonantNucleus": "23Na", "FlipAngle": 60 * flip, "RepetitionTime": 0.3}
        study.put_json(root / name.replace(".nii.gz", ".json"), facts)
        study.put_image(root / name)
    assert planned("reciprocity") == ("reciprocity", [], (60.0, 0.3))
