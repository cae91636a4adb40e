"""Segmentations of FreeSurfer, FastSurfer and SynthSeg: where they lie, how they are read, and whose head they show.

A ``SUBJECTS_DIR`` has one folder per participant (``sub-01``) or per session (``sub-01_ses-02``). Results of the
longitudinal stream (``sub-01_ses-02.long.sub-01``, and the base ``sub-01`` that they belong to) lie in the space of the
participant's own template and not in the scanner's coordinates of a session, so the cross-sectional ones are used.
"""

from __future__ import annotations

import gzip
import zlib
from pathlib import Path
from typing import IO, Any, Final

import numpy as np
from numpy.typing import NDArray

from sodium_prep.bids.images import MAX_NONFINITE_FRACTION, MAX_VOXELS, check_available, load_checked
from sodium_prep.errors import InputError

LABEL_FILES: Final = (
    "aparc+aseg.mgz",
    "aparc.DKTatlas+aseg.mgz",
    "aparc.DKTatlas+aseg.mapped.mgz",
    "aparc.DKTatlas+aseg.deep.mgz",
    "aparc.a2009s+aseg.mgz",
    "aseg.mgz",
    "aseg.auto_noCCseg.mgz",
)
"""Label images of a subject's ``mri`` folder, the most wanted first."""
MASK_FILES: Final = ("brainmask.mgz", "mask.mgz")
IMAGE_FILES: Final = ("orig.mgz", "nu.mgz", "orig_nu.mgz", "T1.mgz")
MAX_UNKNOWN_FRACTION: Final = 1e-3
"""Share of the labelled volume that labels without a known name may have; they are left out with a warning."""
MIN_HEAD_CORRELATION: Final = 0.7
MIN_LABEL_CORRELATION: Final = 0.65
MAX_HEAD_DISPLACEMENT_MM: Final = 1.0
_HEADER_BYTES: Final = 284
_PLACE_FLAG: Final = slice(28, 30)
_MAX_EXCESS_BYTES: Final = 2**24
_CHUNK: Final = 2**20
_COPY_AGAIN = "Copy the file again from where it was made"


def find_subject(root: Path, participant: str, session: str | None, warnings: list[str]) -> Path | None:
    """Folder of a participant or session in a ``SUBJECTS_DIR``, or in a derivative's ``sourcedata/freesurfer``.

    Parameters
    ----------
    warnings
        Receives one line for each folder that is there but cannot be used.
    """
    names = [f"sub-{participant}"] if session is None else [f"sub-{participant}_ses-{session}", f"sub-{participant}"]
    for base in (root, root / "sourcedata" / "freesurfer"):
        for folder in (base / name for name in names):
            if not (folder / "mri").is_dir():
                continue
            if (folder / "base-tps").exists():
                warnings.append(f"{folder}: is not used, because it is the base of FreeSurfer's longitudinal stream.")
                continue
            if any((folder / "mri" / name).is_symlink() or (folder / "mri" / name).exists() for name in LABEL_FILES):
                return folder
            warnings.append(f"{folder}: is not used, because it holds no segmentation ({', '.join(LABEL_FILES)}).")
        for folder in sorted(base.glob(f"{names[0]}.long.*")):
            warnings.append(f"{folder}: is not used, because it lies in the space of the participant's own template.")
    return None


def first_file(folder: Path, names: tuple[str, ...]) -> Path | None:
    """The first of some files of a subject's ``mri`` folder that is there."""
    paths = (folder / "mri" / name for name in names)
    return next((path for path in paths if path.is_symlink() or path.exists()), None)


def load_image(path: Path) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
    """Read a NIfTI, ``.mgz`` or ``.mgh`` image whole, after checks.

    Returns
    -------
    data
        Shape (X, Y, Z), float32.
    affine
        Voxel to world (RAS+, mm), shape (4, 4).

    Raises
    ------
    InputError
        If the file is damaged, too large, not three-dimensional, or says nothing of its place.
    """
    return _load_mgh(path) if path.name.endswith((".mgz", ".mgh")) else load_checked(path)


def load_segmentation(path: Path, warnings: list[str] | None = None) -> tuple[NDArray[np.int32], NDArray[np.float64]]:
    """Read a label image with FreeSurfer's numbers; rare labels whose name is not known become 0.

    Parameters
    ----------
    warnings
        Receives one line if there are such labels.

    Returns
    -------
    labels
        Shape (X, Y, Z).
    affine
        Voxel to world (RAS+, mm), shape (4, 4).

    Raises
    ------
    InputError
        If values are not whole numbers from 0, or if unknown labels have 0.1 % of the labelled volume or more.
    """
    from sodium_prep.anat.segmentation import freesurfer_names

    data, affine = load_image(path)
    if np.any(data < 0) or np.any(data != np.rint(data)):
        raise InputError(path, "its values are not whole numbers from 0", "Give a label image, not probabilities")
    labels = data.astype(np.int32)
    numbers, counts = np.unique(labels[labels > 0], return_counts=True)
    if not len(numbers):
        raise InputError(path, "has no label", "Look at the segmentation, and leave it out or make it again")
    unknown = ~np.isin(numbers, list(freesurfer_names()))
    if unknown.any():
        share = counts[unknown].sum() / counts.sum()
        shown = ", ".join(map(str, numbers[unknown][:10])) + (" ..." if unknown.sum() > 10 else "")
        if share >= MAX_UNKNOWN_FRACTION:
            problem = f"{100 * share:.2g} % of its labelled voxels have labels that FreeSurfer's aseg and aparc lack"
            raise InputError(path, f"{problem} ({shown})", "Give aparc+aseg, aseg or SynthSeg labels")
        if warnings is not None:
            warnings.append(f"{path}: its labels {shown} are not known and count as background.")
        labels[np.isin(labels, numbers[unknown])] = 0
    return labels, affine


def load_segmentation_mask(path: Path) -> tuple[NDArray[np.bool_], NDArray[np.float64]]:
    """Read ``mask.mgz`` (0 and 1) or ``brainmask.mgz``, where FreeSurfer marks voxels that were edited out by 1."""
    data, affine = load_image(path)
    return data > (1 if data.max() > 1 else 0), affine


def check_head(segmentation: Path, own_image: Path | None, anat: Path) -> list[str]:
    """Refuse a segmentation of another head, or one that lies elsewhere than the anatomical image.

    Measured on two heads (a phantom and Colin27, shading of 40 %, FreeSurfer's grid): the right image has a correlation
    of 0.96 to 0.98, without skull 0.85 to 0.95; another head put at the very same place 0.58 to 0.63, the right one
    5 mm away 0.55 to 0.58, 10 mm away 0.11 to 0.22. A left-right flip has 0.77 to 0.88, but flipped back it fits
    better. Displacements are found to 0.2 mm. Labels instead of an image: 0.85; of another head 0.62; 5 mm away 0.54.

    Parameters
    ----------
    own_image
        The image that the segmentation was made from; without it the labels themselves stand for it.
    anat
        The anatomical image.

    Returns
    -------
    Warnings about labels that are not known.
    """
    from sodium_prep.anat.segmentation import same_head, tissue_image

    warnings: list[str] = []
    labels, affine = load_segmentation(segmentation, warnings)
    image, image_affine = (tissue_image(labels), affine) if own_image is None else load_image(own_image)
    t1w, t1w_affine = load_checked(anat)
    found = same_head(image, image_affine, t1w, t1w_affine, labels > 0, affine)
    shown = own_image or segmentation
    mend = "Give the segmentation of this very image, or leave it out"
    least = MIN_LABEL_CORRELATION if own_image is None else MIN_HEAD_CORRELATION
    if not found.correlation >= least:
        numbers = f"correlation {found.correlation:.2f}, at least {least} is wanted"
        raise InputError(shown, f"does not show the head of {anat} at the same place ({numbers})", mend)
    if found.mirrored:
        mend_side = "Find out which of the two has left and right right"
        raise InputError(shown, f"shows the head of {anat} mirrored, left for right", mend_side)
    if not found.displacement_mm <= MAX_HEAD_DISPLACEMENT_MM:
        numbers = f"{found.displacement_mm:.1f} mm, at most {MAX_HEAD_DISPLACEMENT_MM:g} mm is allowed"
        raise InputError(shown, f"shows the head at another place than {anat} ({numbers})", mend)
    return warnings


def _load_mgh(path: Path) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
    check_available(path)
    with path.open("rb") as raw:
        try:
            return _parse(path, gzip.GzipFile(fileobj=raw) if path.name.endswith(".mgz") else raw)
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            fault = "ends too early" if isinstance(error, EOFError) else "is damaged (checksum or gzip stream)"
            raise InputError(path, f"{fault}, read as {path.stat().st_size} bytes of gzip", _COPY_AGAIN) from None
        except OSError as error:
            raise InputError(path, f"cannot be read ({error})", _COPY_AGAIN) from None


def _parse(path: Path, stream: IO[bytes] | gzip.GzipFile) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
    """Read a stream to its end (and so its checksum), never more than the header announces and some tags after it."""
    from nibabel.freesurfer.mghformat import MGHHeader

    start = stream.read(_HEADER_BYTES)
    if len(start) < _HEADER_BYTES or start[:4] != b"\x00\x00\x00\x01":
        raise InputError(path, "has no MGH header", _COPY_AGAIN)
    try:
        header = MGHHeader(start, check=False)  # type: ignore[no-untyped-call]
        kind = header.get_data_dtype()  # type: ignore[no-untyped-call]
    except Exception as error:  # nibabel raises many types for malformed headers
        raise InputError(path, f"has an MGH header that cannot be used ({error})", _COPY_AGAIN) from None
    shape = _check_dims(path, [int(n) for n in header["dims"]])
    # nibabel invents a place where the file says that it has none, so the flag is read from the bytes.
    if int.from_bytes(start[_PLACE_FLAG], "big") != 1:
        raise InputError(path, "says nothing of its place in space (goodRASFlag is not 1)", "Make it again")
    affine = _check_affine(path, header)
    count = shape[0] * shape[1] * shape[2]
    content = bytearray()
    while chunk := stream.read(_CHUNK):
        content += chunk
        if len(content) > count * kind.itemsize + _MAX_EXCESS_BYTES:
            problem = f"holds far more than the {count * kind.itemsize} bytes that its header announces"
            raise InputError(path, problem, _COPY_AGAIN)
    if len(content) < count * kind.itemsize:
        problem = f"holds {len(content)} of the {count * kind.itemsize} bytes that its header announces"
        raise InputError(path, problem, _COPY_AGAIN)
    with np.errstate(over="ignore", invalid="ignore"):
        data = np.frombuffer(content, kind, count).astype(np.float32).reshape(shape, order="F")
    finite = np.isfinite(data)
    if np.count_nonzero(~finite) > MAX_NONFINITE_FRACTION * data.size:
        raise InputError(path, "has voxels that are not finite (NaN or Inf)", "Make it again")
    data[~finite] = 0.0
    if data.min() == data.max():
        raise InputError(path, f"has the same value ({data.flat[0]:g}) in every voxel", _COPY_AGAIN)
    return data, affine


def _check_dims(path: Path, dims: list[int]) -> tuple[int, int, int]:
    text = " x ".join(map(str, dims))
    if min(dims[:3]) < 2 or dims[3] != 1:
        raise InputError(path, f"is not one three-dimensional image ({text})", "Give an image of the whole head")
    if dims[0] * dims[1] * dims[2] > MAX_VOXELS:
        raise InputError(path, f"announces {text} voxels, above the limit of {MAX_VOXELS}", _COPY_AGAIN)
    return dims[0], dims[1], dims[2]


def _check_affine(path: Path, header: Any) -> NDArray[np.float64]:
    affine = np.asarray(header.get_affine(), dtype=np.float64)
    axes = affine[:3, :3]
    sizes = np.linalg.norm(axes, axis=0)
    if not np.all(np.isfinite(affine)) or np.any(sizes < 1e-3):
        raise InputError(path, "has a singular affine (an axis without length, or values not finite)", _COPY_AGAIN)
    if np.abs((axes / sizes).T @ (axes / sizes) - np.eye(3)).max() > 1e-3:
        raise InputError(path, "has a sheared affine (its axes are not perpendicular)", _COPY_AGAIN)
    return affine
