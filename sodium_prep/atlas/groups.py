"""Groups of regions that are estimated as one: the rows of a table besides those of its atlas.

A group is one column of a fit, not the mean of its parts: the mean of ill-determined neighbours would carry their
noise. Presets hold what studies of one kind report. A group whose parts an atlas lacks does not appear.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from sodium_prep.errors import UsageError
from sodium_prep.physics.relaxation import Tissue

SIDES: Final = ("L", "R", "both")

_PREFIX = re.compile(r"^(?:ctx[-_. ])?(?:lh|rh|left|right|l|r)[-_. ]", re.IGNORECASE)
_SUFFIX = re.compile(r"[-_. ](?:lh|rh|left|right|l|r)$", re.IGNORECASE)


def parcel_name(name: str) -> str:
    """Name of a region without its side, in lower case.

    Examples
    --------
    >>> parcel_name("ctx-lh-precentral"), parcel_name("Left-Hippocampus"), parcel_name("Cerebral_peduncle_R")
    ('precentral', 'hippocampus', 'cerebral_peduncle')
    """
    bare = _PREFIX.sub("", name)
    return (bare if bare != name else _SUFFIX.sub("", name)).lower()


@dataclass(frozen=True)
class Group:
    """Regions that are estimated as one.

    Attributes
    ----------
    name
        Name of its rows.
    tissue
        Of its rows; regions of another tissue do not belong to it.
    structure
        Every region of this structure belongs to it.
    parts
        Otherwise sets of region names without their side (:func:`parcel_name`), one for each way in which atlases
        name its parts. A set counts where the atlas has all of it.
    optional
        Names that may be missing from a set.
    citation
        Where the choice of parts comes from.
    """

    name: str
    tissue: Tissue
    structure: str = ""
    parts: tuple[tuple[str, ...], ...] = ()
    optional: tuple[str, ...] = ()
    citation: str = ""

    def members(
        self,
        names: Sequence[str],
        hemispheres: Sequence[str],
        structures: Sequence[str],
        tissues: Sequence[str],
        side: str,
    ) -> tuple[int, ...]:
        """Positions of the regions that make the group up on a side, none if it is not whole there.

        Parameters
        ----------
        names, hemispheres, structures, tissues
            One entry per region.
        side
            ``L`` and ``R`` take regions of that side, ``both`` takes all.
        """
        here = [i for i, own in enumerate(hemispheres) if side in ("both", own) and tissues[i] == self.tissue]
        if self.structure:
            return tuple(i for i in here if structures[i] == self.structure)
        bare = {i: parcel_name(names[i]) for i in here}
        found: set[int] = set()
        for part in self.parts:
            chosen = [i for i in here if bare[i] in part]
            sides: dict[str, set[str]] = {}
            for i in chosen:
                sides.setdefault(bare[i], set()).add(hemispheres[i])
            if all(_whole(sides.get(name, set()), side) for name in part if name not in self.optional):
                found |= set(chosen)
        return tuple(sorted(found))


def _whole(sides: set[str], side: str) -> bool:
    return bool(sides) and (side != "both" or sides == {"both"} or {"L", "R"} <= sides)


_LOBES = (
    "Klein A, Tourville J. 101 labeled brain images and a consistent human cortical labeling protocol. "
    "Front Neurosci 2012;6:171; lobes as in FreeSurfer's CorticalParcellation"
)
_AD_SIGNATURE = (
    "Jack CR et al. Defining imaging biomarker cut points for brain aging and Alzheimer's disease. "
    "Alzheimers Dement 2017;13:205-216"
)
_JHU = "Mori S et al. Stereotaxic white matter atlas based on diffusion tensor imaging. NeuroImage 2008;40:570-582"

GROUPS: Final[dict[str, tuple[Group, ...]]] = {
    "main": (
        Group("Cortex", "GM", "cortex"),
        Group("WhiteMatter", "WM", "wm"),
        Group("Hippocampus", "GM", "hippocampus"),
        Group("CSF", "CSF", "csf"),
    ),
    "lobes": (
        Group(
            "FrontalLobe",
            "GM",
            parts=(
                (
                    "superiorfrontal", "rostralmiddlefrontal", "caudalmiddlefrontal", "parsopercularis",
                    "parstriangularis", "parsorbitalis", "lateralorbitofrontal", "medialorbitofrontal", "precentral",
                    "paracentral", "frontalpole",
                ),
            ),
            optional=("frontalpole",),
            citation=_LOBES,
        ),
        Group(
            "ParietalLobe",
            "GM",
            parts=(("superiorparietal", "inferiorparietal", "supramarginal", "postcentral", "precuneus"),),
            citation=_LOBES,
        ),
        Group(
            "TemporalLobe",
            "GM",
            parts=(
                (
                    "superiortemporal", "middletemporal", "inferiortemporal", "bankssts", "fusiform",
                    "transversetemporal", "entorhinal", "temporalpole", "parahippocampal",
                ),
            ),
            optional=("bankssts", "temporalpole"),
            citation=_LOBES,
        ),
        Group("OccipitalLobe", "GM", parts=(("lateraloccipital", "lingual", "cuneus", "pericalcarine"),),
              citation=_LOBES),
        Group(
            "CingulateCortex",
            "GM",
            parts=(("rostralanteriorcingulate", "caudalanteriorcingulate", "posteriorcingulate", "isthmuscingulate"),),
            citation=_LOBES,
        ),
        Group("InsularCortex", "GM", parts=(("insula",),), citation=_LOBES),
    ),
    "alzheimer": (
        Group("MedialTemporal", "GM", parts=(("entorhinal", "parahippocampal", "hippocampus"),)),
        Group(
            "PrecuneusPosteriorCingulate",
            "GM",
            parts=(("precuneus", "posteriorcingulate", "isthmuscingulate"),),
        ),
        Group(
            "ADSignature",
            "GM",
            parts=(("entorhinal", "inferiortemporal", "middletemporal", "fusiform"),),
            citation=_AD_SIGNATURE,
        ),
    ),
    "als": (
        Group("MotorCortex", "GM", parts=(("precentral", "paracentral"),)),
        Group(
            "CorpusCallosum",
            "WM",
            parts=(
                ("cc_posterior", "cc_mid_posterior", "cc_central", "cc_mid_anterior", "cc_anterior"),
                ("genu_of_corpus_callosum", "body_of_corpus_callosum", "splenium_of_corpus_callosum"),
            ),
        ),
        Group(
            "CorticospinalTract",
            "WM",
            parts=(("corticospinal_tract", "cerebral_peduncle", "posterior_limb_of_internal_capsule"),),
            citation=_JHU,
        ),
    ),
    "deepgrey": (
        Group("Thalami", "GM", parts=(("thalamus-proper",), ("thalamus",))),
        Group("BasalGanglia", "GM", parts=(("caudate", "putamen", "pallidum", "accumbens-area"),)),
    ),
}  # fmt: skip
"""Groups of each preset. ``main`` is always there; its names are those that quality checks and cohorts look for.

The lobes leave the cingulate cortex out, which stands by itself. Labels that FreeSurfer's DKT protocol dropped
(banks of the superior temporal sulcus, frontal and temporal pole) may be missing. The corticospinal tract is that of
the JHU label map from the medulla to the posterior limb of the internal capsule; the superior corona radiata, which
carries many other fibres, is not part of it.
"""

MAIN: Final = GROUPS["main"]
PRESETS: Final = tuple(preset for preset in GROUPS if preset != "main")


def groups_of(presets: Sequence[str]) -> tuple[Group, ...]:
    """Groups of the main preset and of others, always in the same order.

    Raises
    ------
    UsageError
        If there is no such preset.
    """
    unknown = [preset for preset in presets if preset not in GROUPS]
    if unknown:
        raise UsageError("--groups", f"there is no preset {unknown[0]!r}", f"Choose from {', '.join(PRESETS)}")
    return tuple(group for preset in GROUPS if preset == "main" or preset in presets for group in GROUPS[preset])


def group_records(groups: Sequence[Group]) -> list[dict[str, Any]]:
    """What a sidecar says of groups: their parts, and where the choice of parts comes from."""
    return [
        {"Name": group.name, "Tissue": group.tissue}
        | ({"Structure": group.structure} if group.structure else {"Parts": [list(part) for part in group.parts]})
        | ({"Citation": group.citation} if group.citation else {})
        for group in groups
    ]
