"""Factors of sites against statsmodels, scipy and planted ones."""

import numpy as np
import pandas as pd
import pytest
import statsmodels.formula.api as smf
from numpy.testing import assert_allclose, assert_array_equal
from scipy import stats
from statsmodels.stats.anova import anova_lm

from benchmarks.harmonisation import intersite_cov, volunteers
from sodium_prep.cohort.travelling import (
    SITE_COLUMNS,
    apply_factors,
    phantom_factors,
    read_phantom,
    regions_differ,
    site_effects,
    travelling_factors,
)
from sodium_prep.errors import InputError

PLANTED = {"A": 1.0, "B": 1.10, "C": 0.92}


def table(seed=0, noise=0.02, csf=1.0, chain=True):
    """Volunteers at A and B, and (if a chain) others at B and C; CSF of site B is ``csf`` times more off."""
    rng = np.random.default_rng(seed)
    rows = []
    pairs = [("A", "B")] * 6 + ([("B", "C")] * 6 if chain else [("C", "C")] * 6)
    for who, sites in enumerate(pairs):
        for session, site in enumerate(sites):
            shared = rng.normal(0, noise)
            for region, mean in (("Cortex", 50.0), ("WhiteMatter", 40.0), ("CSF", 140.0)):
                tsc = mean * (1 + 0.02 * who) * PLANTED[site] * np.exp(shared + rng.normal(0, noise))
                tsc *= csf if (region, site) == ("CSF", "B") else 1.0
                rows.append(
                    {"participant_id": f"{who}", "session_id": f"{session}", "site": site, "region": region, "tsc": tsc,
                     "acquisition": "", "reconstruction": "", "atlas": "dk", "hemisphere": "both", "index": "",
                     "estimator": "gtm", "reference": "vials",
                     "tsc_stderr": 0.04 * tsc, "tsc_stderr_within": 0.03 * tsc}
                )  # fmt: skip
    return pd.DataFrame(rows)


def test_factors_of_an_unbalanced_chain_are_those_of_statsmodels():
    frame = table()
    frame = frame[frame["region"] == "Cortex"].drop(index=[0])
    frame = frame.assign(y=np.log(frame["tsc"]))
    who, site = (np.unique(frame[name], return_inverse=True)[1] for name in ("participant_id", "site"))
    fit = smf.ols("y ~ C(participant_id) + C(site)", frame).fit()
    found = site_effects(frame["y"], who, site, reference=0)
    names = ["C(site)[T.B]", "C(site)[T.C]"]
    assert_allclose(found.log_factor, [0.0, *fit.params[names]], atol=1e-12)
    assert_allclose(found.stderr, [0.0, *fit.bse[names]], atol=1e-12)
    assert_allclose([found.p, found.dof], [anova_lm(fit, typ=2).loc["C(site)", "PR(>F)"], fit.df_resid], rtol=1e-8)
    # relative to the geometric mean: the same differences, and the errors of sum-to-zero coding
    mean = site_effects(frame["y"], who, site)
    summed = smf.ols("y ~ C(participant_id) + C(site, Sum)", frame).fit()
    assert_allclose(mean.log_factor, found.log_factor - found.log_factor.mean(), atol=1e-12)
    assert_allclose(mean.stderr[:2], summed.bse[["C(site, Sum)[S.A]", "C(site, Sum)[S.B]"]], rtol=1e-8)


def test_regions_of_two_sites_are_compared_by_the_paired_t_test():
    y = np.random.default_rng(0).normal(size=(22, 2))
    who, site = np.repeat(np.arange(11), 2), np.tile([0, 1], 11)
    gain = (y[1::2] - y[::2]) @ [1.0, -1.0]
    assert_allclose(regions_differ(y, who, site), stats.ttest_1samp(gain, 0.0).pvalue, rtol=1e-8)


@pytest.mark.parametrize("noise", [(1, 1, 1, 1), (1, 1, 1, 5)])
def test_neither_what_regions_share_nor_a_noisy_one_makes_them_differ(noise):
    rng = np.random.default_rng(1)
    who, site = np.repeat(np.arange(11), 2), np.tile([0, 1], 11)
    y = 0.05 * rng.normal(size=(1000, 22, 1)) + 0.01 * np.array(noise) * rng.normal(size=(1000, 22, 4))
    assert 0.02 < np.mean([regions_differ(one, who, site) < 0.05 for one in y]) < 0.07


def test_planted_factors_lie_in_their_intervals_and_are_taken_out():
    factors = [travelling_factors(table(seed), per_region="never", reference_site="A") for seed in range(60)]
    used = pd.concat(f[f["applied"]] for f in factors)
    assert set(used["region"]) == {"all"}
    for site in ("B", "C"):
        one = used[used["site"] == site]
        covered = (one["factor_ci_low"] <= PLANTED[site]) & (PLANTED[site] <= one["factor_ci_high"])
        assert 0.85 < covered.mean() <= 1.0
        assert_allclose(one["factor"].mean(), PLANTED[site], rtol=0.005)
    frame, factor = table(0), factors[0]
    done = apply_factors(frame, factor)
    b, own = frame["site"] == "B", factor[(factor["site"] == "B") & factor["applied"]].iloc[0]
    assert_allclose(done["tsc"][b], frame["tsc"][b] / own["factor"])
    assert_allclose(done["tsc_stderr_within"][b] / done["tsc"][b], 0.03)
    assert_allclose(done["tsc_stderr"][b] / done["tsc"][b], np.hypot(0.04, own["log_stderr"]))
    assert_allclose(done[frame["site"] == "A"]["tsc_stderr"], frame[frame["site"] == "A"]["tsc_stderr"])


def test_regions_that_differ_get_factors_of_their_own():
    frame = table(csf=1.2)
    factors = travelling_factors(frame, reference_site="A")
    assert list(factors.columns)[5:] == list(SITE_COLUMNS)
    at_b = factors[factors["site"] == "B"].set_index("region")
    assert_array_equal(at_b["applied"], at_b.index != "all")
    assert_allclose(at_b.loc[["Cortex", "CSF"], "factor"], [1.10, 1.32], rtol=0.04)
    done = apply_factors(frame, factors)
    own = factors.set_index(["site", "region"])["factor"]
    assert_allclose(done["tsc"], frame["tsc"] / own[list(zip(frame["site"], frame["region"], strict=True))].to_numpy())
    # the reference itself is what it is; what was scaled by it has factors of its own
    by_csf = frame.assign(reference="CSF")
    others = travelling_factors(by_csf)
    assert set(others["region"]) == {"all", "Cortex", "WhiteMatter"}
    scaled = apply_factors(by_csf, others)
    csf = by_csf["region"] == "CSF"
    assert_array_equal(scaled["tsc"][csf], by_csf["tsc"][csf])
    assert (scaled["tsc"][~csf] != by_csf["tsc"][~csf]).all()


def test_the_inter_site_variation_of_riemer_falls_where_sites_differ():
    rng = np.random.default_rng(3)
    before, after = ({"WhiteMatter": 0.0, "Cortex": 0.0, "CSF": 0.0} for _ in range(2))
    for _ in range(25):
        values = volunteers(rng)
        scaled = apply_factors(values, travelling_factors(values, per_region="always"))
        for sums, frame in ((before, values), (after, scaled)):
            for region, cov in intersite_cov(frame).items():
                sums[region] += cov**2 / 25
    assert_allclose(np.sqrt(list(before.values())), [3.2, 3.2, 6.0], atol=0.35)
    assert_allclose(np.sqrt(list(after.values())), 3.16 * np.sqrt(10 / 11), atol=0.35)  # what their scans repeat within


def refused(call, *words):
    with pytest.raises(InputError) as caught:
        call()
    for word in words:
        assert word in str(caught.value)
    assert "\n" not in str(caught.value)


def test_sites_that_nothing_connects_are_refused():
    refused(lambda: travelling_factors(table(chain=False)), "A, B | C")
    refused(
        lambda: travelling_factors(table(), participants=["0", "1", "7"], reference_site="D"), "no site D", "A, B, C"
    )
    refused(lambda: travelling_factors(table(), participants=["0"]), "2 measurements of 1")
    refused(lambda: travelling_factors(table().drop(columns="site")), "no column site")
    factors = travelling_factors(table(), participants=[str(i) for i in range(6)])
    refused(lambda: apply_factors(table(), factors), "site C", "factors for A, B")
    known = table()[table()["site"] != "C"]
    unknown = apply_factors(known.assign(site=known["site"].replace("A", "")), factors)
    assert_array_equal(unknown["tsc"].isna(), known["site"] == "A")


def test_a_region_that_volunteers_lack_at_a_site_becomes_missing():
    frame = table(csf=1.2)
    frame.loc[(frame["region"] == "WhiteMatter") & (frame["site"] == "C"), "tsc"] = np.nan
    frame = pd.concat([frame, frame[frame["participant_id"] == "11"].assign(participant_id="new", tsc=40.0)])
    factors = travelling_factors(frame[frame["participant_id"] != "new"], reference_site="A")
    done = apply_factors(frame, factors)
    new = done[done["participant_id"] == "new"]
    assert_array_equal(new["tsc"].isna(), new["region"] == "WhiteMatter")
    # one volunteer of each pair of sites leaves no standard error, so the region's factor is not known either
    alone = table(csf=1.2)
    alone.loc[(alone["region"] == "WhiteMatter") & ~alone["participant_id"].isin(["0", "6"]), "tsc"] = np.nan
    found = travelling_factors(alone, per_region="always").set_index("region")
    assert found.loc["WhiteMatter", "factor"].isna().all()
    assert found.loc["CSF", "factor"].notna().all()


def test_a_phantom_gives_one_factor_whatever_its_tubes_hold(tmp_path):
    rng = np.random.default_rng(5)
    rows = ["site\tlabel\tconcentration\tmeasured"]
    for label, told, true in (("t1", 30, 31.5), ("t2", 60, 60), ("t3", 120, 118)):
        for site, factor in PLANTED.items():
            rows.append(f"{site}\t{label}\t{told}\t{true * factor * np.exp(rng.normal(0, 0.005)):.4f}")
    path = tmp_path / "phantom.tsv"
    path.write_text("\n".join(rows) + "\n")
    found = phantom_factors(read_phantom(path), reference_site="A")
    assert_allclose(found["factor"], list(PLANTED.values()), rtol=0.015)
    assert_array_equal(found["dof"], 4)
    assert (found["log_stderr"] < 0.01).all()
    values = table()
    assert_allclose(
        apply_factors(values, found)["tsc"], values["tsc"] / values["site"].map(found.set_index("site")["factor"])
    )
    for old, new, words in (
        ("\t60\t", "\t61\t", "the tube t2"),
        ("\t120\t", "\t0.12M\t", "concentration of row 7"),
        ("label", "tube", "label"),
    ):
        path.write_text("\n".join(rows).replace(old, new, 1) + "\n")
        refused(lambda: read_phantom(path), "phantom.tsv", words)
