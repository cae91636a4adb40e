"""Which PSF a series gets: by option, sidecar, physics, or the noise of its image."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from sodium_prep.bids.sidecar import load_sidecar
from sodium_prep.interfaces.base import load_json
from sodium_prep.interfaces.sodium import FindWindow
from sodium_prep.settings import Settings
from sodium_prep.workflows.psf import choose_psf
from tests.bids import study
from tests.pvc.test_window import AFFINE, ASKED, WINDOWS, Scanner


@pytest.fixture
def choose(tmp_path):
    root = study.make_study(tmp_path / "study")

    def make(block=None, *, kspace=False, **options):
        study.put_sodium(root, SodiumAcquisition=study.SIDECAR["SodiumAcquisition"] | (block or {}))
        sidecar = load_sidecar(root / "sub-01/ses-01/anat/sub-01_ses-01_acq-sodium_PDw.nii.gz")
        folders = {"bids_dir": root, "output_dir": tmp_path / "out", "work_dir": tmp_path / "work"}
        settings = Settings(**folders, analysis_level="participant", version="0", **options)
        facts = sidecar.acquisition(kspace_filter="none" if kspace else None)
        return choose_psf(sidecar, facts, settings, kspace=kspace)

    return make


def test_the_physics_by_default_and_checked_by_the_noise_of_a_scanners_image(choose):
    found = choose({"KSpaceFilter": "fermi", "FilterCutoff": 0.9, "FilterWidth": 0.05})
    assert (found.kind, found.sought, found.warnings) == ("acquisition", True, ())
    assert "DA-3DPR, a Fermi window (half at 0.9 kmax, width 0.05 kmax), a readout of 10 ms" in found.reason
    ours = choose(kspace=True)
    assert (ours.kind, ours.sought) == ("acquisition", False)


def test_a_trajectory_without_a_law_has_its_psf_from_the_readouts_or_from_an_image(choose):
    ours = choose({"Trajectory": "Cones"}, kspace=True)
    assert ours.kind == "readouts"
    assert "readouts in the k-space file, no window" in ours.reason
    image = choose({"Trajectory": "Cones"})
    assert (image.kind, image.sought) == ("", False)
    assert "PointSpreadFunction missing" in image.reason
    assert choose({"Trajectory": "Cones", "PointSpreadFunction": "psf.nii.gz"}, kspace=True).kind == "measured"


def test_only_a_missing_window_is_sought(choose):
    found = choose({"KSpaceFilter": "unknown"})
    assert (found.kind, found.sought) == ("", True)
    assert not choose({"KSpaceFilter": "unknown", "ReadoutDuration": None}).sought
    assert not choose({"NonlinearReconstruction": True}).sought


@pytest.mark.parametrize(
    ("block", "width", "words"),
    [
        ({"KSpaceFilter": "none"}, 6.4, "23 to 29 %"),
        ({"KSpaceFilter": "unknown"}, 6.4, "KSpaceFilter is not known. A Gaussian is no stand-in"),
        ({"KSpaceFilter": "hamming"}, 9.0, "6.4 mm; one of 9 mm costs"),
        ({"KSpaceFilter": "hamming"}, 6.4, ""),
        ({"KSpaceFilter": "none", "NonlinearReconstruction": True}, 6.4, ""),
    ],
)
def test_a_gaussian_is_warned_of_where_it_misleads(choose, block, width, words):
    found = choose(block | {"NominalResolution": [4.0, 4.0, 4.0]}, psf_fwhm_mm=width)
    assert (found.kind, found.fwhm_mm, found.sought) == ("gaussian", width, False)
    assert words in " ".join(found.warnings)
    assert bool(words) == bool(found.warnings)


def test_images_of_points_go_before_the_physics_and_the_option_before_the_sidecar(choose):
    sidecar = choose({"PointSpreadFunction": "psf.nii.gz"})
    assert (sidecar.kind, list(sidecar.files)) == ("measured", ["all"])
    assert "12 %" in sidecar.warnings[0]
    files = {"GM": Path("/gm.nii"), "CSF": Path("/csf.nii")}
    option = choose({"PointSpreadFunction": "psf.nii.gz"}, psf_files=files)
    assert (option.kind, option.files, option.warnings) == ("measured", files, ())


def test_the_window_found_goes_on_with_its_reason(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    image = np.abs(Scanner().image(WINDOWS["hamming"], np.random.default_rng(1)))
    nib.save(nib.Nifti1Image(image.astype(np.float32), AFFINE), "image.nii")
    step = FindWindow(in_files=[str(tmp_path / "image.nii")], acquisition=asdict(ASKED), psf_reason="sought")
    found = step.run().outputs
    assert found.acquisition == asdict(replace(WINDOWS["hamming"]))
    assert (found.psf_known, found.psf_kind) == (True, "acquisition")
    assert "a Hamming window" in found.psf_reason
    assert "told from the noise" in found.psf_reason
    assert found.psf_width_sd >= 0.05
    (note,) = load_json(found.report_file)["window_notes"]
    assert "which was taken" in note
