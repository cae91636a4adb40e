"""What the page shows of the anatomy and of the two registrations: figures, table, facts, reasons for gaps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from sodium_prep.report import figures
from sodium_prep.report.layout import slice_columns
from sodium_prep.report.page import Comparison, PrintedTable, ReportFigure, SummaryItem

Placed = tuple[NDArray[np.float32], NDArray[np.float64]]
"""Data in RAS order and their affine."""

_COMPARED: Final = {"registrationsecond": "registration", "templateaffine": "templatewarped"}
"""Figures that share a slider: first, on its left, to second, on its right."""

_PROGRAMS: Final = {
    "ants": "ANTs, mutual information",
    "greedy": "Greedy, normalised mutual information",
    "contrast": "Sodium contrast foretold from the anatomy",
    "proton": "By way of the coil's proton image",
}
_LINES: Final = "Lines come from the anatomical image and must fit the picture beneath them."


def alignment_figures(images: Mapping[str, Placed | None], facts: Mapping[str, Any]) -> dict[str, ReportFigure]:
    """Draw tissues, registrations and atlas.

    Parameters
    ----------
    images, facts
        As of :func:`sodium_prep.report.scan.draw_figures`.

    Returns
    -------
    Figures by name; those of :data:`_COMPARED` have one layout, and line up to the pixel.
    """
    t1w, affine = need(images, "t1w")
    brain, gm, wm, csf, labels, sodium = (
        need(images, name)[0] for name in ("brain_mask", "gm", "wm", "csf", "labels", "sodium_t1w")
    )
    lesion = _optional(images, "lesion")
    labels = labels.astype(np.int32)
    out: dict[str, ReportFigure] = {}

    def add(name: str, section: str, title: str, caption: str, svg: str, alt: str, label: str = "") -> None:
        out[name] = ReportFigure(section, title, caption, svg, alt=alt, wide=True, label=label)

    lines = figures.fit_contours(affine, brain, wm, csf, lesion=lesion)
    taken, other = _matrices(facts.get("reg_opinions") or ())
    first, second = _chosen_and_other(facts)
    for name, image, label, own, another in (
        ("registrationsecond", _optional(images, "sodium_second"), second, other, taken),
        ("registration", sodium, first, taken, other),
    ):
        if image is not None:
            moved = None if own is None or another is None else _moved_mask(brain, affine, own, another)
            both = figures.fit_contours(affine, brain, wm, csf, lesion=lesion, moved_mask=moved)
            svg = figures.fit(image, affine, both, extent=brain, through=lesion)
            alt = f"Sodium image placed by {label}, with brain mask, white matter and ventricles."
            add(name, "registration", "Sodium under the lines of the anatomy", _LINES, svg, alt, label)
    extra = "" if lesion is None else " The lesion has no tissue."
    add("tissues", "tissues", "Tissue fractions", f"Borders at one half.{extra}",
        figures.tissue_maps(t1w, affine, {"GM": gm, "WM": wm, "CSF": csf}, brain_mask=brain, lesion=lesion),
        "Grey matter, white matter, CSF and brain mask on the T1w image in three planes.")  # fmt: skip
    for name, key, label in (
        ("templateaffine", "template_affine", "affine registration"),
        ("templatewarped", "template_warped", "deformable registration"),
    ):
        image = _optional(images, key)
        if image is not None:
            svg = figures.fit(image, affine, lines, extent=brain, through=lesion, white=1.5)
            alt = f"Template brought to the anatomy by {label}, with brain mask, white matter and ventricles."
            add(name, "template", "Template under the lines of the anatomy", _LINES, svg, alt, label)
    add("atlas", "atlas", "Atlas regions on the anatomy", "The colours only separate neighbours.",
        figures.atlas_outlines(t1w, labels, affine), "Borders of the atlas regions on the anatomy.")  # fmt: skip
    add("atlassodium", "atlas", "Atlas regions on sodium", "The same on the sodium image.",
        figures.atlas_outlines(sodium, labels, affine, title="Atlas regions on sodium"),
        "Borders of the atlas regions on the sodium image.")  # fmt: skip
    return out


def need(images: Mapping[str, Placed | None], name: str) -> Placed:
    """An image without which nothing can be drawn.

    Raises
    ------
    ValueError
        If it is not there.
    """
    found = images.get(name)
    if found is None:
        raise ValueError(f"the image {name} is missing")
    return found


def _optional(images: Mapping[str, Placed | None], name: str) -> NDArray[np.float32] | None:
    found = images.get(name)
    return None if found is None else found[0]


def _program(name: str) -> str:
    return _PROGRAMS.get(name, name)


def _chosen_and_other(facts: Mapping[str, Any]) -> tuple[str, str]:
    """Names of the opinion that was taken and of the best other one."""
    opinions = facts.get("reg_opinions") or ()
    made = [opinion for opinion in opinions if opinion.get("shift_mm") is not None]
    chosen = [opinion["name"] for opinion in made if opinion.get("chosen")]
    others = [opinion["name"] for opinion in made if not opinion.get("chosen")]
    return (
        f"{_short(chosen[0])} (taken)" if chosen else "the registration taken",
        f"{_short(others[0])} (not taken)" if others else "the second registration",
    )


def _short(name: str) -> str:
    return _program(name).partition(",")[0]


def _matrices(
    opinions: Sequence[Mapping[str, Any]],
) -> tuple[NDArray[np.float64] | None, NDArray[np.float64] | None]:
    """Transforms of the opinion that was taken and of the best other one, where they are told."""
    found: dict[bool, NDArray[np.float64]] = {}
    for opinion in opinions:
        if opinion.get("matrix") is not None:
            found.setdefault(bool(opinion.get("chosen")), np.asarray(opinion["matrix"], dtype=float))
    return found.get(True), found.get(False)


def _moved_mask(
    brain: NDArray[np.float32],
    affine: NDArray[np.float64],
    own: NDArray[np.float64],
    other: NDArray[np.float64],
) -> NDArray[np.float32]:
    """The brain mask where another registration sees it in a sodium image placed by its own.

    A point q of the T1w lies, by the other one, at ``inv(other) q`` of the sodium image, which the figure shows at
    ``own inv(other) q``; both map points of the sodium image to points of the T1w (RAS, mm).
    """
    from scipy.ndimage import affine_transform

    pull = np.linalg.inv(affine) @ other @ np.linalg.inv(own) @ affine
    mask = (np.asarray(brain) > 0).astype(np.float32)
    return np.asarray(affine_transform(mask, pull[:3, :3], pull[:3, 3], order=1), dtype=np.float32)


def alignment_metrics(facts: Mapping[str, Any]) -> dict[str, float | None]:
    """Quality metrics of registrations and atlas, as far as the facts hold them."""
    names = ("reg_nmi", "reg_shift_mm", "reg_rotation_deg", "reg_disagreement_mm", "reg_sd_mm", "template_similarity")
    out: dict[str, float | None] = {name: facts[name] for name in names if facts.get(name) is not None}
    if facts.get("reg_flagged") is not None:
        out["reg_flagged"] = float(bool(facts["reg_flagged"]))
    before, after = facts.get("template_similarity_affine"), facts.get("template_similarity")
    if before is not None and after is not None:
        out["template_gain"] = after - before
    if facts.get("lost_regions") is not None:
        out["lost_regions"] = float(len(facts["lost_regions"]))
    return out


def alignment_warnings(facts: Mapping[str, Any]) -> list[str]:
    """What a reader must know before the regional values."""
    if facts.get("template_method") != "affine":
        return []
    return ["No deformable registration to the template was good enough: regions were placed by the affine one alone."]


def alignment_record(
    images: Mapping[str, Placed | None], facts: Mapping[str, Any], ran: Mapping[str, Any]
) -> dict[str, Any]:
    """Facts, table of opinions, remarks and reasons for what is absent, all as JSON; see :func:`alignment_sections`."""
    opinions = [
        {key: opinion.get(key) for key in ("name", "shift_mm", "turn_deg", "score", "chosen")}
        for opinion in facts.get("reg_opinions") or ()
    ]
    atlas = facts.get("atlas") or {}
    lost = list(facts.get("lost_regions") or ())
    pairs = {
        "registration": [
            ("Disagreement of the two programs", _measure(facts.get("reg_disagreement_mm"), "mm")),
            ("Uncertainty (SD)", _measure(facts.get("reg_sd_mm"), "mm")),
            ("Flagged", _yes(facts.get("reg_flagged"))),
            ("By way of a proton image of the sodium coil", _yes(facts.get("coil_proton"))),
        ],
        "tissues": [("Brain extraction", "; ".join(facts.get("brain_notes") or ()))],
        "template": [
            ("Method", str(facts.get("template_method") or "")),
            ("Similarity, affine", _measure(facts.get("template_similarity_affine"), "", 3)),
            ("Similarity, deformable", _measure(facts.get("template_similarity"), "", 3)),
            ("Attempts", "; ".join(facts.get("template_attempts") or ())),
        ],
        "atlas": [
            *((word.capitalize(), str(atlas.get(word) or "")) for word in ("name", "version", "space", "licence")),
            ("Citation", str(atlas.get("citation") or "")),
            ("Regions lost by warping", (", ".join(lost) or "none") if "lost_regions" in facts else ""),
        ],
    }
    remarks, missing = _reasons(images, facts, ran)
    return {
        "opinions": opinions,
        "facts": {section: [item for item in items if item[1]] for section, items in pairs.items()},
        "remarks": remarks,
        "missing": missing,
    }


def _reasons(
    images: Mapping[str, Placed | None], facts: Mapping[str, Any], ran: Mapping[str, Any]
) -> tuple[dict[str, list[str]], dict[str, str]]:
    """Sentences on what is absent from a section, and reasons for sections that are empty."""
    remarks: dict[str, list[str]] = {}
    if images.get("sodium_second") is None:
        reason = "a second registration was not made" if ran.get("registration") else "the transform was given"
        remarks["registration"] = [f"There is no second opinion to compare with: {reason}."]
    before, after = (images.get(name) is not None for name in ("template_affine", "template_warped"))
    if before != after:
        absent, present = ("deformable", "affine") if before else ("affine", "deformable")
        remarks["template"] = [f"Only the {present} registration is shown; the {absent} one left no image."]
    missing = {}
    if not before and not after:
        taken = facts.get("template_method") or ran.get("normalisation")
        why = "no image of the template was made" if taken else "regions and transforms came with the inputs"
        missing["template"] = why if taken else f"the template was not registered, as {why}"
    return remarks, missing


def _measure(value: float | None, unit: str, digits: int = 2) -> str:
    if value is None:
        return ""
    return f"{value:.{digits}f} {unit}".strip() if np.isfinite(value) else "n/a"


def _yes(value: bool | None) -> str:
    return "" if value is None else "yes" if value else "no"


def alignment_sections(report: Mapping[str, Any]) -> dict[str, Any]:
    """Fields ``facts``, ``tables`` and ``remarks`` of a :class:`~sodium_prep.report.page.ScanReport`, of a record."""
    found = report.get("alignment") or {}
    facts = {
        section: [SummaryItem(name, value) for name, value in items]
        for section, items in found.get("facts", {}).items()
        if items
    }
    tables = {"registration": _opinions(found["opinions"])} if found.get("opinions") else {}
    return {"facts": facts, "tables": tables, "remarks": found.get("remarks", {})}


def _opinions(opinions: Sequence[Mapping[str, Any]]) -> PrintedTable:
    rows = [
        [
            _program(str(opinion["name"])),
            _measure(opinion["shift_mm"], "mm"),
            _measure(opinion["turn_deg"], "°", 1),
            _measure(opinion["score"], "", 4),
            "failed" if opinion["shift_mm"] is None else "taken" if opinion["chosen"] else "not taken",
        ]
        for opinion in opinions
    ]
    caption = (
        "Estimates of where the sodium image lies: how far each moved it against the headers, and how well it then "
        "correlates with the contrast foretold from the tissues (0 to 1), which decides between them."
    )
    return PrintedTable("", caption, ["Registration", "Shift", "Rotation", "Correlation", "Verdict"], rows)


def paired(drawn: Mapping[str, ReportFigure]) -> list[ReportFigure | Comparison]:
    """Figures in their order, those that share a slider joined where the first of them stood."""
    columns = slice_columns(figures.FIT_SLICES)
    seconds = {after for before, after in _COMPARED.items() if before in drawn and after in drawn}
    out: list[ReportFigure | Comparison] = []
    for name, figure in drawn.items():
        partner = drawn.get(_COMPARED.get(name, ""))
        if partner is not None:
            out.append(Comparison(figure, partner, columns))
        elif name not in seconds:
            out.append(figure)
    return out
