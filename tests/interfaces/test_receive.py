"""The receive profile by reciprocity: what a coil transmits well it receives well."""

from __future__ import annotations

from dataclasses import asdict

import nibabel as nib
import numpy as np

from sodium_prep.interfaces.sodium import CorrectReceiveByTransmit, load_noise, save_noise
from tests.pvc.heads import ACQUISITION
from tests.quant.test_b1 import AFFINE, HEAD, SHAPE, TRUTH, VIAL


def test_head_and_vial_are_levelled_by_the_transmit_field(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(1)
    image = TRUTH * (100.0 * HEAD + 200.0 * VIAL)
    measured = np.where((HEAD > 0.5) | (VIAL > 0.5), 100.0 * TRUTH + rng.normal(0.0, 3.0, SHAPE), 0.0)
    for name, data in (("sodium", image), ("map", measured)):
        nib.save(nib.Nifti1Image(data.astype(np.float32), AFFINE), f"{name}.nii.gz")
    save_noise(tmp_path / "noise.npz", 2.0, np.ones(SHAPE), SHAPE)
    step = CorrectReceiveByTransmit(
        in_file="sodium.nii.gz", noise_file="noise.npz", b1_plus="map.nii.gz", b1_units="percent",
        acquisition=asdict(ACQUISITION),
    )  # fmt: skip
    out = step.run().outputs
    levelled = nib.load(out.out_file).get_fdata()
    inside, vial = HEAD > 0.99, VIAL > 0.99
    assert image[inside].std() / image[inside].mean() > 0.04
    assert levelled[inside].std() / levelled[inside].mean() < 0.015
    assert levelled[vial].mean() / levelled[inside].mean() > 1.96
    # Where little is received the noise weighs more.
    noise = load_noise(out.noise_file).sd
    assert np.corrcoef(noise[inside], TRUTH[inside])[0, 1] < -0.95
