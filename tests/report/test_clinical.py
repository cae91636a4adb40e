"""Tables of asymmetry and lesion: which rows, which estimator, which reference."""

from sodium_prep.report.clinical import clinical_tables

NAN = float("nan")


def row(name, side, tsc, *, index=NAN, estimator="labbe", reference="vials", **others):
    known = {"tsc_ci_low": tsc - 2.0, "tsc_ci_high": tsc + 2.0, "volume_mm3": 2500.0, "flag": "ok"}
    empty = dict.fromkeys(("asymmetry", "asymmetry_stderr", "mirror_ratio", "mirror_ratio_stderr"), NAN)
    key = {"index": index, "name": name, "hemisphere": side, "estimator": estimator, "reference": reference}
    return key | {"tsc": tsc} | known | empty | others


def sides(name, left, right, ai, sd, **others):
    return [
        row(name, side, tsc, asymmetry=ai, asymmetry_stderr=sd, **others) for side, tsc in (("L", left), ("R", right))
    ]


def test_merged_regions_of_both_sides_by_the_first_reference():
    table = [
        *sides("Hippocampus", 55.0, 50.0, 9.5238, 4.04),
        row("Hippocampus", "both", 52.4),
        *sides("Hippocampus", 71.0, 70.0, 1.4, 1.0, estimator="none"),
        *sides("Hippocampus", 44.0, 40.0, 9.4, 4.0, reference="CSF"),
        *sides("Left-Hippocampus", 55.0, 50.0, 9.5, 4.0, index=17),
        *sides("Sulcal-CSF", 140.0, 140.0, 0.0, 1.0),
        *sides("Insula", NAN, 50.0, NAN, NAN),
        row("CorpusCallosum", "both", 35.0),
    ]
    (found,) = clinical_tables(table, "vials")
    assert found["rows"] == [
        ["Hippocampus", "55.0 [53.0, 57.0]", "50.0 [48.0, 52.0]", "9.5 ± 4.0"],
        ["Insula", "n/a", "50.0 [48.0, 52.0]", "n/a"],
    ]
    assert "by vials" in found["caption"]
    plain = [one for one in table if one["estimator"] == "none"]
    (found,) = clinical_tables(plain, "vials")
    assert found["rows"][0][-1] == "1.4 ± 1.0"
    assert "Not corrected" in found["caption"]


def test_a_lesion_stands_first_with_its_parts_in_order():
    table = [
        *sides("Cortex", 45.0, 45.0, 0.0, 1.0),
        row("LesionMirrorWM", "both", 35.0),
        row("LesionRimWM", "both", 52.0, mirror_ratio=1.486, mirror_ratio_stderr=0.031, flag="uncertain"),
        row("Lesion", "both", 80.0, mirror_ratio=2.2857, mirror_ratio_stderr=0.05),
    ]
    lesion, asymmetry = clinical_tables(table, "vials")
    assert [line[0] for line in lesion["rows"]] == ["Lesion", "Rim, white matter", "Mirror image, white matter"]
    assert lesion["rows"][0][1:] == ["2.5 ml", "80.0 [78.0, 82.0]", "2.29 ± 0.05", ""]
    assert lesion["rows"][1][3:] == ["1.49 ± 0.03", "uncertain"]
    assert lesion["rows"][2][3] == ""
    assert len(asymmetry["rows"]) == 1


def test_without_a_reference_there_is_nothing_to_show():
    assert clinical_tables([], None) == []
