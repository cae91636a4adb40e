"""Groups of regions against published lists, on the tables of real atlases."""

from __future__ import annotations

import pytest

from sodium_prep.atlas.bundled import load_atlas
from sodium_prep.atlas.groups import GROUPS, MAIN, PRESETS, SIDES, group_records, groups_of, missing_note
from sodium_prep.atlas.tables import RESERVED_NAMES
from sodium_prep.errors import UsageError


def columns(table):
    return [table[column].tolist() for column in ("name", "hemisphere", "structure", "tissue")]


def group(name):
    (found,) = {one for groups in GROUPS.values() for one in groups if one.name == name}
    return found


def names_of(name, side, table):
    return {table["name"].iloc[i] for i in group(name).members(*columns(table), side)}


@pytest.fixture(scope="module")
def table():
    return load_atlas().table


# FreeSurfer's own division of its Desikan-Killiany parcels (wiki page CorticalParcellation), in its order there.
PUBLISHED = {
    "FrontalLobe": (
        "superiorfrontal rostralmiddlefrontal caudalmiddlefrontal parsopercularis parstriangularis parsorbitalis "
        "lateralorbitofrontal medialorbitofrontal precentral paracentral frontalpole"
    ),
    "ParietalLobe": "superiorparietal inferiorparietal supramarginal postcentral precuneus",
    "TemporalLobe": (
        "superiortemporal middletemporal inferiortemporal bankssts fusiform transversetemporal entorhinal "
        "temporalpole parahippocampal"
    ),
    "OccipitalLobe": "lateraloccipital lingual cuneus pericalcarine",
    "CingulateCortex": "rostralanteriorcingulate caudalanteriorcingulate posteriorcingulate isthmuscingulate",
    "InsularCortex": "insula",
    "ADSignature": "entorhinal inferiortemporal middletemporal fusiform",
    "MotorCortex": "precentral paracentral",
    "LateralTemporal": "superiortemporal middletemporal inferiortemporal transversetemporal bankssts",
    "TemporalPole": "temporalpole",
    "Entorhinal": "entorhinal",
    "Precuneus": "precuneus",
}


@pytest.mark.parametrize(("name", "parcels"), PUBLISHED.items())
def test_members_are_those_published(table, name, parcels):
    for side, code in (("L", "lh"), ("R", "rh")):
        assert names_of(name, side, table) == {f"ctx-{code}-{parcel}" for parcel in parcels.split()}
    assert names_of(name, "both", table) == names_of(name, "L", table) | names_of(name, "R", table)


def test_lobes_divide_the_cortex(table):
    found = [name for one in GROUPS["lobes"] for name in names_of(one.name, "both", table)]
    assert len(found) == len(set(found)) == 68
    cortex = set(table.loc[table["structure"] == "cortex", "name"])
    assert cortex - set(found) == {"ctx-lh-unknown", "ctx-rh-unknown"}


def test_subcortical_groups(table):
    assert names_of("MesialTemporal", "L", table) == {
        "ctx-lh-entorhinal", "ctx-lh-parahippocampal", "Left-Hippocampus", "Left-Amygdala",
    }  # fmt: skip
    assert names_of("CorpusCallosum", "L", table) == set()
    assert {name[:3] for name in names_of("CorpusCallosum", "both", table)} == {"CC_"}
    assert names_of("Thalami", "both", table) == {"Left-Thalamus-Proper", "Right-Thalamus-Proper"}
    assert len(names_of("BasalGanglia", "both", table)) == 8
    newer = table.replace({"name": {f"{side}-Thalamus-Proper": f"{side}-Thalamus" for side in ("Left", "Right")}})
    assert names_of("Thalami", "L", newer) == {"Left-Thalamus"}


def test_main_groups_go_by_structure(table):
    assert [one.name for one in MAIN] == ["Cortex", "WhiteMatter", "Hippocampus", "CSF"]
    assert len(names_of("Cortex", "R", table)) == 35
    assert "Left-VentralDC" not in names_of("CSF", "both", table)
    assert len(names_of("Cortex", "both", load_atlas("destrieux").table)) == 150


def test_a_group_that_is_not_whole_is_not_there(table):
    without = table[table["name"] != "ctx-lh-fusiform"]
    assert names_of("ADSignature", "L", without) == set()
    assert names_of("ADSignature", "both", without) == set()
    assert len(names_of("ADSignature", "R", without)) == 4
    # The DKT protocol dropped the banks of the superior temporal sulcus and both poles.
    dropped = [f"ctx-{side}-{name}" for side in ("lh", "rh") for name in ("bankssts", "frontalpole", "temporalpole")]
    dkt = table[~table["name"].isin(dropped)]
    assert len(names_of("TemporalLobe", "L", dkt)) == 7
    assert len(names_of("FrontalLobe", "both", dkt)) == 20
    # Gyri and sulci of Destrieux do not make up the lobes of another protocol.
    other = load_atlas("destrieux").table
    assert not any(names_of(one.name, side, other) for one in GROUPS["lobes"] for side in SIDES)
    assert names_of("MesialTemporal", "both", other) == set()
    assert len(names_of("BasalGanglia", "both", other)) == 8


def test_presets_are_chosen_by_name():
    assert groups_of(()) == MAIN
    own = tuple(one for one in GROUPS["als"] if one not in GROUPS["lobes"])
    assert groups_of(("als", "lobes")) == groups_of(("lobes", "main", "als")) == MAIN + GROUPS["lobes"] + own
    assert len(own) == 3
    names = [one.name for one in groups_of(PRESETS)]
    assert len(names) == len(set(names))
    lesion = {f"Lesion{part}" for part in ("", "RimGM", "RimWM", "MirrorGM", "MirrorWM")}
    assert {*names, *lesion, "Sulcal-CSF"} == set(RESERVED_NAMES)
    cortex, *_, insula = group_records(groups_of(("lobes",)))
    assert cortex == {"Name": "Cortex", "Tissue": "GM", "Structure": "cortex"}
    assert insula["Parts"] == [["insula"]]
    assert "Klein" in insula["Citation"]
    for record in group_records(groups_of(PRESETS))[len(MAIN) :]:
        assert record.get("Citation") or record.get("Reason"), record
    with pytest.raises(UsageError, match="no preset 'parkinson'"):
        groups_of(("parkinson",))


def test_the_run_tells_which_rows_an_atlas_cannot_give(table):
    told = missing_note(groups_of(PRESETS), *columns(table))
    assert "CorticospinalTract (corticospinal_tract, cerebral_peduncle, posterior_limb_of_internal_capsule)" in told
    assert told.count("(") == 1
    assert "--atlas" in told
    assert missing_note(groups_of(("ad", "epilepsy", "lobes")), *columns(table)) == ""
    # The corpus callosum is one midline structure: its row for both sides is all there can be.
    without = table[~table["name"].isin(["ctx-lh-insula", "Left-Amygdala", "Right-Amygdala"])]
    assert "InsularCortex" not in missing_note(groups_of(PRESETS), *columns(without))
    assert "; Amygdala (amygdala)" in missing_note(groups_of(PRESETS), *columns(without))
