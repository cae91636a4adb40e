"""Model files: TOML and BIDS Stats-Models, and what is refused in them."""

import json

import pytest

from sodium_prep.cohort.model import MODEL_FIELDS, GroupModel, find_control, read_model
from sodium_prep.errors import UsageError

STATS_MODEL = {
    "Name": "groups",
    "BIDSModelVersion": "1.0.0",
    "Nodes": [
        {
            "Level": "Dataset",
            "Name": "groups",
            "GroupBy": [],
            "Transformations": {
                "Transformer": "pybids-transforms-v1",
                "Instructions": [{"Name": "Factor", "Input": ["diagnosis", "scanner"]}],
            },
            "Model": {"Type": "glm", "X": [1, "diagnosis", "age", "sex", "scanner", "csf_fraction"]},
            "Contrasts": [
                {"Name": "ADvsHC", "ConditionList": ["diagnosis.AD", "diagnosis.HC"], "Weights": [1, -1], "Test": "t"}
            ],
        }
    ],
}


def test_every_field_is_written_with_what_it_is_and_reads_back_equal(tmp_path):
    chosen = {
        "group": 'dia"gnosis', "control": "NA", "contrasts": (("NA", "001"), ("NA", "é\\")), "regions": (),
        "negative_controls": ("Cuneus",), "robust": True, "time": "years", "event": "died", "event_time": "months",
        "travelling": tmp_path / "phantoms.tsv", "harmonisation": "travelling", "alpha": 0.01,
        "exclude_qc": (), "scores": ("ALSFRS-R",),
    }  # fmt: skip
    for model in (GroupModel(), GroupModel(**chosen)):
        text = model.to_toml()
        for name, what in MODEL_FIELDS.items():
            assert f"# {what}\n" in text
            assert f"\n{name} = " in text or f"\n# {name} is not set\n" in text
        (tmp_path / "model.toml").write_text(text)
        assert read_model(tmp_path / "model.toml") == model


def test_a_relative_path_starts_at_the_model_file(tmp_path):
    (tmp_path / "model.toml").write_text('harmonisation = "travelling"\ntravelling = "phantoms.tsv"\n')
    assert read_model(tmp_path / "model.toml").travelling == tmp_path / "phantoms.tsv"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('covariate = ["age"]', r"covariate is not a known key\. Did you mean covariates"),
        ('robust = "yes"', "robust is 'yes'"),
        ("robust = 1", "robust is 1"),
        ('regions = "Cortex"', "regions is 'Cortex'"),
        ("covariates = [1]", r"covariates\.0 is 1"),
        ('contrasts = [["a", "b", "c"]]', r"contrasts\.0"),
        ('contrasts = [["a", "a"]]', "compares a group with itself"),
        ('covariates = ["group"]', "which is the group"),
        ('tissue_covariates = ["tsc"]', "tissue_covariates holds tsc"),
        ("alpha = nan", "alpha is"),
        ("seed = 1979-05-27", "seed is '1979-05-27'"),
        ('event = "died"', "need each other"),
        ('harmonisation = "neuro"', "harmonisation is 'neuro'"),
        ("group = ", "is not valid TOML"),
        ("x = " + "[" * 5000, "is not valid TOML"),
    ],
)
def test_a_wrong_model_is_refused_in_one_line(tmp_path, text, words):
    path = tmp_path / "model.toml"
    path.write_text(text)
    with pytest.raises(UsageError, match=words) as caught:
        read_model(path)
    assert str(caught.value).startswith(str(path))
    assert "\n" not in str(caught.value)


def stats_model(tmp_path, **node):
    record = {**STATS_MODEL, "Nodes": [{**STATS_MODEL["Nodes"][0], **node}]}
    path = tmp_path / "model.json"
    path.write_text(json.dumps(record))
    return path


def test_the_data_set_level_of_a_stats_model_is_understood(tmp_path):
    model = read_model(stats_model(tmp_path))
    assert model.group == "diagnosis"
    assert model.contrasts == (("HC", "AD"),)  # AD minus HC
    assert model.covariates == ("age", "sex", "scanner")
    assert model.categories == ("sex", "scanner")
    assert model.tissue_covariates == ("csf_fraction",)
    dummies = {"Test": "t", "Contrasts": ["diagnosis"]}
    plain = read_model(stats_model(tmp_path, Contrasts=[], DummyContrasts=dummies))
    assert (plain.group, plain.contrasts) == ("diagnosis", ())


def contrast(**change):
    return {"Contrasts": [{**STATS_MODEL["Nodes"][0]["Contrasts"][0], **change}]}


@pytest.mark.parametrize(
    ("node", "words"),
    [
        ({"Level": "Run"}, "Level is 'Run'"),
        ({"GroupBy": ["subject"]}, "GroupBy"),
        ({"Model": {"X": ["diagnosis"]}}, "no intercept"),
        ({"Model": {"X": [1, "diagnosis", "diagnosis:age"]}}, "diagnosis:age"),
        ({"Model": {"X": [1, "diagnosis"], "Formula": "0 + diagnosis"}}, "Formula"),
        ({"Model": {"X": [1, "diagnosis"], "Type": "meta"}}, "Type is 'meta'"),
        ({"Transformations": {"Instructions": [{"Name": "Demean", "Input": ["age"]}]}}, "'Demean'"),
        ({"HRF": {"Model": "spm"}}, "HRF"),
        (contrast(Weights=[1, 1]), "no difference of two groups"),
        (contrast(ConditionList=["diagnosis.AD"], Weights=[1]), "no difference of two groups"),
        (contrast(ConditionList=["sex.F", "diagnosis.AD"]), "labels of one column"),
        (contrast(Test="F"), "Test 'F'"),
        ({"DummyContrasts": {"Test": "t"}}, "DummyContrasts asks for more"),
        ({"DummyContrasts": {"Test": "t", "Contrasts": ["age"]}}, "not of one column"),
    ],
)
def test_what_a_stats_model_asks_for_and_is_not_done_is_refused(tmp_path, node, words):
    with pytest.raises(UsageError, match=words) as caught:
        read_model(stats_model(tmp_path, **node))
    assert "\n" not in str(caught.value)


def test_a_control_group_is_found_by_its_spelling_if_there_is_one():
    assert find_control(["AD", "Healthy Controls"]) == "Healthy Controls"
    assert find_control(["AD", "NA"]) is None
    assert find_control(["AD", "HC", "control"]) is None  # which of them?
