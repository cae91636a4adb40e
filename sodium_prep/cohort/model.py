"""What the group level fits: a small TOML file, or the data set level of a BIDS Stats-Model."""

from __future__ import annotations

import difflib
import json
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Final, Literal, NoReturn, Self

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError, model_validator

from sodium_prep.errors import UsageError

MAIN_REGIONS: Final[tuple[str, ...]] = ("Cortex", "WhiteMatter", "Hippocampus", "CSF")
CONTROL_LABELS: Final[frozenset[str]] = frozenset(
    {"control", "controls", "con", "ctrl", "ctl", "hc", "hcs", "nc", "cn", "healthy", "normal", "healthycontrol",
     "healthycontrols", "normalcontrol", "normalcontrols"}
)  # fmt: skip
"""Spellings of a control group, without case, blanks, ``-`` and ``_``."""
TISSUE_COLUMNS: Final[dict[str, str]] = {
    "volume_mm3": "volume",
    "gm_fraction": "share of grey matter",
    "wm_fraction": "share of white matter",
    "csf_fraction": "share of CSF",
    "csf_signal_fraction": "share of CSF in the signal",
}
"""Columns of the regional table that can be held constant, each region with its own, and their names in print."""

Name = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=200)]
Names = tuple[Name, ...]


class GroupModel(BaseModel):
    """The model of a cohort; every field has a default. ``MODEL_FIELDS`` says what each field is."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    group: Name = Field("group", description="Column of participants.tsv or sessions.tsv that names the groups.")
    control: Name | None = Field(
        None,
        description="Label of the control group. Not set: the one that spells control, HC, CN, healthy or the like.",
    )
    contrasts: tuple[tuple[Name, Name], ...] = Field(
        (), description="Pairs of groups, second minus first. Empty: every group minus the control, else all pairs."
    )
    regions: Names = Field(
        (),
        description="Regions under test, which make a family. Empty: those without a label of the atlas, which are the "
        'main ones and those of --regions. "*": all.',
    )
    hemispheres: tuple[Literal["L", "R", "both"], ...] = Field(
        ("both",), min_length=1, description="Sides under test: L, R, both."
    )
    negative_controls: Names = Field(
        (), description="Regions where no difference is expected: always reported, in no family."
    )
    estimators: Names = Field((), description="Partial volume corrections to test. Empty: all of the tables.")
    references: Names = Field((), description="References of concentration to test. Empty: all of the tables.")
    covariates: Names = Field(("age", "sex", "site"), description="Columns that the adjusted model holds constant.")
    categories: Names = Field(
        ("sex", "site"), description="Those covariates that are categories. All others are numbers."
    )
    tissue_covariates: Names = Field(
        ("volume_mm3", "csf_fraction"),
        description="Columns of the regional table that the tissue-adjusted model holds constant besides.",
    )
    harmonisation: Literal["site", "combat", "travelling", "none"] = Field(
        "site",
        description="How sites are dealt with: site (in the model), combat or travelling (which scale the values, with "
        "the site in the model besides), none.",
    )
    robust: bool = Field(False, description="Fit the adjusted model by Huber's M estimator too.")
    weights: bool = Field(False, description="Fit the adjusted model with weights by the values' standard errors too.")
    scores: Names = Field((), description="Columns with numbers to correlate with, such as MMSE or ALSFRS-R.")
    roc: bool = Field(False, description="How well regions tell the groups apart, cross-validated.")
    time: Name | None = Field(None, description="Column of sessions.tsv with the years since baseline.")
    event_time: Name | None = Field(None, description="Column with the time to an event or to the end of follow-up.")
    event: Name | None = Field(None, description="Column that says whether the event came: 1 or 0.")
    onset: Name | None = Field(None, description="Column with the hours since onset.")
    exclude_qc: tuple[Literal["warn", "fail"], ...] = Field(
        ("fail",), description="Quality verdicts that leave a scan out."
    )
    travelling: Path | None = Field(
        None,
        description="Table of a travelling phantom; a relative path starts at the model file. Not set: participants "
        "who were at several sites take its place.",
    )
    voxelwise: bool = Field(False, description="Compare maps voxel by voxel too.")
    map_statistic: Literal["tfce", "mass"] = Field(
        "tfce", description="What maps are tested by: tfce, or mass, that of clusters."
    )
    map_tissue: Literal["GM", "WM", "CSF", "none"] = Field(
        "GM", description="Tissue whose share of each voxel is held constant in a second comparison of maps, or none."
    )
    map_coverage: float = Field(
        0.9, gt=0.0, le=1.0, description="Share of the common brain that a participant's map must cover."
    )
    map_smoothing_mm: float = Field(
        0.0, ge=0.0, le=20.0, description="Width (FWHM) by which maps are smoothed besides the sodium image's own."
    )
    permutations: int = Field(1000, ge=1, le=1_000_000, description="Permutations of the voxel-wise comparison.")
    alpha: float = Field(0.05, gt=0.0, lt=1.0, description="Level below which a p value counts as a difference.")
    seed: int = Field(42, ge=0, lt=2**32, description="Seed of everything that is drawn at random.")

    @model_validator(mode="after")
    def _agree(self) -> Self:
        for name in ("regions", "negative_controls", "covariates", "tissue_covariates", "scores", "contrasts"):
            values = getattr(self, name)
            if len(set(values)) < len(values):
                raise ValueError(f"{name} names something twice")
        if any(first == second for first, second in self.contrasts):
            raise ValueError("contrasts compares a group with itself")
        if self.group in self.covariates:
            raise ValueError(f"covariates holds {self.group}, which is the group")
        if unknown := sorted(set(self.tissue_covariates) - set(TISSUE_COLUMNS)):
            raise ValueError(f"tissue_covariates holds {unknown[0]}; there are {', '.join(sorted(TISSUE_COLUMNS))}")
        if (self.event is None) != (self.event_time is None):
            raise ValueError("event and event_time need each other")
        if self.travelling is not None and self.harmonisation != "travelling":
            raise ValueError('travelling is of no use without harmonisation = "travelling"')
        if "*" in self.regions and len(self.regions) > 1:
            raise ValueError('regions names others beside "*"')
        return self

    @property
    def held_constant(self) -> tuple[str, ...]:
        """The covariates of the adjusted model: without the site where sites are not to be dealt with."""
        return tuple(name for name in self.covariates if name != "site" or self.harmonisation != "none")

    def to_toml(self) -> str:
        """Every field, what it is, and its value; :func:`read_model` reads it back."""
        import tomli_w

        lines = ["# The model of the group level. Give this file with --model to fit it again.", ""]
        for name, value in self.model_dump(mode="json").items():
            lines.append(f"# {MODEL_FIELDS[name]}")
            lines += [f"# {name} is not set" if value is None else tomli_w.dumps({name: value}).rstrip(), ""]
        return "\n".join(lines)


MODEL_FIELDS: Final[dict[str, str]] = {name: str(field.description) for name, field in GroupModel.model_fields.items()}
"""What each field of a model file is."""


def find_control(labels: Sequence[str]) -> str | None:
    """The label that spells a control group; None where none or more than one does."""
    found = [label for label in labels if "".join(c for c in label.casefold() if c not in " -_") in CONTROL_LABELS]
    return found[0] if len(found) == 1 else None


def read_model(path: Path) -> GroupModel:
    """Read a model file: TOML, or a BIDS Stats-Model if its name ends in ``.json``.

    Raises
    ------
    UsageError
        If it cannot be read, holds an unknown key or a value of the wrong type, or asks for what is not done here.
    """
    is_json = path.suffix == ".json"
    kind = "JSON" if is_json else "TOML"
    try:
        text = path.read_text(encoding="utf-8-sig")
        data = json.loads(text) if is_json else tomllib.loads(text)
    except OSError as error:
        raise UsageError(path, f"cannot be read ({error.strerror})", "Give a model file with --model") from error
    except (ValueError, RecursionError) as error:  # not UTF-8, TOML or JSON
        raise UsageError(path, f"is not valid {kind} ({error})", f"Write the model as {kind}") from error
    return model_from(_StatsModel(path).fields(data) if is_json else data, path)


def model_from(data: Mapping[str, Any], path: Path) -> GroupModel:
    """A model from the keys of a model file.

    Raises
    ------
    UsageError
        In one line, naming the first key that is wrong.
    """
    try:
        # As JSON: there, a list is a tuple and a text a path, and still nothing else is taken for what it is not.
        model = GroupModel.model_validate_json(json.dumps(data, default=str), strict=True)
    except ValidationError as error:
        fault = error.errors(include_url=False)[0]
        key = ".".join(str(part) for part in fault["loc"])
        if fault["type"] == "extra_forbidden":
            near = difflib.get_close_matches(key, MODEL_FIELDS, 1, 0.5)
            mend = f"Did you mean {near[0]}" if near else f"Known keys: {', '.join(MODEL_FIELDS)}"
            raise UsageError(path, f"{key} is not a known key", mend) from error
        if not key:
            raise UsageError(path, fault["msg"].removeprefix("Value error, "), "Mend the model file") from error
        problem = f"{key} is {_shown(fault['input'])}: {fault['msg'][0].lower()}{fault['msg'][1:]}"
        mend = f"{fault['loc'][0]}: {MODEL_FIELDS[str(fault['loc'][0])].rstrip('.')}"
        raise UsageError(path, problem, mend) from error
    if model.travelling is not None and not model.travelling.is_absolute():
        model = model.model_copy(update={"travelling": path.resolve().parent / model.travelling})
    return model


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _condition(text: str, columns: Sequence[str]) -> tuple[str, str]:
    """Column and label of ``column.label``; a column may itself have a dot in its name."""
    column = max((name for name in columns if text.startswith(f"{name}.")), default="", key=len)
    return column, text[len(column) + 1 :]


class _StatsModel:
    """Reads the data set level of a BIDS Stats-Model (bids-standard.github.io/stats-models, version 1)."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def refuse(self, what: str, mend: str) -> NoReturn:
        raise UsageError(self.path, what, mend)

    def known(self, block: object, name: str, keys: Sequence[str]) -> dict[str, Any]:
        """The block as a dictionary with no other keys than those; empty ones of others ask for nothing."""
        if not isinstance(block, dict):
            self.refuse(f"{name} is {_shown(block)} and no block of keys", "Write it as the BIDS Stats-Models have it")
        for key, value in block.items():
            if key not in keys and value not in ({}, [], None, False):
                self.refuse(f"{name} has {key}, which is not honoured here", "Remove it, or write the model as TOML")
        return block

    def names(self, value: object, name: str) -> list[str]:
        if not isinstance(value, list) or not all(isinstance(one, str) for one in value):
            self.refuse(f"{name} is {_shown(value)} and no list of names", "List columns by their names")
        return value

    def fields(self, data: object) -> dict[str, Any]:
        """The fields of :class:`GroupModel` that the file sets."""
        top = self.known(data, "the model", ("Name", "BIDSModelVersion", "Description", "Nodes"))
        if not str(top.get("BIDSModelVersion", "")).startswith("1."):
            self.refuse(
                f"BIDSModelVersion is {_shown(top.get('BIDSModelVersion'))}", "Models of version 1 are understood"
            )
        nodes = top.get("Nodes")
        if not isinstance(nodes, list) or len(nodes) != 1:
            self.refuse("Nodes must hold exactly one node, of Level Dataset", "Remove the others: tables are compared")
        keys = ("Level", "Name", "GroupBy", "Transformations", "Model", "Contrasts", "DummyContrasts")
        node = self.known(nodes[0], "the node", keys)
        if str(node.get("Level")).casefold() != "dataset":
            self.refuse(f"the node's Level is {_shown(node.get('Level'))}", "Only the level Dataset is fitted here")
        if node.get("GroupBy", []) not in ([], ["contrast"]):
            self.refuse(f"GroupBy {_shown(node['GroupBy'])} is not honoured here", "Remove it")
        columns = self.columns(node.get("Model"))
        factors = self.factors(node.get("Transformations"), columns)
        group, contrasts = self.contrasts(node, columns)
        tissue = [name for name in columns if name in TISSUE_COLUMNS]
        covariates = [name for name in columns if name != group and name not in tissue]
        found = {
            "group": group,
            "covariates": covariates,
            "categories": [name for name in covariates if name in factors or name in ("sex", "site")],
            "contrasts": contrasts,
        }
        return found | ({"tissue_covariates": tissue} if tissue else {})

    def columns(self, block: object) -> list[str]:
        """The columns of X without the intercept."""
        model = self.known(block, "Model", ("X", "Type"))
        if str(model.get("Type", "glm")).casefold() != "glm":
            self.refuse(f"Model.Type is {_shown(model['Type'])}", "The linear model, glm, is fitted here")
        x = model.get("X")
        if not isinstance(x, list) or not any(type(one) is int and one == 1 for one in x):
            self.refuse("Model.X holds no intercept", "Add 1 to X")
        names = self.names([one for one in x if not (type(one) is int and one == 1)], "Model.X")
        if products := [name for name in names if any(sign in name for sign in ":*?")]:
            self.refuse(f"Model.X holds {products[0]}, which is not honoured here", "Name columns only")
        return names

    def factors(self, block: object, columns: Sequence[str]) -> set[str]:
        """The columns that a Factor transformation makes categories."""
        steps = self.known(block or {}, "Transformations", ("Transformer", "Instructions")).get("Instructions", [])
        found: set[str] = set()
        for step in steps if isinstance(steps, list) else [steps]:
            one = self.known(step, "a transformation", ("Name", "Input"))
            if one.get("Name") != "Factor":
                self.refuse(f"the transformation {_shown(one.get('Name'))} is not honoured here", "Remove it")
            found |= set(self.names(one.get("Input"), "Factor.Input"))
        if other := sorted(found - set(columns)):
            self.refuse(f"Factor names {other[0]}, which Model.X does not hold", "Remove it, or add it to X")
        return found

    def contrasts(self, node: Mapping[str, Any], columns: Sequence[str]) -> tuple[str, list[list[str]]]:
        """The column of the groups, and pairs (first, second) of its labels."""
        pairs: list[list[str]] = []
        named: set[str] = set()
        for block in node.get("Contrasts") or []:
            one = self.known(block, "a contrast", ("Name", "ConditionList", "Weights", "Test"))
            label = f"the contrast {_shown(one.get('Name'))}"
            if one.get("Test", "t") != "t":
                self.refuse(f"{label} has Test {_shown(one['Test'])}", "Two groups are compared by a t test")
            conditions, weights = self.names(one.get("ConditionList"), "ConditionList"), one.get("Weights")
            if not isinstance(weights, list) or len(conditions) != 2 or weights not in ([1, -1], [-1, 1]):
                self.refuse(f"{label} is no difference of two groups", "Give two conditions with weights 1 and -1")
            split = [_condition(text, columns) for text in conditions]
            if split[0][0] != split[1][0] or not all(column and level for column, level in split):
                self.refuse(f"{label} is not of two labels of one column of X", "Write conditions as column.label")
            named.add(split[0][0])
            first, second = (split[0], split[1]) if weights == [-1, 1] else (split[1], split[0])
            pairs.append([first[1], second[1]])
        if dummy := node.get("DummyContrasts"):
            block = self.known(dummy, "DummyContrasts", ("Test", "Contrasts"))
            if block.get("Test", "t") != "t" or "Contrasts" not in block:
                self.refuse("DummyContrasts asks for more than a t test of the group", "List the group's column alone")
            named |= set(self.names(block["Contrasts"], "DummyContrasts.Contrasts"))
        named = named or ({"group"} & set(columns))
        if len(named) != 1 or not named <= set(columns):
            self.refuse(
                f"the contrasts are of {', '.join(sorted(named)) or 'no column'}, not of one column of X",
                "Contrast the labels of the column that holds the groups",
            )
        return named.pop(), pairs
