"""Names of the outputs, and the files that make the output folder a BIDS derivative data set."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

import sodium_prep
from sodium_prep.bids.filters import check_label
from sodium_prep.bids.sidecar import read_json
from sodium_prep.bids.writers import (
    SCANNER_SPACE,
    TEMPLATE_SPACE,
    copy_file,
    write_bytes,
    write_json,
    write_nifti,
    write_text,
    write_tsv,
)

__all__ = [
    "SCANNER_SPACE",
    "TEMPLATE_SPACE",
    "OutputNames",
    "bids_uri",
    "build_path",
    "copy_file",
    "dataset_description",
    "derivative_sidecar",
    "json_beside",
    "write_bytes",
    "write_json",
    "write_nifti",
    "write_text",
    "write_tsv",
]

BIDS_VERSION: Final = "1.10.0"

ENTITY_ORDER: Final = (
    *("acq", "nuc", "rec", "run", "echo", "flip", "part", "space"),
    *("seg", "res", "label", "from", "to", "mode", "stat", "desc"),
)
"""Order of the entities after ``sub`` and ``ses``, as in the standard; ``from``, ``to``, ``mode`` and ``stat`` stand
where the derivative proposals and other BIDS Apps have them."""

_ENTITY_SHORT: Final = {"acquisition": "acq", "nucleus": "nuc", "reconstruction": "rec", "from_": "from"}

BIDSIGNORE: Final = (
    "*.html",
    "logs/",
    "group",
    "**/figures",
    "**/*_TSCmap.*",
    "**/*_psf.*",
    "**/*_xfm.*",
    "**/*_calibration.*",
    "**/*_tsc.*",
    "**/*_qc.*",
)
"""Names of ours that the standard does not have yet."""


def build_path(
    out_dir: Path,
    participant: str,
    session: str | None,
    datatype: str,
    suffix: str,
    extension: str,
    **entities: str | int | None,
) -> Path:
    """Path of an output, with its entities in the order of the standard.

    Parameters
    ----------
    datatype
        Folder: ``anat``, ``fmap`` or ``figures`` (figures lie with the participant, not the session).
    suffix, extension
        ``PDw``, ``.nii.gz``.
    **entities
        Short names (``acq``, ``rec``, ...) or those of pybids (``acquisition``, ...); ``from_`` stands for ``from``.
        None leaves an entity out.

    Raises
    ------
    ValueError
        If an entity is not known or a label has other signs than letters, digits and ``+``.
    """
    short = {_ENTITY_SHORT.get(name, name): str(value) for name, value in entities.items() if value is not None}
    if unknown := short.keys() - set(ENTITY_ORDER):
        raise ValueError(f"not known as entities: {sorted(unknown)}")
    for label in (participant, session or "1", suffix, *short.values()):
        if not (label.isascii() and label.replace("+", "x").isalnum()):
            raise ValueError(f"not a BIDS label: {label!r}")
    folder = out_dir / f"sub-{participant}"
    parts = [f"sub-{participant}"]
    if session is not None:
        parts.append(f"ses-{session}")
        folder = folder if datatype == "figures" else folder / f"ses-{session}"
    parts += [f"{name}-{short[name]}" for name in ENTITY_ORDER if name in short]
    return folder / datatype / ("_".join([*parts, suffix]) + extension)


def json_beside(path: Path) -> Path:
    """Sidecar of an output: the same name with ``.json``."""
    return path.with_name(path.name.split(".")[0] + ".json")


@dataclass(frozen=True)
class OutputNames:
    """Names of all outputs of one session.

    Attributes
    ----------
    out_dir
        Root of the derivative data set.
    participant, session
        Labels without prefix.
    anat_entities
        Entities of the anatomical image beside subject and session (``{"acq": "gre"}``), which its derivatives keep.
    """

    out_dir: Path
    participant: str
    session: str | None = None
    anat_entities: Mapping[str, str | int | None] = field(default_factory=dict)

    def path(self, suffix: str, extension: str, *, datatype: str = "anat", **entities: str | int | None) -> Path:
        """Any output of this session; see :func:`build_path`."""
        return build_path(self.out_dir, self.participant, self.session, datatype, suffix, extension, **entities)

    def report(self) -> Path:
        """The participant's page."""
        return self.out_dir / f"sub-{check_label(self.participant)}.html"

    def figure(self, desc: str, suffix: str, extension: str = ".svg", **entities: str | int | None) -> Path:
        """A figure of the page."""
        return self.path(suffix, extension, datatype="figures", desc=desc, **entities)

    def preproc_anat(self, contrast: str = "T1w") -> Path:
        """The anatomical image after bias correction."""
        return self.path(contrast, ".nii.gz", desc="preproc", datatype="anat", **self.anat_entities)

    def brain_mask(self) -> Path:
        """The brain mask on the anatomical grid."""
        return self.path("mask", ".nii.gz", desc="brain", datatype="anat", **self.anat_entities)

    def lesion_mask(self) -> Path:
        """The lesion mask on the anatomical grid."""
        return self.path("mask", ".nii.gz", label="lesion", datatype="anat", **self.anat_entities)

    def dseg(self) -> Path:
        """The tissue labels on the anatomical grid."""
        return self.path("dseg", ".nii.gz", datatype="anat", **self.anat_entities)

    def atlas_dseg(self, atlas: str) -> Path:
        """The regions of an atlas on the anatomical grid."""
        return self.path("dseg", ".nii.gz", seg=atlas, datatype="anat", **self.anat_entities)

    def probseg(self, tissue: str) -> Path:
        """The fraction of a tissue (``GM``, ``WM``, ``CSF``) on the anatomical grid."""
        return self.path("probseg", ".nii.gz", label=tissue, datatype="anat", **self.anat_entities)

    def template_xfm(self, source: str, target: str, extension: str = ".h5") -> Path:
        """A transform between ``T1w`` and a template."""
        return self.path("xfm", extension, from_=source, to=target, mode="image")

    def sodium_xfm(self, acq: str | None, run: str | None = None) -> Path:
        """The rigid transform that resamples a sodium image onto the anatomical grid."""
        return self.path("xfm", ".txt", acq=acq, run=run, from_="sodium", to="T1w", mode="image")

    def sodium_image(
        self,
        acq: str | None,
        run: str | None,
        rec: str,
        suffix: str = "PDw",
        echo: int | None = None,
        stat: str | None = None,
    ) -> Path:
        """The corrected sodium image on its native grid; ``rec`` is ``gridding``, ``sense``, ... or ``vendor``.

        ``stat="stderr"`` for the standard deviation of its noise.
        """
        return self.path(suffix, ".nii.gz", acq=acq, run=run, rec=rec, echo=echo, stat=stat, desc="preproc")

    def tsc_map(
        self,
        acq: str | None,
        run: str | None = None,
        *,
        space: str | None = None,
        label: str | None = None,
        desc: str | None = None,
        stat: str | None = None,
    ) -> Path:
        """A map in mM: native grid without ``space``; ``stat='stderr'`` for its standard error.

        ``desc`` names the correction, ``label`` the tissue if it shows one alone.
        """
        return self.path("TSCmap", ".nii.gz", acq=acq, run=run, space=space, label=label, desc=desc, stat=stat)

    def calibration(self, acq: str | None, run: str | None = None, extension: str = ".tsv") -> Path:
        """The references and the fitted line (``.tsv`` or ``.json``)."""
        return self.path("calibration", extension, acq=acq, run=run, desc="references")

    def table(self, acq: str | None, run: str | None, atlas: str, extension: str = ".tsv") -> Path:
        """The regional table (``.tsv`` or ``.json``)."""
        return self.path("tsc", extension, acq=acq, run=run, seg=atlas)


def bids_uri(path: Path, datasets: Mapping[str, Path]) -> str:
    """BIDS URI of a file.

    Parameters
    ----------
    path
        The file.
    datasets
        Roots by their name in ``DatasetLinks``; the output data set itself has the name ``""``.

    Raises
    ------
    ValueError
        If the file lies in none of the data sets.
    """
    absolute = Path(os.path.abspath(path))  # noqa: PTH100 - Path.resolve would follow links out of the data set
    roots = {name: Path(os.path.abspath(root)) for name, root in datasets.items()}  # noqa: PTH100
    inside = [(len(root.parts), name) for name, root in roots.items() if absolute.is_relative_to(root)]
    if not inside:
        raise ValueError(f"{path} lies in none of the data sets {sorted(datasets)}")
    name = max(inside)[1]
    return f"bids:{name}:{quote(absolute.relative_to(roots[name]).as_posix())}"


def derivative_sidecar(
    *,
    description: str,
    sources: Sequence[str] = (),
    units: str | None = None,
    space: str | None = None,
    spatial_reference: str | None = None,
    skull_stripped: bool | None = None,
    extra: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Sidecar content of a derivative, with the keys that the standard asks for.

    Parameters
    ----------
    sources
        BIDS URIs of the files it was made from.
    space
        Value of ``space-``; a space that is not a standard template needs ``spatial_reference``.
    spatial_reference
        URI of the image whose grid and space this is.
    skull_stripped
        For images of the head.
    extra
        Method, PSF, relaxation values and whatever else belongs to this file.
    """
    if space in ("T1w", "sodium") and spatial_reference is None:
        raise ValueError(f"space-{space} needs a spatial reference")
    content: dict[str, Any] = {"Description": description, "Sources": list(sources)}
    optional = {"Units": units, "SpatialReference": spatial_reference, "SkullStripped": skull_stripped}
    content |= {key: value for key, value in optional.items() if value is not None}
    return content | {"GeneratedBy": [_generator()]} | dict(extra or {})


def dataset_description(
    out_dir: Path,
    bids_dir: Path,
    derivatives: Mapping[str, Path] | None = None,
    container: Mapping[str, str] | None = None,
) -> Path:
    """Write ``dataset_description.json`` and ``.bidsignore`` of the output.

    Parameters
    ----------
    bids_dir
        The raw data set, linked as ``raw``.
    derivatives
        Derivative data sets that were used, linked by their names.
    container
        ``Type`` and ``Tag`` (or ``URI``) of the image that the program runs in.
    """
    raw = read_json(bids_dir / "dataset_description.json")
    links = {"raw": bids_dir, **(derivatives or {})}
    source = {"URL": _link(bids_dir, out_dir)}
    if "DatasetDOI" in raw:
        source["DOI"] = str(raw["DatasetDOI"])
    content = {
        "Name": f"sodium_prep: {raw.get('Name', bids_dir.name)}",
        "BIDSVersion": BIDS_VERSION,
        "DatasetType": "derivative",
        "GeneratedBy": [_generator() | ({"Container": dict(container)} if container else {})],
        "SourceDatasets": [source],
        "DatasetLinks": {name: _link(root, out_dir) for name, root in links.items()},
    }
    write_text(out_dir / ".bidsignore", "\n".join(BIDSIGNORE) + "\n")
    return write_json(out_dir / "dataset_description.json", content)


def _generator() -> dict[str, Any]:
    return {"Name": "sodium_prep", "Version": sodium_prep.__version__}


def _link(root: Path, out_dir: Path) -> str:
    """Relative reference, so that input and output can move together."""
    return quote(Path(os.path.relpath(root, out_dir)).as_posix())
