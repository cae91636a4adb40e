"""Regional signal of a weighted image relative to white matter."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from sodium_prep.quant.weighted import CAUTION
from sodium_prep.regional.designs import Region
from sodium_prep.regional.relative import RELATIVE_COLUMNS, relative_table

REGIONS = (
    Region(17, "Left-Hippocampus", "L", "GM", (0,)),
    Region(None, "Cortex", "both", "GM", (1,)),
    Region(None, "WhiteMatter", "L", "WM", (2,)),
    Region(None, "WhiteMatter", "both", "WM", (2, 3)),
    Region(None, "CSF", "both", "CSF", (4,)),
)


def _signals(values, covariance):
    n = len(REGIONS)
    means = SimpleNamespace(sd=np.full(n, 4.0), n_voxels=np.full(n, 50), coverage=np.ones(n))
    none = SimpleNamespace(values=values, covariance=covariance)
    return SimpleNamespace(regions=REGIONS, by_estimator={"none": none}, means=means, volumes_mm3=np.full(n, 1e3))


def test_values_are_ratios_whose_errors_know_what_both_regions_share():
    values = np.array([50.0, 45.0, 31.0, 30.0, 0.5])
    shared = np.random.default_rng(0).standard_normal((5, 5))
    covariance = 0.2 * shared @ shared.T
    rows = relative_table(_signals(values, covariance), "IR")
    assert [list(row) for row in rows] == [list(RELATIVE_COLUMNS)] * len(rows)
    np.testing.assert_allclose([row["relative_signal"] for row in rows], values / 30.0)
    draws = np.random.default_rng(1).multivariate_normal(values, covariance, 20_000)
    np.testing.assert_allclose(
        [row["relative_stderr"] for row in rows], (draws / draws[:, 3:4]).std(axis=0), rtol=0.03, atol=1e-12
    )
    assert [row["flag"] for row in rows] == ["ok", "ok", "ok", "ok", "uncertain"]
    assert rows[0]["relative_sd"] == pytest.approx(4.0 / 30.0)
    assert {row["caution"] for row in rows} == {CAUTION}


def test_without_white_matter_nothing_is_relative_to_it():
    values = np.array([50.0, 45.0, np.nan, np.nan, 0.5])
    rows = relative_table(_signals(values, np.eye(5)), "TQ")
    assert {row["flag"] for row in rows} == {"absent"}
    assert np.isnan([row["relative_signal"] for row in rows]).all()
