"""Which point spread function a series is given, and why, as far as that is known before the work begins."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from sodium_prep.bids.models import AcquisitionFacts, SodiumSidecar
from sodium_prep.bids.points import ALL
from sodium_prep.physics.acquisition import WITHOUT_LAW
from sodium_prep.physics.readout import computed_reason, describe_window
from sodium_prep.settings import Settings

_GAUSSIAN_DX = 1.6
_GAUSSIAN_RANGE = 0.1
_UNFILTERED = (
    "A Gaussian is no stand-in for the point spread function of a centre-out image without a window: in simulations "
    "grey matter is then wrong by 23 to 29 %, more than without any correction (17 %). Leave --psf out, or give it an "
    "image of a point."
)
_ONE_FOR_ALL = (
    "One image of a point stands for all tissues. They decay differently during the readout: in simulations that costs "
    "12 % in grey matter without a window on k-space and 6 % with a Hamming window. Give one for each of GM, WM, CSF."
)
_NONLINEAR = (
    "A reconstruction by {} has no single point spread function: it shows a bright point sharper than a faint one. "
    "Values corrected for partial volume are less sure than with --recon gridding or sense."
)
_BOWSHER = (
    "Bowsher's prior blurs vials, which the anatomical image does not show, otherwise than the head, where its point "
    "spread function was measured: on a phantom all concentrations came out 6 % low. Report --recon gridding or sense."
)
_AGRDM = (
    "Concentrations by agrdm are less sure than by --recon gridding or sense: it has no single point spread function, "
    "and on a phantom head tissue came out 3 to 7 % high, where gridding was within 2 %. Take it for T2*."
)


@dataclass(frozen=True)
class PsfPlan:
    """The point spread function of a series.

    Attributes
    ----------
    kind
        As of :class:`sodium_prep.pvc.psf.PsfModel`; empty where it is not known yet.
    reason
        What it is and why, or what lacks.
    fwhm_mm, files
        Of a Gaussian, and the images of a point by tissue; no files for a measured one that the reconstruction makes.
    sought
        Whether the noise of the image is asked for the window, or whether it agrees with the one stated.
    warnings
        What speaks against the choice.
    """

    kind: str
    reason: str
    fwhm_mm: float | None = None
    files: dict[str, Path] | None = None
    sought: bool = False
    warnings: tuple[str, ...] = ()


def choose_psf(sidecar: SodiumSidecar, facts: AcquisitionFacts, settings: Settings, *, kspace: bool) -> PsfPlan:
    """Choose by option, by the sidecar's image of a point, by the physics of the acquisition, in this order.

    Parameters
    ----------
    facts
        Of the sidecar, with the window of our own reconstruction for k-space.
    kspace
        Whether the image is of our own making.
    """
    if sidecar.weighting != "SQ":
        return PsfPlan("", "not used: nothing is corrected for partial volume in a weighted image")
    if settings.psf_fwhm_mm is not None:
        width = settings.psf_fwhm_mm
        nonlinear = sidecar.sodium_acquisition.nonlinear and not kspace
        reason = f"a Gaussian of {width:g} mm, as asked for by --psf"
        reason += ", for an image of a nonlinear reconstruction" if nonlinear else ""
        return PsfPlan("gaussian", reason, width, warnings=() if nonlinear else _against_gaussian(facts, width))
    option = "--psf" if settings.psf_files else "PointSpreadFunction"
    files = settings.psf_files or sidecar.sodium_acquisition.psf_files
    if files:
        reason = f"given as an image of a point by {option}: {', '.join(path.name for path in files.values())}"
        return PsfPlan("measured", reason, files=files, warnings=(_ONE_FOR_ALL,) if set(files) == {ALL} else ())
    if kspace and settings.kspace_method != "gridding":
        method = settings.kspace_method
        reason = f"measured by points added to the data of this scan ({method})"
        told = {"sense": (), "bowsher": (_BOWSHER,), "agrdm": (_AGRDM,)}.get(method, (_NONLINEAR.format(method),))
        return PsfPlan("measured", reason, warnings=told)
    if kspace and facts.acquisition.trajectory in WITHOUT_LAW:
        window = describe_window(facts.acquisition)
        reason = f"computed from the readouts in the k-space file, {window} and the T2* of each tissue"
        return PsfPlan("measured", reason)
    if facts.psf_known:
        return PsfPlan("acquisition", computed_reason(facts.acquisition), sought=not kspace)
    lacking = f"not known ({', '.join(facts.missing)} missing)"
    if facts.missing == ("KSpaceFilter",) and not kspace:
        return PsfPlan("", f"{lacking}; the window is sought in the noise of the image", sought=True)
    return PsfPlan("", lacking)


def _against_gaussian(facts: AcquisitionFacts, width_mm: float) -> tuple[str, ...]:
    window = facts.acquisition.kspace_filter
    if facts.acquisition.trajectory == "Cartesian" and "Trajectory" not in facts.missing:
        return ()
    if window == "none":
        return (_UNFILTERED,)
    if window == "unknown":
        return ("KSpaceFilter is not known. " + _UNFILTERED,)
    fitting = _GAUSSIAN_DX * sum(facts.acquisition.nominal_resolution_mm) / 3.0
    if window == "hamming" and abs(width_mm / fitting - 1.0) > _GAUSSIAN_RANGE:
        return (
            f"With a Hamming window the Gaussian that corrects best is {_GAUSSIAN_DX} nominal resolutions wide, "
            f"{fitting:.1f} mm; one of {width_mm:g} mm costs several per cent in grey matter.",
        )
    return ()
