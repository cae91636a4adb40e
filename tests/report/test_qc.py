"""Quality metrics: verdicts at their limits."""

import json

import pytest

from sodium_prep.report.qc import THRESHOLDS, Threshold, evaluate, overall_verdict, qc_record


@pytest.mark.parametrize(
    ("value", "verdict"),
    [(8.0, "pass"), (7.99, "warn"), (4.0, "warn"), (3.99, "fail"), (None, "info"), (float("nan"), "warn")],
)
def test_verdict_at_the_limits(value, verdict):
    (metric,) = evaluate({"na_snr_wm": value})
    assert metric.verdict == verdict


@pytest.mark.parametrize("name", ["gm_tsc_mM", "wm_tsc_mM"])
@pytest.mark.parametrize("value", [-50.0, 5.0, 45.0, 500.0])
def test_published_ranges_never_fail(name, value):
    (metric,) = evaluate({name: value})
    assert metric.verdict == ("pass" if value == 45.0 else "warn")
    assert "doi:" in metric.source


def test_overall_verdict_is_the_worst_and_nothing_measured_is_not_a_pass():
    assert overall_verdict(evaluate({"na_snr_wm": 20.0, "coverage": 0.5, "cal_r2": None})) == "fail"
    assert overall_verdict(evaluate({"na_snr_wm": None, "my_metric": 3.0})) == "info"
    assert overall_verdict([]) == "info"


def test_every_metric_is_explained_and_provisional():
    for name, threshold in THRESHOLDS.items():
        assert threshold.explanation.endswith("."), name
        assert threshold.provisional, name
        assert threshold.text != "none", name


def test_text_of_limits():
    assert Threshold("", "", "", -5, None, 5, 20).text == "warn outside −5 to 5, fail > 20"


@pytest.mark.parametrize(("value", "verdict", "text"), [(0.0, "pass", "no"), (1.0, "warn", "yes")])
def test_yes_and_no(value, verdict, text):
    (metric,) = evaluate({"reg_flagged": value})
    assert (metric.verdict, metric.text, metric.threshold) == (verdict, text, "warn if yes")


@pytest.mark.parametrize(
    ("name", "good", "bad"),
    [
        ("reg_disagreement_mm", 1.0, 1.01),
        ("reg_sd_mm", 0.4, 0.6),
        ("template_gain", 0.0, -0.01),
        ("lost_regions", 0, 1),
    ],
)
def test_registrations_and_atlas_warn_and_never_fail(name, good, bad):
    assert [m.verdict for v in (good, bad, 1e3 * bad) for m in evaluate({name: v})] == ["pass", "warn", "warn"]


def test_record_is_json_with_the_verdict():
    record = json.loads(json.dumps(qc_record(evaluate({"coverage": 0.95, "reg_nmi": float("inf")})), allow_nan=False))
    assert record["Verdict"] == "warn"
    assert record["Metrics"]["coverage"]["value"] == 0.95
