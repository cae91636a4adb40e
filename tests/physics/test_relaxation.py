"""The table of relaxation times: what was published, and what is said where nothing was."""

from __future__ import annotations

import pytest

from sodium_prep.errors import InputError
from sodium_prep.physics.relaxation import TISSUES, Relaxation, field_note, measured_fields_t, tissue_relaxation


def test_published_values_stand_as_published():
    # Riemer 2018 (3 T) and Niesporek 2017 (7 T), milliseconds with their standard deviations.
    published = {
        ("GM", 3.0): (3.9, 0.5, 26.3, 2.6),
        ("WM", 3.0): (3.4, 0.2, 23.5, 1.8),
        ("GM", 7.0): (5.4, 0.2, 36.4, 3.1),
        ("WM", 7.0): (3.5, 0.1, 23.3, 2.6),
    }
    for (tissue, field), times in published.items():
        r = tissue_relaxation(tissue, field)
        found = (r.t2star_fast_s, r.t2star_fast_sd_s, r.t2star_slow_s, r.t2star_slow_sd_s)
        assert [1e3 * value for value in found] == pytest.approx(times)
    assert tissue_relaxation("GM", 2.8936) == tissue_relaxation("GM", 3.0)
    assert measured_fields_t() == [3.0, 7.0]
    for tissue in TISSUES:
        r = tissue_relaxation(tissue, 3.0)
        assert r.citation
        assert r.t1_citation
        assert min(r.t1_sd_s, r.t2star_slow_sd_s) > 0.0


def test_between_measured_fields_times_are_interpolated_and_less_sure():
    low, middle, high = (tissue_relaxation("GM", field) for field in (3.0, 5.0, 7.0))
    assert middle.t2star_slow_s == pytest.approx(0.5 * (low.t2star_slow_s + high.t2star_slow_s))
    # One standard uncertainty reaches either end.
    assert middle.t2star_slow_sd_s > 0.5 * (high.t2star_slow_s - low.t2star_slow_s)
    assert middle.t1_sd_s == pytest.approx(low.t1_sd_s)
    near = tissue_relaxation("GM", 3.3)
    assert low.t2star_slow_s < near.t2star_slow_s < middle.t2star_slow_s
    assert low.t2star_slow_sd_s < near.t2star_slow_sd_s < middle.t2star_slow_sd_s
    assert "between 3 T and 7 T" in middle.citation


@pytest.mark.parametrize(("field", "nearest"), [(1.5, 3.0), (9.4, 7.0)])
def test_beyond_measured_fields_the_nearest_is_taken_and_trusted_less(field, nearest):
    here, there = tissue_relaxation("GM", field), tissue_relaxation("GM", nearest)
    assert (here.t1_s, here.t2star_slow_s, here.fraction_fast) == (there.t1_s, there.t2star_slow_s, there.fraction_fast)
    for name in ("t1_sd_s", "t2star_slow_sd_s", "t2star_fast_sd_s"):
        assert getattr(here, name) > getattr(there, name)
    # Halving the field costs 10 % of T1, whose two published values do not differ.
    if field == 1.5:
        assert here.t1_sd_s**2 == pytest.approx(there.t1_sd_s**2 + (0.1 * there.t1_s) ** 2)
    assert "nearest" in (field_note(field) or "")
    assert field_note(nearest) is None


def test_fluids_relax_alike_at_every_field():
    assert len({tissue_relaxation("CSF", field) for field in (1.5, 3.0, 4.7, 7.0, 9.4)}) == 1


def test_a_study_replaces_single_values():
    known = tissue_relaxation("GM", 3.0)
    own = tissue_relaxation("GM", 3.0, {"t1_s": 0.0405, "t1_sd_s": 0.001})
    assert (own.t1_s, own.t1_sd_s, own.t2star_slow_s) == (0.0405, 0.001, known.t2star_slow_s)
    assert tissue_relaxation("GM", 3.0, {"t1_s": 0.0405}).t1_sd_s == known.t1_sd_s
    assert isinstance(own, Relaxation)
    with pytest.raises(InputError, match="above T2starSlow"):
        tissue_relaxation("GM", 3.0, {"t2star_slow_s": 0.002})
