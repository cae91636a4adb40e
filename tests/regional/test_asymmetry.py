"""Ratios within a scan: their stated errors against the spread of repeated scans, and what must cancel."""

from dataclasses import replace

import numpy as np
import pytest
import scipy.fft

from sodium_prep.pvc.estimators import fit_mask, labbe
from sodium_prep.pvc.forward import push_compartments
from sodium_prep.pvc.psf import PsfModel
from sodium_prep.pvc.sensitivity import motion_covariance
from sodium_prep.quant.calibration import CalibrationLine
from sodium_prep.regional.asymmetry import asymmetry, concentrations_over_gain, ratio, side_pairs
from sodium_prep.regional.designs import Region, build_designs
from sodium_prep.regional.estimates import Signals
from sodium_prep.regional.signals import regional_signals
from sodium_prep.regional.table import regional_table
from tests.pvc import heads
from tests.regional.test_table import (
    EXACT,
    EXACT_LINE,
    EXACT_PSF,
    FLOOR,
    GAIN,
    NOISE,
    RELAXATIONS,
    image,
    pick,
    without_errors_of_anatomy,
)

__all__ = ["image"]
PSF = PsfModel("acquisition", heads.ACQUISITION)
PAIRS = (("hippocampus-L", "hippocampus-R"), ("ventricle-L", "ventricle-R"))


def index(left, right):
    return 200.0 * (left - right) / (left + right)


def test_stated_error_is_the_spread_over_scans_with_noise(image, monkeypatch):
    """Of noise alone: anatomy and PSF are exact here."""
    without_errors_of_anatomy(monkeypatch)
    head = heads.analytic_compartments()
    found = regional_signals(
        image, heads.AFFINE, NOISE, head, heads.rigid(), heads.ACQUISITION, EXACT, EXACT_PSF, registration_sd_mm=0.0,
        estimators=("none", "labbe"), voxel_kernel="mean",
    )  # fmt: skip
    rows = regional_table(found, {"vials": EXACT_LINE})
    blurred = push_compartments(head, heads.rigid(), heads.SHAPE, heads.AFFINE, PSF, EXACT, voxel_kernel="mean")
    mask = fit_mask(blurred, head.names, head.kinds, np.ones(heads.SHAPE, bool))
    system = labbe(blurred, image, mask, NOISE, head.kinds)
    fit, merged = system.fit(), system.fit(build_designs(head)[2].membership)
    rng, shape = np.random.default_rng(3), (*heads.SHAPE, 2)
    root = np.sqrt(NOISE.spectrum)
    signals, hippocampi = {"none": [], "labbe": []}, []
    for _ in range(150):
        both = scipy.fft.ifftn(root * scipy.fft.fftn(rng.standard_normal(shape).view(complex)[..., 0])) * NOISE.sd
        drawn = np.stack([both.real, both.imag])
        signals["labbe"].append(fit.values[:, None] + fit.response(drawn[:, mask]))
        hippocampi.append(merged.response(drawn[:, mask])[2])
        signals["none"].append(found.means.weights[:7] @ (image + drawn).reshape(2, -1).T)
    for estimator, parts in signals.items():
        values = np.concatenate(parts, axis=1) - FLOOR
        for left, right in PAIRS:
            row = pick(rows, left, "L", estimator)
            spread = np.std(index(values[head.names.index(left)], values[head.names.index(right)]), ddof=1)
            assert row["asymmetry_stderr"] == pytest.approx(spread, rel=0.12)  # 300 draws know it to 4 %
            assert pick(rows, right, "R", estimator)["asymmetry"] == row["asymmetry"]
    assert pick(rows, "hippocampus-L", "L")["asymmetry"] == pytest.approx(index(55.0, 48.0), abs=0.2)
    assert pick(rows, "Cortex", "both")["asymmetry"] is None
    # Rows of different fits: a hippocampus on its own, and both as one.
    names = [(r.name, r.hemisphere) for r in found.regions]
    one, both = names.index(("hippocampus-L", "L")), names.index(("Hippocampus", "both"))
    parts = np.concatenate(signals["labbe"], axis=1)[2], np.concatenate(hippocampi)
    stated = found.by_estimator["labbe"].covariance[np.ix_([one, both], [one, both])]
    np.testing.assert_allclose(stated, np.cov(parts), rtol=0.2)
    assert stated[0, 1] > 0.5 * stated[1, 1]


def test_stated_error_holds_all_that_does_not_cancel():
    """Two regions whose noise, motion, relaxation and intercept are drawn as the error model has them."""
    keys = [("GM", "t1_s"), ("GM", "t2star_slow_s")]
    sds = {keys[0]: 0.03, keys[1]: 0.05}
    covariance = np.array([[4.0, 2.5], [2.5, 5.0]])
    pair = Signals(
        np.array([420.0, 350.0]), np.diag(covariance), np.zeros(2), np.zeros(2), {keys[0]: np.array([40.0, -60.0])},
        np.array([0.8, 0.75]), {keys[0]: np.array([0.5, 0.5]), keys[1]: np.array([0.9, 0.2])}, np.zeros(2, bool),
        covariance,
    )  # fmt: skip
    line = CalibrationLine(30.0, 11.0, np.array([[9.0, -2.0], [-2.0, 1e4]]))
    stated = asymmetry(*concentrations_over_gain(pair, sds, line), 0, 1)
    rng, n = np.random.default_rng(11), 200_000
    t = pair.values + rng.standard_normal((n, 2)) @ np.linalg.cholesky(covariance).T
    log_factor = np.zeros((n, 2))
    for key in keys:
        off = sds[key] * rng.standard_normal((n, 1))
        t += off * pair.slopes.get(key, 0.0)
        log_factor += off * pair.log_slopes[key]
    u = (t - line.intercept - 3.0 * rng.standard_normal((n, 1))) / (pair.factors * np.exp(log_factor))
    drawn = index(u[:, 0], u[:, 1])
    assert stated[0] == pytest.approx(index(390.0 / 0.8, 320.0 / 0.75))
    assert stated[1] == pytest.approx(drawn.std(), rel=0.02)


def test_the_gain_cancels_and_a_shared_relaxation_hardly_counts(image):
    head = heads.analytic_compartments()

    def estimate(relaxations):
        found = regional_signals(
            image, heads.AFFINE, NOISE, head, heads.rigid(), heads.ACQUISITION, relaxations, PSF,
            estimators=("labbe",), voxel_kernel="mean",
        )  # fmt: skip
        lines = {"vials": EXACT_LINE, "doubtful": CalibrationLine(FLOOR, 0.7 * GAIN, np.diag([0.0, 9.0]))}
        return regional_table(found, lines)

    rows = estimate(RELAXATIONS)
    sure, doubtful = (pick(rows, "hippocampus-L", "L", reference=name) for name in ("vials", "doubtful"))
    assert doubtful["tsc_stderr"] > 3.0 * sure["tsc_stderr"]
    for column in ("asymmetry", "asymmetry_stderr"):
        assert doubtful[column] == pytest.approx(sure[column], rel=1e-12)
    off = {
        t: replace(r, t1_s=r.t1_s + 2 * r.t1_sd_s, t2star_slow_s=0.9 * r.t2star_slow_s) for t, r in RELAXATIONS.items()
    }
    wrong = pick(estimate(off), "hippocampus-L", "L")
    assert abs(wrong["tsc"] / sure["tsc"] - 1.0) > 0.03
    assert wrong["asymmetry"] == pytest.approx(sure["asymmetry"], abs=0.2)


def test_motions_move_regions_together():
    rng = np.random.default_rng(2)
    motion = rng.standard_normal((3, 12))
    s = 0.7 * rng.standard_normal((100_000, 6))
    moved = s @ motion[:, :6].T + 0.5 * s**2 @ motion[:, 6:].T
    stated = motion_covariance(motion, 0.7)
    np.testing.assert_allclose(stated, moved.T @ moved / len(s), atol=0.03 * np.abs(stated).max())


def test_ratio_of_sums():
    values, covariance = np.array([6.0, 2.0, 4.0, np.nan]), np.diag([0.09, 0.04, 0.16, np.nan])
    found, sd = ratio(values, covariance, np.array([1.0, 0, 0, 0]), np.array([0, 0.5, 0.5, 0]))
    assert found == pytest.approx(2.0)
    assert sd == pytest.approx(2.0 * np.hypot(0.3 / 6.0, np.hypot(0.1, 0.2) / 3.0))
    assert np.isnan(ratio(values, covariance, np.array([1.0, 0, 0, 0]), np.array([0, 0, 0, 1.0]))).all()
    assert np.isnan(ratio(-values, covariance, np.array([1.0, 0, 0, 0]), np.array([0, 1.0, 0, 0]))).all()


def test_counterparts_have_one_name_but_for_the_side():
    names = [
        (17, "Left-Hippocampus", "L", "GM"), (53, "Right-Hippocampus", "R", "GM"), (None, "Hippocampus", "L", "GM"),
        (None, "Hippocampus", "R", "GM"), (None, "Hippocampus", "both", "GM"), (1, "ctx-lh-insula", "L", "GM"),
        (2, "Tract_L", "L", "WM"), (3, "Tract_R", "R", "WM"), (4, "Tract_R", "R", "GM"), (5, "x-lh", "L", "GM"),
        (6, "lh-x", "L", "GM"), (7, "rh-x", "R", "GM"),
    ]  # fmt: skip
    regions = [Region(index, name, side, tissue, (i,)) for i, (index, name, side, tissue) in enumerate(names)]
    assert side_pairs(regions) == {0: (0, 1), 1: (0, 1), 2: (2, 3), 3: (2, 3), 6: (6, 7), 7: (6, 7)}
