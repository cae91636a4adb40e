"""Methods text: only what ran, every citation resolved, numbered in order of appearance."""

import re

import pytest

from sodium_prep.report.bibliography import BIBLIOGRAPHY
from sodium_prep.report.methods import build_methods
from sodium_prep.settings import ESTIMATORS

EVERYTHING = {
    "software": {"sodium_prep": "1.0", "nipype": "1.11.0", "numpy": "2.3.5"},
    "recon": {
        "method": "gridding",
        "trajectory": "DA-3DPR",
        "n_spokes": 8000,
        "n_coils": 8,
        "kspace_filter": "hamming",
    },
    "receive": {"method": "pair"},
    "anatomy": {"contrast": "T1w", "n4": True, "brain_extraction": "template"},
    "fractions": {"method": "joint"},
    "lesion": True,
    "longitudinal": True,
    "normalisation": {"method": "SyN", "template": "MNI152NLin6Asym"},
    "atlas": {"name": "desikan-killiany"},
    "registration": {"methods": ["ants", "greedy"]},
    "psf": {"kind": "acquisition", "fwhm_mm": {"GM": 5.2, "WM": 5.24}},
    "relaxation": {"field_strength_t": 7.0, "sources": ["Niesporek et al., MAGMA 2017 (7 T)"]},
    "calibration": {"references": ["vials", "CSF"], "n_vials": 4, "intercept": "free"},
    "regional": {"estimators": [*ESTIMATORS], "free_csf": True, "noise_covariance": True},
    "quality": {"raters": True, "n_excluded": 2},
    "comparison": {"covariates": ["age", "sex"], "tissue_covariates": ["volume"], "negative_controls": ["Putamen"],
                   "robust": True, "weights": True},
    "harmonisation": {"method": "site", "shown": True},
    "normative": {"n_controls": 12, "covariates": ["age"]},
    "longitudinal_change": {"covariates": ["age"]},
    "correlation": {"scores": ["MMSE"], "methods": ["spearman", "pearson"], "covariates": ["age"]},
    "classification": {"folds": 5, "bootstraps": 1000},
    "survival": {"covariates": ["age"]},
    "reliability": {"repeat": "two runs of a session"},
    "voxelwise": {"statistic": "tfce", "permutations": 5000},
}  # fmt: skip


def test_citations_are_numbered_in_order_and_complete():
    text = build_methods(EVERYTHING)
    body = "\n".join(paragraph for _, paragraph in text.paragraphs)
    assert "{" not in body
    cited = [int(n) for group in re.findall(r"\[([\d, ]+)\]", body) for n in group.split(", ")]
    assert list(dict.fromkeys(cited)) == [r.number for r in text.references] == list(range(1, len(text.references) + 1))
    assert len({r.key for r in text.references}) == len(text.references)
    assert "5.2 mm in GM and 5.2 mm in WM" in body
    assert "niesporek2017" in {r.key for r in text.references}
    assert "riemer2018" not in {r.key for r in text.references}


@pytest.mark.parametrize("step", sorted(EVERYTHING))
def test_a_step_that_did_not_run_leaves_no_sentence(step):
    full = build_methods(EVERYTHING).paragraphs
    without = build_methods(EVERYTHING | {step: None})
    assert len(without.paragraphs) == len(full) - 1
    assert build_methods({step: EVERYTHING[step]}).paragraphs


def body(ran):
    return "\n".join(paragraph for _, paragraph in build_methods(ran).paragraphs)


def test_what_came_from_derivatives_is_said_and_not_claimed():
    anatomy = {"n4": False, "brain_extraction": "derivatives", "taken": ["brain mask", "tissue fractions"],
               "derivatives": "mylab"}  # fmt: skip
    text = body({"anatomy": anatomy, "fractions": None})
    assert "taken from mylab: brain mask and tissue fractions." in text
    assert "N4" not in text
    assert "extracted" not in text
    assert "for nothing else" in body({"anatomy": anatomy | {"n4": True}})


def keys(ran):
    return {r.key for r in build_methods(ran).references}


def test_programs_whose_output_was_taken_are_cited():
    anatomy = {"taken": ["brain mask"], "derivatives": "fmriprep, my-FreeSurfer-7, fastsurfer, synthseg, other"}
    assert keys({"anatomy": anatomy}) == {"esteban2019", "fischl2012", "henschel2020", "billot2023"}
    text = body({"anatomy": anatomy})
    assert "fmriprep [1], my-FreeSurfer-7 (FreeSurfer [2]), fastsurfer [3], synthseg [4] and other" in text


def test_registrations_of_sodium():
    two = {"registration": {"methods": ["ants", "greedy"]}}
    assert keys(two) == {"avants2011", "yushkevich2016"}
    assert "2 times, independently" in body(two)
    assert "normalised mutual information" in body(two)
    one = {"registration": {"methods": ["greedy"]}}
    assert keys(one) == {"yushkevich2016"}
    assert "independently" not in body(one)
    assert "stepping stone" in body({"registration": {"methods": ["ants", "greedy"], "coil_proton": True}})
    assert "stepping stone" not in body(two)


def test_the_way_of_the_atlas_is_told_only_where_it_leads_through_two_templates():
    direct = {"method": "greedy", "template": "MNI152NLin6Asym", "via": None, "fast": False}
    assert keys({"normalisation": direct}) == {"evans2012", "yushkevich2016"}
    assert "warp between" not in body({"normalisation": direct})
    other = direct | {"method": "ants", "template": "MNI152NLin2009cAsym", "via": "MNI152NLin6Asym", "fast": True}
    text = body({"normalisation": other})
    assert "carried to MNI152NLin2009cAsym by a warp between the two templates" in text
    assert "reduced effort" in text
    assert "reached" not in text
    more = body({"normalisation": direct | {"further": ["MNI152NLin2009cAsym", "mine"]}})
    assert "MNI152NLin2009cAsym and mine were reached from there by a warp between the templates" in more
    assert "registration alone" in body({"normalisation": direct | {"method": "affine"}})


def test_what_is_said_of_sites_is_what_was_done():
    kept = {"harmonisation": {"method": "site"}}
    assert keys(kept) == {"nygaard2016"}
    assert "ComBat" not in body(kept)
    combat = {"harmonisation": {"method": "combat"}}
    assert keys(combat) == {"johnson2007", "fortin2018", "nygaard2016"}
    assert "the site stayed in the models" in body(combat)


def test_voxelwise_tests_name_their_statistic():
    assert keys({"voxelwise": {"statistic": "tfce", "permutations": 5000}}) == {"smith2009", "winkler2014"}
    mass = {"voxelwise": {"statistic": "cluster"}}
    assert keys(mass) == {"winkler2014"}
    assert "mass of clusters" in body(mass)


def test_lesion_and_longitudinal_speak_only_where_they_are_true():
    assert keys({"lesion": True, "longitudinal": True}) == {"brett2001", "reuter2012"}
    assert build_methods({"lesion": False, "longitudinal": False}).paragraphs == ()


def test_atlases_are_told_with_version_licence_and_source():
    mine = {"name": "lab atlas", "version": "2.1", "licence": "CC-BY 4.0", "citation": "Doe J. An atlas. 2020."}
    text = body({"atlas": mine})
    assert text == (
        "Regions are those of the atlas lab atlas. Version: 2.1. Licence: CC-BY 4.0. Source: Doe J. An atlas. 2020."
    )
    own = {"name": "desikan-killiany", "citation": "Desikan RS et al."}
    assert keys({"atlas": own}) == {"desikan2006", "fischl2002", "notter2019"}
    assert "Source" not in body({"atlas": own})
    both = {"name": "desikan-killiany; jhu tracts", "citation": "Desikan RS et al.; Mori S et al."}
    text = body({"atlas": both})
    assert "replaced by those of jhu tracts" in text
    assert "Mori S" in text


def test_what_was_found_on_the_way_is_said():
    assert keys({"recon": {"method": "vendor", "floor_removed": True}}) == {"gudbjartsson1995"}
    assert "3 repeat scans" in body({"recon": {"method": "vendor", "n_runs": 3}})
    assert "refined" in body({"registration": {"method": "ants", "refined": True}})
    assert "refined" not in body({"registration": {"method": "ants"}})
    line = build_methods({"calibration": EVERYTHING["calibration"]})
    assert "york2004" in {r.key for r in line.references}
    assert "vials and cerebro" in line.paragraphs[0][1]
    widths = {"CSF": 4.4, "GM": 5.2, "WM": 5.3}  # as JSON sorts them
    assert "5.2 mm in GM, 5.3 mm in WM and 4.4 mm in CSF" in body({"psf": {"kind": "acquisition", "fwhm_mm": widths}})


def test_the_psf_is_told_with_its_window_and_where_it_comes_from():
    told = body({"psf": {"kind": "acquisition", "window": "a Hann window", "reason": "x, told from the noise"}})
    assert "with a Hann window included" in told
    assert "told from the power spectrum of the noise" in told
    plain = body({"psf": {"kind": "acquisition", "window": "no window", "reason": "computed"}})
    assert "window" not in plain
    assert "images of a point that the user gave" in body({"psf": {"kind": "measured", "fwhm_mm": {"all": 6.0}}})


def test_vendor_images_claim_no_reconstruction():
    text = build_methods({"recon": {"method": "vendor", "trajectory": "DA-3DPR", "n_coils": 32}})
    assert text.references == ()
    assert "scanner" in text.paragraphs[0][1]


def test_unknown_step_is_refused_and_braces_from_outside_stay():
    with pytest.raises(ValueError, match="recno"):
        build_methods({"recno": {}})
    assert "{brain}" in build_methods({"atlas": {"name": "my {brain} [1]"}}).paragraphs[0][1]


def test_markdown_lists_every_reference_with_a_usable_address():
    text = build_methods(EVERYTHING)
    markdown = text.to_markdown()
    assert all(f"{r.number}. {r.text}" in markdown for r in text.references)
    assert not re.search(r"https://\S*[<>]", markdown)


def test_bibliography_entries_are_whole():
    for key, source in BIBLIOGRAPHY.items():
        assert source.text.endswith("."), key
        assert not source.doi or source.doi.startswith("10."), key
