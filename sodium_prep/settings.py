"""The settings of a run: one frozen object, built once by the command line and passed explicitly."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from sodium_prep.errors import UsageError

Estimator = Literal["none", "gtm", "labbe", "joint", "kspace", "mg", "rbv", "mtc", "iy", "rl", "vc", "mlts"]
ReferenceName = Literal["vials", "CSF", "vitreous"]
ReceiveProfile = Literal["auto", "pair", "reciprocity", "fit", "none"]
ReconMethod = Literal["auto", "gridding", "sense", "wavelet", "tv", "agr", "bowsher", "agrdm", "vendor"]
KspaceMethod = Literal["gridding", "sense", "wavelet", "tv", "agr", "bowsher", "agrdm"]
Registration = Literal["ants", "greedy"]
RegionPreset = Literal["main", "lobes", "ad", "als", "epilepsy", "deepgrey"]

GUIDED_METHODS: tuple[KspaceMethod, ...] = ("agr", "bowsher")
"""Those that need an anatomical image."""
JOINT_METHOD: KspaceMethod = "agrdm"
"""The one that makes one image of several echoes."""
KSPACE_METHODS: tuple[KspaceMethod, ...] = get_args(KspaceMethod)
ESTIMATORS: tuple[Estimator, ...] = get_args(Estimator)
DEFAULT_ESTIMATORS: tuple[Estimator, ...] = ("none", "gtm", "labbe", "joint")
CHECKS: tuple[Check, ...] = ("sides",)
RECEIVE_PROFILES: tuple[ReceiveProfile, ...] = ("auto", "pair", "reciprocity", "fit", "none")
REFERENCES: tuple[ReferenceName, ...] = ("vials", "CSF", "vitreous")
Check = Literal["sides"]
REGION_PRESETS: tuple[RegionPreset, ...] = ("main", "lobes", "ad", "als", "epilepsy", "deepgrey")

_NOT_REUSED = (
    "bids_dir",
    "output_dir",
    "analysis_level",
    "participant_label",
    "session_label",
    "dry_run",
    "reports_only",
    "version",
)


class Settings(BaseModel):
    """Everything that a run depends on, apart from the data.

    Attributes
    ----------
    bids_dir, output_dir, analysis_level
        The three positional arguments of a BIDS App.
    participant_label, session_label
        Labels without ``sub-`` and ``ses-``; empty means all.
    bids_filter_file
        JSON file that narrows the queries for inputs.
    derivatives
        Named data sets of precomputed derivatives.
    protocol
        TOML file with sidecar keys that hold for the whole study.
    anat_contrast
        Suffix of the proton image to use; None takes T1w, otherwise the best there is.
    recon, recon_filter, recon_strength
        Reconstruction of k-space, the window of gridding, and the strength of a prior in units of the noise; None takes
        that of the method.
    motion_blocks
        Number of blocks of readouts whose motion is taken out of k-space; 0 for none.
    reference
        References to report; each that the data allow gives its own rows.
    receive_profile
        Where the receive profile comes from; auto takes the pair of coils where there is one.
    air_point
        Take the air of a real image as a reference without sodium.
    pvc
        Estimators of regional concentration to report (``kspace`` needs raw data), and of corrected maps to write.
    psf_fwhm_mm
        Width of a Gaussian PSF in place of the one computed from the acquisition.
    psf_files
        Images of a point by tissue, or one for ``all``, in its place.
    atlas
        What :func:`sodium_prep.atlas.provide.find_atlas` takes: the first covers the brain, others are laid over it.
    regions
        Presets of regions that are estimated as one besides the main ones.
    output_spaces
        Spaces of resampled TSC maps besides the native one: ``T1w``, names and files of templates.
    registration, fast_registration
        Program that registers the brain to the template, and whether it stops early.
    ignore
        Checks whose verdict does not end the processing of a participant.
    longitudinal
        Register the sessions of a participant to a template of their own first.
    model
        What the group level fits: a file that :func:`sodium_prep.cohort.model.read_model` reads.
    skip_bids_validation, stop_on_first_crash, sloppy, write_graph, reports_only, clean_workdir, dry_run
        Switches of the command line with the same names.
    nprocs, omp_nthreads, mem_gb, work_dir, random_seed
        Resources. Threads above 1 make registrations differ in their last digits.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    bids_dir: Path
    output_dir: Path
    analysis_level: Literal["participant", "group"]
    participant_label: tuple[str, ...] = ()
    session_label: tuple[str, ...] = ()
    bids_filter_file: Path | None = None
    skip_bids_validation: bool = False
    derivatives: dict[str, Path] = Field(default_factory=dict)
    protocol: Path | None = None
    anat_contrast: str | None = None
    recon: ReconMethod = "auto"
    recon_filter: Literal["none", "hamming"] = "none"
    recon_strength: float | None = Field(default=None, gt=0.0, lt=1000.0)
    motion_blocks: int = Field(default=0, ge=0, le=256)
    reference: tuple[ReferenceName, ...] = REFERENCES
    receive_profile: ReceiveProfile = "auto"
    air_point: bool = False
    pvc: tuple[Estimator, ...] = DEFAULT_ESTIMATORS
    psf_fwhm_mm: float | None = Field(default=None, gt=0.0, lt=100.0)
    psf_files: dict[str, Path] = Field(default_factory=dict)
    atlas: tuple[str, ...] = Field(default=("desikan-killiany",), min_length=1)
    regions: tuple[RegionPreset, ...] = ("lobes",)
    output_spaces: tuple[str, ...] = ("T1w", "MNI152NLin6Asym")
    registration: Registration = "ants"
    fast_registration: bool = False
    longitudinal: bool = False
    model: Path | None = None
    ignore: tuple[Check, ...] = ()
    work_dir: Path
    nprocs: int = Field(default=1, ge=1)
    omp_nthreads: int = Field(default=1, ge=1)
    mem_gb: float = Field(default=4.0, gt=0.0)
    random_seed: int = Field(default=42, ge=0)
    sloppy: bool = False
    stop_on_first_crash: bool = False
    write_graph: bool = False
    reports_only: bool = False
    clean_workdir: bool = False
    dry_run: bool = False
    version: str

    @property
    def kspace_method(self) -> KspaceMethod:
        """How k-space is reconstructed where there is any."""
        return "gridding" if self.recon == "auto" or self.recon == "vendor" else self.recon

    def to_toml(self) -> str:
        """The settings as TOML text that :func:`read_toml` reads back."""
        import tomli_w

        data = self.model_dump(mode="json", exclude_none=True)
        return tomli_w.dumps(data)


def read_toml(path: Path) -> dict[str, Any]:
    """Settings of an earlier run that a new run may start from.

    What names the data of that run (directories, labels) is left out.

    Raises
    ------
    UsageError
        If the file cannot be read, is not TOML, or holds an unknown setting.
    """
    try:
        data = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(path, f"cannot be read ({error.strerror})", "Give the TOML file of an earlier run") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(path, f"is not valid TOML ({error})", "Give the TOML file of an earlier run") from error
    unknown = sorted(set(data) - set(Settings.model_fields))
    if unknown:
        raise UsageError(path, f"holds unknown settings {', '.join(unknown)}", "Remove them")
    return {key: value for key, value in data.items() if key not in _NOT_REUSED}


def make_settings(values: dict[str, Any]) -> Settings:
    """Build the settings from plain values.

    Raises
    ------
    UsageError
        Naming the option whose value cannot be used.
    """
    try:
        return Settings(**values)
    except ValidationError as error:
        first = error.errors()[0]
        name = "--" + str(first["loc"][0]).replace("_", "-")
        raise UsageError(name, f"{first['msg']} (given: {first['input']!r})", "See --help for its values") from error
