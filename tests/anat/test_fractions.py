from __future__ import annotations

import numpy as np
import pytest

from sodium_prep.anat.fractions import noise_sd, tissue_fractions
from sodium_prep.anat.mixture import Mixture, posterior
from sodium_prep.errors import InputError
from tests.anat.heads import MEANS, make_head


def test_bias_and_fractions_of_a_known_head():
    head = make_head(1.0, bias=0.4, noise=0.03, seed=3)
    found = tissue_fractions(head.t1w, head.brain, head.affine)
    pure = head.wm > 0.95
    residual = np.log(found.bias[pure] / head.bias[pure])
    assert residual.std() < 0.01
    for name, part, truth in (("GM", found.gm, head.gm), ("WM", found.wm, head.wm), ("CSF", found.csf, head.csf)):
        assert part.sum() == pytest.approx(truth[head.brain].sum(), rel=0.03), name
        assert np.sqrt(np.mean((part - truth)[head.brain] ** 2)) < 0.1, name
    assert found.means["WM"] / found.means["GM"] == pytest.approx(MEANS["wm"] / MEANS["gm"], rel=0.02)
    total = found.gm + found.wm + found.csf
    assert np.allclose(total[head.brain], 1, atol=1e-5)
    assert not np.any(total[~head.brain])
    assert found.noise_sd == pytest.approx(0.03 * MEANS["wm"], rel=0.1)
    assert not found.prior_driven


def test_posterior_fractions_are_calibrated():
    # Of voxels drawn from the model, those with an expected fraction f hold f on average: the mark of a posterior mean.
    rng = np.random.default_rng(1)
    model = Mixture(np.array([0.3, 0.65, 1.0]), np.full(3, 0.04), np.array([0.1, 0.2, 0.3, 0.15, 0.25]))
    kind = rng.choice(5, 200_000, p=model.shares)
    # Across a border blurred by a Gaussian, three tenths of the shares lie below 15 %, and as many above 85 %.
    share = np.interp(rng.uniform(size=kind.size), [0.0, 0.3, 0.7, 1.0], [0.0, 0.15, 0.85, 1.0])
    white = np.select([kind == 4, kind == 3], [1.0, share], 0.0)
    fluid = np.select([kind == 0, kind == 1], [1.0, share], 0.0)
    clean = 0.65 + 0.35 * white - 0.35 * fluid
    values = clean + 0.04 * rng.standard_normal(kind.size)
    _, fractions = posterior(model, values, np.repeat(model.shares[:, None], kind.size, axis=1))
    assert fractions[2].mean() == pytest.approx(white.mean(), abs=0.004)
    for low in np.arange(0.05, 0.95, 0.1):
        bin_ = (fractions[2] > low) & (fractions[2] <= low + 0.1)
        assert white[bin_].mean() == pytest.approx(fractions[2][bin_].mean(), abs=0.03)


def test_deep_grey_is_grey_up_to_its_border():
    head = make_head(2.0, noise=0.02, seed=4)
    # A ball as bright as a thalamus, and a label that reaches 2 mm too far into white matter.
    where = np.argwhere(head.wm > 0.99)
    centre = where[np.argmin(np.abs((where @ head.affine[:3, :3].T + head.affine[:3, 3]) - (-28, -20, 28)).sum(axis=1))]
    r = 2.0 * np.linalg.norm(np.indices(head.wm.shape).transpose(1, 2, 3, 0) - centre, axis=-1)
    t1w = np.where((r < 8) & (head.wm > 0.5), 780.0, head.t1w).astype(np.float32)
    label = np.where(r < 9.9, 10, 0)
    found = tissue_fractions(t1w, head.brain, head.affine, deep_grey=label)
    assert found.gm[r < 6].mean() > 0.9
    ring = (r > 8.9) & (r < 9.9) & (head.wm > 0.99)
    assert found.wm[ring].mean() > 0.85
    assert np.allclose((found.gm + found.wm + found.csf)[head.brain], 1, atol=1e-5)


def test_image_without_t1_contrast_is_refused_or_follows_the_priors():
    head = make_head(3.0, seed=5)
    rng = np.random.default_rng(0)
    flat = np.where(head.brain, 700.0, 100.0) + 20 * rng.standard_normal(head.brain.shape)
    with pytest.raises(InputError, match="no T1-weighted contrast"):
        tissue_fractions(flat.astype(np.float32), head.brain, head.affine)
    priors = np.stack([head.gm, head.wm, head.csf])
    found = tissue_fractions(flat.astype(np.float32), head.brain, head.affine, priors=priors)
    assert found.prior_driven
    assert np.allclose(found.gm[head.brain], (head.gm / priors.sum(axis=0).clip(1e-6))[head.brain], atol=1e-5)
    assert np.allclose((found.gm + found.wm + found.csf)[head.brain], 1, atol=1e-5)


def test_noise_of_a_smooth_image():
    rng = np.random.default_rng(2)
    ramp = np.add.outer(np.linspace(0, 50, 40), np.zeros((40, 40)))
    noisy = (500 + ramp + 7.0 * rng.standard_normal(ramp.shape)).astype(np.float32)
    assert noise_sd(noisy, np.ones(noisy.shape, bool)) == pytest.approx(7.0, rel=0.03)
