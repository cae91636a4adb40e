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
    reason
        Why a preset has it, where no publication defines it.
    """

    name: str
    tissue: Tissue
    structure: str = ""
    parts: tuple[tuple[str, ...], ...] = ()
    optional: tuple[str, ...] = ()
    citation: str = ""
    reason: str = ""

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
_LUI = (
    "Lui E et al. 3T sodium-MRI as predictor of neurocognition in nondemented older adults: a cross sectional study. "
    "Brain Commun 2024;6:fcae307"
)
_MELLON = (
    "Mellon EA et al. Sodium MR imaging detection of mild Alzheimer disease: preliminary study. "
    "AJNR Am J Neuroradiol 2009;30:978-984"
)
_MOHAMED = (
    "Mohamed SA et al. Evaluation of sodium (23Na) MR-imaging as a biomarker and predictor for neurodegenerative "
    "changes in patients with Alzheimer's disease. In Vivo 2021;35:429-435"
)
_GRAPPERON = (
    "Grapperon AM et al. Quantitative brain sodium MRI depicts corticospinal impairment in amyotrophic lateral "
    "sclerosis. Radiology 2019;292:422-428"
)
_JHU = "Mori S et al. Stereotaxic white matter atlas based on diffusion tensor imaging. NeuroImage 2008;40:570-582"

_FRONTAL = Group(
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
)  # fmt: skip
_PARIETAL = Group(
    "ParietalLobe",
    "GM",
    parts=(("superiorparietal", "inferiorparietal", "supramarginal", "postcentral", "precuneus"),),
    citation=_LOBES,
)
_TEMPORAL = Group(
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
)  # fmt: skip
_OCCIPITAL = Group(
    "OccipitalLobe", "GM", parts=(("lateraloccipital", "lingual", "cuneus", "pericalcarine"),), citation=_LOBES
)
_CINGULATE = Group(
    "CingulateCortex",
    "GM",
    parts=(("rostralanteriorcingulate", "caudalanteriorcingulate", "posteriorcingulate", "isthmuscingulate"),),
    citation=_LOBES,
)
_INSULA = Group("InsularCortex", "GM", parts=(("insula",),), citation=_LOBES)
_MESIAL_TEMPORAL = Group(
    "MesialTemporal",
    "GM",
    parts=(("hippocampus", "amygdala", "entorhinal", "parahippocampal"),),
    citation=_MELLON,
    reason="where Alzheimer's disease begins, and the commonest focus of epilepsy in adults",
)
_AMYGDALA = Group("Amygdala", "GM", parts=(("amygdala",),), citation=_MOHAMED)
_ENTORHINAL = Group("Entorhinal", "GM", parts=(("entorhinal",),), citation=_LUI)
_PARAHIPPOCAMPAL = Group(
    "Parahippocampal", "GM", parts=(("parahippocampal",),), reason="part of the mesial temporal lobe next to CSF"
)

GROUPS: Final[dict[str, tuple[Group, ...]]] = {
    "main": (
        Group("Cortex", "GM", "cortex"),
        Group("WhiteMatter", "WM", "wm"),
        Group("Hippocampus", "GM", "hippocampus"),
        Group("CSF", "CSF", "csf"),
    ),
    "lobes": (_FRONTAL, _PARIETAL, _TEMPORAL, _OCCIPITAL, _CINGULATE, _INSULA),
    "ad": (
        _MESIAL_TEMPORAL,
        _ENTORHINAL,
        _PARAHIPPOCAMPAL,
        _AMYGDALA,
        Group("Precuneus", "GM", parts=(("precuneus",),), citation=_LUI),
        Group(
            "PrecuneusPosteriorCingulate",
            "GM",
            parts=(("precuneus", "posteriorcingulate", "isthmuscingulate"),),
            reason="where amyloid is found early",
        ),
        _TEMPORAL,
        Group(
            "ADSignature",
            "GM",
            parts=(("entorhinal", "inferiortemporal", "middletemporal", "fusiform"),),
            citation=_AD_SIGNATURE,
        ),
    ),
    "als": (
        Group("MotorCortex", "GM", parts=(("precentral", "paracentral"),), citation=_GRAPPERON),
        _FRONTAL,
        Group(
            "CorpusCallosum",
            "WM",
            parts=(
                ("cc_posterior", "cc_mid_posterior", "cc_central", "cc_mid_anterior", "cc_anterior"),
                ("genu_of_corpus_callosum", "body_of_corpus_callosum", "splenium_of_corpus_callosum"),
            ),
            citation=_GRAPPERON,
        ),
        Group(
            "CorticospinalTract",
            "WM",
            parts=(("corticospinal_tract", "cerebral_peduncle", "posterior_limb_of_internal_capsule"),),
            citation=_JHU,
        ),
    ),
    "epilepsy": (
        _MESIAL_TEMPORAL,
        _AMYGDALA,
        _ENTORHINAL,
        _PARAHIPPOCAMPAL,
        Group(
            "LateralTemporal",
            "GM",
            parts=(("superiortemporal", "middletemporal", "inferiortemporal", "transversetemporal", "bankssts"),),
            optional=("bankssts",),
            reason="temporal neocortex that standard resections of the mesial focus spare or take apart from it",
        ),
        Group("TemporalPole", "GM", parts=(("temporalpole",),), reason="often part of a mesial temporal focus"),
        _INSULA,
        _FRONTAL,
        _PARIETAL,
        _OCCIPITAL,
        _CINGULATE,
    ),
    "deepgrey": (
        Group(
            "Thalami",
            "GM",
            parts=(("thalamus-proper",), ("thalamus",)),
            reason="large enough for most sodium images",
        ),
        Group(
            "BasalGanglia",
            "GM",
            parts=(("caudate", "putamen", "pallidum", "accumbens-area"),),
            reason="too small one by one for most sodium images",
        ),
    ),
}
"""Groups of each preset. ``main`` is always there; its names are those that quality checks and cohorts look for.

The lobes leave the cingulate cortex out, which stands by itself. Labels that FreeSurfer's DKT protocol dropped
(banks of the superior temporal sulcus, frontal and temporal pole) may be missing. The corticospinal tract is that of
the JHU label map from the medulla to the posterior limb of the internal capsule; the superior corona radiata, which
carries many other fibres, is not part of it. A group may be in several presets; its row is there once.
"""

MAIN: Final = GROUPS["main"]
PRESETS: Final = tuple(preset for preset in GROUPS if preset != "main")


def groups_of(presets: Sequence[str]) -> tuple[Group, ...]:
    """Groups of the main preset and of others, each once and always in the same order.

    Raises
    ------
    UsageError
        If there is no such preset.
    """
    unknown = [preset for preset in presets if preset not in GROUPS]
    if unknown:
        raise UsageError("--regions", f"there is no preset {unknown[0]!r}", f"Choose from {', '.join(PRESETS)}")
    chosen = [preset for preset in GROUPS if preset == "main" or preset in presets]
    return tuple(dict.fromkeys(group for preset in chosen for group in GROUPS[preset]))


def missing_note(
    groups: Sequence[Group],
    names: Sequence[str],
    hemispheres: Sequence[str],
    structures: Sequence[str],
    tissues: Sequence[str],
) -> str:
    """One line on the groups that an atlas cannot make up on any side, what it lacks, and how to get it; or empty.

    Parameters
    ----------
    names, hemispheres, structures, tissues
        One entry per region of the atlas.
    """
    known = {parcel_name(name) for name in names}
    told = []
    for group in groups:
        if group.structure or any(group.members(names, hemispheres, structures, tissues, side) for side in SIDES):
            continue
        needed = [[name for name in part if name not in group.optional] for part in group.parts]
        lacking = [[name for name in part if name not in known] or part for part in needed]
        fewest = min(lacking, key=len)
        told.append(f"{group.name} ({', '.join(fewest[:3])}{' ...' if len(fewest) > 3 else ''})")
    if not told:
        return ""
    return (
        f"The atlas lacks labels for these rows of --regions: {'; '.join(told)}. Name an atlas that has them after the "
        "first, as in --atlas desikan-killiany labels.nii.gz."
    )


def group_records(groups: Sequence[Group]) -> list[dict[str, Any]]:
    """What a sidecar says of groups: their parts, and where the choice of parts comes from."""
    return [
        {"Name": group.name, "Tissue": group.tissue}
        | ({"Structure": group.structure} if group.structure else {"Parts": [list(part) for part in group.parts]})
        | ({"Citation": group.citation} if group.citation else {})
        | ({"Reason": group.reason} if group.reason else {})
        for group in groups
    ]
