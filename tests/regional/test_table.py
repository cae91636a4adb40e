"""The regional table on an analytic head: truth, intervals, invariances."""

from dataclasses import replace
from functools import lru_cache, partial

import numpy as np
import pytest

from sodium_prep.physics.relaxation import tissue_relaxation
from sodium_prep.physics.signal import signal_factor
from sodium_prep.pvc import fraction_errors
from sodium_prep.pvc.estimators import fit_mask
from sodium_prep.pvc.forward import push_compartments
from sodium_prep.pvc.fraction_errors import Slopes, with_borders_moved
from sodium_prep.pvc.noise import Noise
from sodium_prep.pvc.psf import PsfModel
from sodium_prep.quant.calibration import CalibrationLine
from sodium_prep.recon.noise import noise_power_spectrum
from sodium_prep.regional.designs import build_designs
from sodium_prep.regional.estimates import PSF_WIDTH, Signals
from sodium_prep.regional.signals import regional_signals
from sodium_prep.regional.table import TABLE_COLUMNS, csf_line, doubted_groups, regional_table
from tests.pvc import heads

COLUMNS = [
    "index", "name", "hemisphere", "tissue", "estimator", "reference", "n_voxels", "volume_mm3", "coverage", "tsc",
    "tsc_stderr_within", "tsc_stderr", "tsc_ci_low", "tsc_ci_high", "tsc_sd", "tsc_median", "gm_fraction",
    "wm_fraction", "csf_fraction", "spill_in_fraction", "csf_signal_fraction", "asymmetry", "asymmetry_stderr",
    "mirror_ratio", "mirror_ratio_stderr", "flag",
]  # fmt: skip
RELAXATIONS = {t: tissue_relaxation(t, 3.0) for t in ("GM", "WM", "CSF", "extracerebral")}
EXACT = {
    t: replace(r, t1_sd_s=0.0, t2star_slow_sd_s=0.0, t2star_fast_sd_s=0.0, fraction_fast_sd=0.0)
    for t, r in RELAXATIONS.items()
}
GAIN, FLOOR = 12.0, 3.0
LINE = CalibrationLine(FLOOR, GAIN, np.array([[0.04, -0.01], [-0.01, 0.01]]))
EXACT_LINE = CalibrationLine(FLOOR, GAIN, np.zeros((2, 2)))
NOISE = Noise(
    np.full(heads.SHAPE, 6.0, np.float32), noise_power_spectrum(heads.SHAPE, (heads.VOXEL_MM,) * 3, heads.ACQUISITION)
)


def estimate(image, relaxations=RELAXATIONS, **options):
    return regional_signals(
        image,
        heads.AFFINE,
        options.pop("noise", NOISE),
        options.pop("head", None) or heads.analytic_compartments(),
        heads.rigid(),
        heads.ACQUISITION,
        relaxations,
        options.pop("psf", PsfModel("acquisition", heads.ACQUISITION)),
        voxel_kernel="mean",
        **options,
    )


@lru_cache
def exact_image():
    amounts = {
        name: GAIN * heads.TRUTH_MM[name] * float(signal_factor(heads.ACQUISITION, RELAXATIONS[part[0]]))
        for name, part in heads.PARTS.items()
    }
    return heads.analytic_image(amounts, sodium_to_t1w=heads.rigid()) + FLOOR


@pytest.fixture(scope="module")
def image():
    return exact_image()


@pytest.fixture(scope="module")
def signals(image):
    return estimate(image)


def pick(rows, name, hemisphere, estimator="labbe", reference="vials"):
    (row,) = [
        r
        for r in rows
        if (r["name"], r["hemisphere"], r["estimator"], r["reference"]) == (name, hemisphere, estimator, reference)
    ]
    return row


def test_columns_and_rows(signals):
    rows = regional_table(signals, {"vials": LINE, "CSF": EXACT_LINE})
    assert list(TABLE_COLUMNS) == COLUMNS
    assert all(list(row) == COLUMNS for row in rows)
    assert all("Description" in entry for entry in TABLE_COLUMNS.values())
    # Seven regions, hippocampus and CSF of each side, and cortex, white matter, hippocampus and CSF of both.
    assert len(rows) == (7 + 4 + 4) * 3 * 2
    assert len({tuple(row[k] for k in ("name", "hemisphere", "estimator", "reference", "index")) for row in rows}) == 90
    assert {row["index"] for row in rows if row["name"] in ("Cortex", "CSF")} == {None}


def test_concentrations_are_recovered_and_uncorrected_ones_are_not(signals):
    rows = regional_table(signals, {"vials": EXACT_LINE})
    for name in heads.PARTS:
        if heads.PARTS[name][1] == "region":
            for estimator in ("labbe", "gtm"):
                row = pick(rows, name, heads.PARTS[name][2], estimator)
                assert row["tsc"] == pytest.approx(heads.TRUTH_MM[name], rel=3e-3)
                assert row["tsc_ci_low"] < heads.TRUTH_MM[name] < row["tsc_ci_high"]
    assert pick(rows, "Cortex", "both")["tsc"] == pytest.approx(45.0, rel=3e-3)
    assert pick(rows, "WhiteMatter", "both")["tsc"] == pytest.approx(35.0, rel=3e-3)
    assert pick(rows, "CSF", "both")["tsc"] == pytest.approx(140.0, rel=3e-3)
    assert 48.0 < pick(rows, "Hippocampus", "both")["tsc"] < 55.0
    plain = pick(rows, "CSF", "both", "none")
    assert plain["tsc"] < 132.0
    assert plain["tsc_sd"] > 0.0
    assert plain["spill_in_fraction"] > 0.05
    assert plain["csf_fraction"] > 0.6
    assert pick(rows, "CSF", "both")["tsc_sd"] is None


def test_signal_of_csf_is_its_share_of_the_image(image, signals):
    fluid = {
        name: GAIN * heads.TRUTH_MM[name] * float(signal_factor(heads.ACQUISITION, RELAXATIONS["CSF"]))
        if part[0] == "CSF"
        else 0.0
        for name, part in heads.PARTS.items()
    }
    share = heads.analytic_image(fluid, sodium_to_t1w=heads.rigid()).ravel() / (image - FLOOR).mean()
    whole = (image - FLOOR).ravel() / (image - FLOOR).mean()
    expected = (signals.means.weights @ share) / (signals.means.weights @ whole)
    rows = regional_table(signals, {"vials": LINE})
    found = np.array([row["csf_signal_fraction"] for row in rows if row["estimator"] == "none"])
    np.testing.assert_allclose(found, expected, atol=3e-3)
    assert np.ptp(expected) > 0.5
    cortex = pick(rows, "cortex", "both")
    assert cortex["csf_signal_fraction"] > 1.5 * cortex["csf_fraction"]  # fluid outside shines in


def test_volume_coverage_and_composition(signals):
    row = pick(regional_table(signals, {"vials": LINE}), "hippocampus-L", "L", "none")
    assert row["volume_mm3"] == pytest.approx(4 / 3 * np.pi * 8 * 14 * 8, rel=5e-3)
    assert row["coverage"] == pytest.approx(1.0, abs=1e-3)
    assert row["gm_fraction"] + row["wm_fraction"] + row["csf_fraction"] == pytest.approx(1.0, abs=0.05)
    assert row["flag"] == "ok"


def test_intervals_hold_the_truth_with_noise_and_calibration(image):
    """Noise in the image, errors of line, fractions and PSF: 200 scans, each with a line of its own."""
    base = estimate(image, EXACT, registration_sd_mm=0.0, estimators=("labbe",))
    rng = np.random.default_rng(5)
    found = base.by_estimator["labbe"]
    truth = np.array([heads.TRUTH_MM.get(r.name, np.nan) for r in base.regions])
    chosen = np.flatnonzero(np.isfinite(truth))
    exact = FLOOR + GAIN * found.factors * np.nan_to_num(truth)
    covered = []
    root = np.linalg.cholesky(LINE.covariance)
    for _ in range(200):
        drawn = exact + rng.standard_normal(truth.size) * np.sqrt(found.noise_var + found.fraction_var)
        drawn += found.slopes[PSF_WIDTH] * base.shared_sd[PSF_WIDTH] * rng.standard_normal()
        intercept, slope = np.array([FLOOR, GAIN]) + root @ rng.standard_normal(2)
        line = CalibrationLine(intercept, slope, LINE.covariance)
        scan = replace(base, by_estimator={"labbe": replace(found, values=drawn)})
        rows = regional_table(scan, {"vials": line})
        covered.append([rows[i]["tsc_ci_low"] < truth[i] < rows[i]["tsc_ci_high"] for i in chosen])
    assert 0.92 < np.mean(covered) < 0.98


def test_intervals_hold_the_truth_with_wrong_relaxation_and_registration(image):
    """What the analysis assumes is drawn around what made the image; each estimate is the whole chain."""
    rng = np.random.default_rng(8)
    fields = {
        "t1_s": "t1_sd_s",
        "t2star_fast_s": "t2star_fast_sd_s",
        "t2star_slow_s": "t2star_slow_sd_s",
        "fraction_fast": "fraction_fast_sd",
    }
    covered = []
    head, psf = heads.analytic_compartments(), PsfModel("acquisition", heads.ACQUISITION)
    for _ in range(8):
        assumed = {
            tissue: replace(
                r, **{f: getattr(r, f) + getattr(r, sd) * rng.standard_normal() for f, sd in fields.items()}
            )
            for tissue, r in RELAXATIONS.items()
        }
        slip = heads.rigid(np.rad2deg(0.3 / 60.0) * rng.standard_normal(3), 0.3 * rng.standard_normal(3))
        found = regional_signals(
            image, heads.AFFINE, NOISE, head, slip @ heads.rigid(), heads.ACQUISITION, assumed, psf,
            voxel_kernel="mean", estimators=("labbe",),
        )  # fmt: skip
        for row in regional_table(found, {"vials": EXACT_LINE}):
            if row["name"] in heads.TRUTH_MM:
                covered.append(row["tsc_ci_low"] < heads.TRUTH_MM[row["name"]] < row["tsc_ci_high"])
    assert len(covered) == 56
    assert np.mean(covered) > 0.88


def test_errors_add_up_in_their_order(signals):
    wide = CalibrationLine(FLOOR, GAIN, np.array([[0.0, 0.0], [0.0, (0.1 * GAIN) ** 2]]))
    rows, exact = regional_table(signals, {"vials": wide}), regional_table(signals, {"vials": EXACT_LINE})
    for row, other in zip(rows, exact, strict=True):
        assert row["tsc_stderr_within"] == other["tsc_stderr_within"]
        assert 0.0 < row["tsc_stderr_within"] < other["tsc_stderr"] < row["tsc_stderr"]
        expected = np.hypot(other["tsc_stderr"], 0.1 * row["tsc"])
        assert row["tsc_stderr"] == pytest.approx(expected, rel=1e-6)
        assert row["tsc_ci_low"] < row["tsc"] < row["tsc_ci_high"]
        assert (
            row["tsc_ci_high"] - row["tsc"] > row["tsc"] - row["tsc_ci_low"]
        )  # Fieller leans to the side of high values


def test_receiver_gain_cancels(image, signals):
    louder = estimate(7.0 * image, noise=Noise(7.0 * NOISE.sd, NOISE.spectrum), estimators=("none", "labbe"))
    line = CalibrationLine(7.0 * FLOOR, 7.0 * GAIN, 49.0 * LINE.covariance)
    ours = [r for r in regional_table(signals, {"vials": LINE}) if r["estimator"] != "gtm"]
    for row, other in zip(ours, regional_table(louder, {"vials": line}), strict=True):
        for column in ("tsc", "tsc_stderr_within", "tsc_stderr", "tsc_ci_low", "tsc_ci_high", "spill_in_fraction"):
            assert other[column] == pytest.approx(row[column], rel=1e-4)


def test_csf_calibrates_itself_and_scales_the_rest(image):
    found = estimate(image - FLOOR, estimators=("labbe",))
    line = csf_line(found, 140.0, 5.0)
    assert line.slope == pytest.approx(GAIN, rel=3e-3)
    assert line.slope_sd / line.slope > 5.0 / 140.0
    rows = regional_table(found, {"CSF": line})
    assert pick(rows, "CSF", "both", reference="CSF")["tsc"] == pytest.approx(140.0, rel=2e-3)
    assert pick(rows, "white", "both", reference="CSF")["tsc"] == pytest.approx(35.0, rel=5e-3)


EXACT_PSF = PsfModel("acquisition", heads.ACQUISITION, relative_width_sd=0.0)


def without_errors_of_anatomy(monkeypatch):
    monkeypatch.setattr(fraction_errors, "BORDER_SD", 0.0)
    monkeypatch.setattr(fraction_errors, "FLUID_SD", 0.0)


def test_what_a_region_shares_with_the_csf_reference_is_no_error_of_it(image, monkeypatch):
    """All CSF is the reference of this head: whatever noise, motion and relaxation do, it has 140 by itself."""
    found = estimate(image - FLOOR, estimators=("labbe", "gtm"))
    rows = regional_table(found, {"CSF": csf_line(found, 140.0, 5.0)})
    fluid = pick(rows, "CSF", "both", reference="CSF")
    assert fluid["tsc_stderr_within"] > 0.1
    assert fluid["tsc_stderr"] == pytest.approx(5.0, rel=1e-3)
    assert fluid["tsc_ci_low"] == pytest.approx(140.0 / (1.0 + 1.96 * 5.0 / 140.0), rel=1e-3)
    assert pick(rows, "white", "both", reference="CSF")["tsc_stderr"] > 5.0 * 35.0 / 140.0

    # One parameter wrong by a standard deviation: the change that it makes is the error that is stated.
    without_errors_of_anatomy(monkeypatch)
    only = EXACT | {"CSF": replace(EXACT["CSF"], t2star_slow_sd_s=0.004)}
    quiet = {
        "noise": Noise(np.full(heads.SHAPE, 1e-4, np.float32)),
        "registration_sd_mm": 0.0,
        "estimators": ("labbe",),
        "psf": EXACT_PSF,
    }
    ends = []
    for step in (-0.004, 0.0, 0.004):
        times = only | {"CSF": replace(only["CSF"], t2star_slow_s=only["CSF"].t2star_slow_s + step)}
        one = estimate(image - FLOOR, times, **quiet)
        ends.append(regional_table(one, {"CSF": csf_line(one, 140.0, 1e-9)}))
    for name in ("cortex", "white", "hippocampus-L"):
        low, middle, high = (next(r for r in table if r["name"] == name) for table in ends)
        assert middle["tsc_stderr"] == pytest.approx(abs(high["tsc"] - low["tsc"]) / 2.0, rel=0.1, abs=0.01)


def test_transmit_field_changes_the_factor_only(image, signals):
    b1 = np.full(heads.SHAPE, 0.8)
    found = estimate(image, b1_plus=b1, estimators=("labbe",))
    before, after = signals.by_estimator["labbe"], found.by_estimator["labbe"]
    np.testing.assert_allclose(after.values, before.values, rtol=1e-6)
    ratio = float(
        signal_factor(heads.ACQUISITION, RELAXATIONS["GM"], 0.8) / signal_factor(heads.ACQUISITION, RELAXATIONS["GM"])
    )
    assert after.factors[0] / before.factors[0] == pytest.approx(ratio, rel=1e-4)
    # What the field is known to reaches the error: at 0.8 of 90 degrees the factor still rises with it.
    unsure = estimate(image, b1_plus=b1, b1_plus_sd=0.05, estimators=("labbe",))
    rows, wide = (regional_table(one, {"vials": EXACT_LINE}) for one in (found, unsure))
    gain = wide[0]["tsc_stderr"] ** 2 - rows[0]["tsc_stderr"] ** 2
    slope = after.log_slopes["GM", "b1_plus"][0]
    assert gain == pytest.approx((0.05 * slope * (after.values[0] - FLOOR) / (GAIN * after.factors[0])) ** 2, rel=1e-3)


def test_region_outside_the_data_is_absent_or_cut(image):
    usable = np.ones(heads.SHAPE, bool)
    usable[: heads.SHAPE[0] // 2 - 2] = False
    rows = regional_table(estimate(image, usable=usable, estimators=("none", "labbe")), {"vials": LINE})
    assert "cut" in pick(rows, "cortex", "both")["flag"]
    gone = pick(rows, "hippocampus-L", "L", "none")
    assert gone["flag"] == "absent"
    assert np.isnan(gone["tsc"])
    assert pick(rows, "hippocampus-R", "R")["tsc"] == pytest.approx(48.0, rel=0.02)


def test_merged_regions_are_columns_of_their_own():
    head = heads.analytic_compartments()
    fine, sides, both = build_designs(head)
    assert [r.name for r in fine.regions] == head.names[:7]
    assert [(r.name, r.hemisphere, r.members) for r in sides.regions] == [
        ("Hippocampus", "L", (2,)),
        ("Hippocampus", "R", (3,)),
        ("CSF", "L", (4,)),
        ("CSF", "R", (5,)),
    ]
    assert [(r.name, r.members) for r in both.regions] == [
        ("Cortex", (0,)),
        ("WhiteMatter", (1,)),
        ("Hippocampus", (2, 3)),
        ("CSF", (4, 5)),
    ]
    for design in (fine, sides, both):
        np.testing.assert_array_equal(design.membership.sum(axis=1), 1.0)


def test_relaxation_acts_on_factor_and_psf_together():
    """Both effects of a parameter are added before squaring: opposite ones cancel."""
    one = np.ones(1)
    key = ("GM", "t2star_slow_s")
    none = np.zeros((1, 1))
    found = Signals(
        10.0 * one, 0.0 * one, 0.0 * one, 0.0 * one, {key: 5.0 * one}, one, {key: 0.5 * one}, np.zeros(1, bool), none
    )
    assert found.signal_sd({key: 1.0}, 0.0)[1][0] == pytest.approx(0.0)
    opposed = replace(found, slopes={key: -5.0 * one})
    assert opposed.signal_sd({key: 1.0}, 0.0)[1][0] == pytest.approx(10.0)
    assert opposed.signal_sd({key: 1.0}, 0.0)[0][0] == 0.0


def test_values_that_the_sodium_image_contradicts_are_flagged():
    """A head whose cortex and fluid share their voxels otherwise than the fractions say, and the head as it is."""
    head, psf = heads.thin_cortex(), PsfModel("acquisition", heads.ACQUISITION)
    push = partial(
        push_compartments, sodium_to_t1w=heads.rigid(), sodium_shape=heads.SHAPE, sodium_affine=heads.AFFINE, psf=psf,
        relaxations=RELAXATIONS, voxel_kernel="mean",
    )  # fmt: skip
    inside = fit_mask(push(head), head.names, head.kinds, np.ones(heads.SHAPE, bool))
    to_native = np.linalg.solve(heads.AFFINE, np.linalg.solve(heads.rigid(), heads.T1W_AFFINE))
    factors = [float(signal_factor(heads.ACQUISITION, RELAXATIONS[tissue])) for tissue in head.tissues]
    amounts = GAIN * np.array([heads.TRUTH_MM[name] for name in head.names]) * factors
    for fluid, flagged in ((0.0, False), (-0.6, True)):
        true = with_borders_moved(head, np.array([[0.0] * 4, [fluid, 0, 0, 0]]), Slopes.over(inside), to_native)
        image = (amounts @ push(true)).reshape(heads.SHAPE)
        rows = regional_table(
            estimate(image, head=head, estimators=("none", "labbe", "joint")),
            {"vials": replace(EXACT_LINE, intercept=0.0)},
        )
        plain, joint = (pick(rows, "Cortex", "both", estimator) for estimator in ("labbe", "joint"))
        assert ("fractions" in plain["flag"].split("+")) == flagged
        assert ("Cortex" in doubted_groups(rows)) == flagged
        assert "fractions" not in joint["flag"]
        assert joint["tsc"] == pytest.approx(heads.TRUTH_MM["cortex"], rel=0.02)
