"""What one session holds for the pipeline, after all checks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from sodium_prep.bids.images import CheckedImage
from sodium_prep.bids.models import SodiumSidecar

Source = Literal["image", "kspace"]


@dataclass(frozen=True, eq=False)
class AnatImage:
    """The proton image that serves as anatomical reference.

    Attributes
    ----------
    path, image
        The file and its checked facts.
    contrast
        Its BIDS suffix (``T1w``, ``PDw``, ...).
    entities
        By pybids' names (``acquisition``, ``run``, ...).
    derivative
        Name of the derivative data set it comes from (then it is preprocessed already); None for a raw image.
    """

    path: Path
    image: CheckedImage
    contrast: str
    entities: Mapping[str, str]
    derivative: str | None = None


@dataclass(frozen=True, eq=False)
class SodiumImage:
    """One reconstructed sodium image with its checked sidecar.

    Attributes
    ----------
    other_part
        What makes complex data with the file: the ``phase`` of a magnitude (radians) or the ``imaginary`` part of a
        real one, on the same grid; empty for a magnitude alone.
    """

    path: Path
    image: CheckedImage
    sidecar: SodiumSidecar
    echo: int | None = None
    other_part: Mapping[str, Path] = field(default_factory=dict)

    @property
    def echo_time_s(self) -> float:
        """Of the image."""
        return self.sidecar.echo_time_s


@dataclass(frozen=True, eq=False)
class KSpaceFile:
    """One echo of a raw file, of a format that :func:`sodium_prep.recon.raw.read_raw` reads, with its checked sidecar.

    Attributes
    ----------
    echo
        Number as in the name of the file, or counted from 1 where its sidecar lists several.
    place
        Which echo of the file, counted from 0.
    """

    path: Path
    sidecar: SodiumSidecar
    echo: int | None = None
    place: int = 0

    @property
    def echo_time_s(self) -> float:
        """Of this echo."""
        return self.sidecar.echo_times_s[self.place]


@dataclass(frozen=True, eq=False)
class SodiumRun:
    """One run of a series: images and raw files, each sorted by echo.

    Attributes
    ----------
    run
        The run's text as in the file name (``1`` or ``01``); None where names have no run.
    source
        Whether the run is processed from its image or from k-space.
    """

    run: str | None
    images: tuple[SodiumImage, ...]
    kspace: tuple[KSpaceFile, ...]
    source: Source

    @property
    def files(self) -> tuple[SodiumImage | KSpaceFile, ...]:
        """The files that are processed, the first echo first."""
        return self.images if self.source == "image" else self.kspace

    @property
    def sidecar(self) -> SodiumSidecar:
        """Sidecar of the first echo, which TSC is computed from."""
        return self.files[0].sidecar


@dataclass(frozen=True, eq=False)
class SodiumSeries:
    """All runs of one sodium acquisition of a session, with the field maps that belong to it.

    Attributes
    ----------
    acquisition
        Label of ``acq-``; None where names have none.
    suffix
        BIDS suffix of its images (``PDw``, ``MEGRE``); that which they would have if there is k-space only.
    receive_pair
        The same object with volume (body) and array (head) coil, in this order.
    tb1map
        Map of the transmit field relative to nominal.
    tb1dam
        The two images of a double-angle measurement, in the order of ``flip-``.
    proton
        Proton image of the same session taken with the coil of the sodium images, a stepping stone between them and
        the anatomical image; None where coils are not named or the anatomical image itself was taken with that coil.
    """

    acquisition: str | None
    suffix: str
    runs: tuple[SodiumRun, ...]
    receive_pair: tuple[Path, Path] | None = None
    tb1map: Path | None = None
    tb1dam: tuple[Path, Path] | None = None
    proton: Path | None = None


@dataclass(frozen=True, eq=False)
class Precomputed:
    """Derivatives that are used and not computed again.

    All lie on the grid of the anatomical image, except a segmentation with what belongs to it.

    Attributes
    ----------
    probsegs
        By tissue: ``GM``, ``WM``, ``CSF``; empty unless all three are there.
    aparcaseg
        FreeSurfer's labels on the grid of the anatomical image.
    segmentation
        Labels of FreeSurfer, FastSurfer or SynthSeg on a grid of their own; None where there is ``aparcaseg``.
    segmentation_mask
        Brain mask (or brain image) that comes with them, on any grid.
    segmentation_t1w
        The image that they were made from, as its program keeps it.
    sodium_to_t1w
        ITK transforms by ``acq-`` label (None for names without one).
    template_xfms
        Transforms between the anatomical image and templates by (from, to).
    origin
        Name of the derivative data set of each file.
    """

    anat: AnatImage | None = None
    brain_mask: Path | None = None
    dseg: Path | None = None
    aparcaseg: Path | None = None
    segmentation: Path | None = None
    segmentation_mask: Path | None = None
    segmentation_t1w: Path | None = None
    probsegs: Mapping[str, Path] = field(default_factory=dict)
    sodium_to_t1w: Mapping[str | None, Path] = field(default_factory=dict)
    template_xfms: Mapping[tuple[str, str], Path] = field(default_factory=dict)
    origin: Mapping[Path, str] = field(default_factory=dict)

    @property
    def on_anat_grid(self) -> tuple[Path, ...]:
        """The images that must lie on the grid of the anatomical image."""
        single = (self.brain_mask, self.dseg, self.aparcaseg)
        return (*(path for path in single if path is not None), *self.probsegs.values())


@dataclass(frozen=True, eq=False)
class SessionInputs:
    """One session, ready to be processed.

    Attributes
    ----------
    participant, session
        Labels without ``sub-`` and ``ses-``; ``session`` is None for a data set without sessions.
    lesion
        Mask of a lesion on the grid of the anatomical image.
    warnings
        One line each for what was tolerated or left out; they belong in the report.
    """

    participant: str
    session: str | None
    anat: AnatImage
    sodium: tuple[SodiumSeries, ...]
    precomputed: Precomputed
    warnings: tuple[str, ...] = ()
    lesion: Path | None = None
