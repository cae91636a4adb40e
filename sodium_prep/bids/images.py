"""Images are read to their last byte and checked before any of their numbers is believed.

nibabel alone loads most damaged ``.nii.gz`` files without a word, because it stops reading before the checksum at the
end of the gzip stream; it also invents an affine where the header has none.
"""

from __future__ import annotations

import gzip
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Final

import numpy as np
from numpy.typing import NDArray

from sodium_prep.errors import InputError

MAX_VOXELS: Final = 2**28
"""Largest image that is read (645 voxels cubed): a damaged header must not ask for all memory."""
MAX_NONFINITE_FRACTION: Final = 0.01
MAX_FORM_DISAGREEMENT_MM: Final = 0.1
MAX_SHEAR_COSINE: Final = 1e-3
_MOST_GAPS: Final = 0.999
_MAX_HEADER_BYTES: Final = 2**26
_MAX_EXCESS_BYTES: Final = 2**20
_CHUNK: Final = 2**20
_COPY_AGAIN = "Copy the file again from its source, or convert it again from DICOM"


@dataclass(frozen=True, eq=False)
class CheckedImage:
    """What is known of an image after all checks.

    Attributes
    ----------
    path
        The file.
    shape
        Three voxel counts (a single trailing volume has been dropped).
    affine
        Voxel to world (RAS+, mm), shape (4, 4), float64.
    warnings
        One line each, beginning with the file, for what was tolerated.
    """

    path: Path
    shape: tuple[int, int, int]
    affine: NDArray[np.float64]
    warnings: tuple[str, ...] = ()

    @property
    def voxel_mm(self) -> tuple[float, float, float]:
        """Edge lengths of a voxel."""
        x, y, z = np.linalg.norm(self.affine[:3, :3], axis=0)
        return float(x), float(y), float(z)

    @property
    def right_handed(self) -> bool:
        """Whether the voxel axes keep the handedness of the world (positive determinant)."""
        return bool(np.linalg.det(self.affine[:3, :3]) > 0)


def check_image(path: Path) -> CheckedImage:
    """Read a NIfTI file whole, check container, header, geometry and values, and keep only the facts.

    Raises
    ------
    InputError
        If the file cannot be trusted; the message names the file, the fault and the mend.
    """
    return _load(Path(path))[1]


def load_checked(path: Path) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
    """Read a NIfTI file whole after the checks of :func:`check_image`.

    Returns
    -------
    data
        Shape (X, Y, Z), float32; values that were not finite (at most 1 %) are 0, as the warning of
        :func:`check_image` says.
    affine
        Voxel to world (RAS+, mm), shape (4, 4).
    """
    data, checked = _load(Path(path))
    return data, checked.affine


def load_finite(path: Path, *, volumes: bool = False) -> tuple[NDArray[np.float32], CheckedImage]:
    """Read a NIfTI file whole after the checks of :func:`check_image`, and refuse any value that is not finite.

    Parameters
    ----------
    volumes
        Let the image have four dimensions.

    Returns
    -------
    data
        Shape (X, Y, Z), or (X, Y, Z, N) where there are several volumes; float32.
    checked
        Facts of the grid.
    """
    check_available(path)
    image, warnings = _parse(path)
    several = volumes and len(image.shape) == 4 and min(image.shape) > 1
    shape = tuple(int(n) for n in image.shape[:3]) if several else _check_shape(path, image, warnings)
    grid = (shape[0], shape[1], shape[2])
    affine = _check_affine(path, image, grid)
    data = _check_values(path, image, (*grid, int(image.shape[3])) if several else grid, warnings, tolerated=0.0)
    return data, CheckedImage(path, grid, affine, tuple(f"{path}: {text}." for text in warnings))


def load_with_gaps(path: Path) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
    """Read a resampled map after the checks of :func:`check_image`, with nan where it has no value.

    A voxel has no value where it is not finite, or exactly 0, which resampling writes where an image does not reach.

    Returns
    -------
    data
        Shape (X, Y, Z), float32.
    affine
        Voxel to world (RAS+, mm), shape (4, 4).
    """
    check_available(path)
    image, warnings = _parse(path)
    shape = _check_shape(path, image, warnings)
    affine = _check_affine(path, image, shape)
    data = _check_values(path, image, shape, warnings, tolerated=_MOST_GAPS)
    data[data == 0.0] = np.nan
    return data, affine


def check_available(path: Path) -> None:
    """Refuse a file that is not here, is empty, or stands for content that was never fetched."""
    fetch = f"Fetch its content with: datalad get {path}"
    if path.is_symlink() and not path.exists():
        raise InputError(path, "is a link whose content is not here", fetch)
    if not path.is_file():
        raise InputError(path, "does not exist or is not a file", "Check the name and that the data set is complete")
    if path.stat().st_size == 0:
        raise InputError(path, "is empty (0 bytes)", _COPY_AGAIN)
    with _open(path) as stream:
        start = stream.read(64)
    if start.startswith((b"/annex/objects/", b"version https://git-lfs")):
        raise InputError(path, "is a placeholder whose content is not here", fetch)


def same_grid(first: CheckedImage, second: CheckedImage, tolerance_mm: float = 0.01) -> bool:
    """Whether two images have the same shape and their voxels the same places (compared at the corners)."""
    if first.shape != second.shape:
        return False
    return _corner_distance_mm(first.affine, second.affine, first.shape) <= tolerance_mm


def handedness_warning(sodium: CheckedImage, anatomy: CheckedImage) -> str | None:
    """Say so if one of two images is stored mirrored with respect to the other.

    That is legal, and correct where the affines are; it is also what a wrong left-right flip looks like.
    """
    if sodium.right_handed == anatomy.right_handed:
        return None
    return (
        f"{sodium.path}: its voxel axes have the other handedness than those of {anatomy.path.name}. "
        "Check left and right in the report."
    )


def _load(path: Path) -> tuple[NDArray[np.float32], CheckedImage]:
    check_available(path)
    image, warnings = _parse(path)
    shape = _check_shape(path, image, warnings)
    affine = _check_affine(path, image, shape)
    data = _check_values(path, image, shape, warnings)
    return data, CheckedImage(path, shape, affine, tuple(f"{path}: {text}." for text in warnings))


def _open(path: Path) -> IO[bytes]:
    try:
        return path.open("rb")
    except OSError as error:
        raise InputError(path, f"cannot be read ({error.strerror})", "Check the permissions of the file") from None


def _parse(path: Path) -> tuple[Any, list[str]]:
    """Check the container and read it to its end, never inflating more than the header announces."""
    compressed = path.name.endswith(".gz")
    with _open(path) as raw:
        start = raw.read(4)
        raw.seek(0)
        if compressed and start[:2] != b"\x1f\x8b":
            kind = "an HTML page" if start[:1] == b"<" else "something else"
            raise InputError(path, f"is not a gzip file but {kind}, whatever its name says", _COPY_AGAIN)
        if not compressed and start[:2] == b"\x1f\x8b":
            raise InputError(path, "is a gzip file but its name does not end in .gz", "Rename it to .nii.gz")
        try:
            return _parse_stream(path, gzip.GzipFile(fileobj=raw) if compressed else raw)
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            size = path.stat().st_size
            fault = "ends too early" if isinstance(error, EOFError) else "is damaged (checksum or gzip stream)"
            raise InputError(path, f"{fault}, read as {size} bytes of gzip", _COPY_AGAIN) from None
        except OSError as error:
            raise InputError(path, f"cannot be read ({error})", _COPY_AGAIN) from None


def _parse_stream(path: Path, stream: IO[bytes] | gzip.GzipFile) -> tuple[Any, list[str]]:
    import nibabel as nib

    start = stream.read(540)
    classes: dict[int, Any] = {348: nib.Nifti1Image, 540: nib.Nifti2Image}
    sizes = {int.from_bytes(start[:4], "little"), int.from_bytes(start[:4], "big")}
    image_class = next((cls for size, cls in classes.items() if size in sizes and len(start) >= size), None)
    if image_class is None:
        raise InputError(path, "has no NIfTI header", "Convert the image to NIfTI-1 (.nii.gz)")
    header = image_class.header_class(start[: image_class.header_class.sizeof_hdr], check=False)
    expected = _announced_bytes(path, header)
    content = bytearray(start)
    while chunk := stream.read(_CHUNK):
        content += chunk
        if len(content) > expected + _MAX_EXCESS_BYTES:
            problem = f"holds more than the {expected} bytes that its header announces"
            raise InputError(path, problem, _COPY_AGAIN)
    if len(content) < expected:
        raise InputError(path, f"holds {len(content)} of the {expected} bytes that its header announces", _COPY_AGAIN)
    warnings = []
    if len(content) > expected:
        warnings.append(f"{len(content) - expected} bytes after the image were ignored")
    if float(header["scl_slope"]) == 0:
        warnings.append("scl_slope is 0, so values are taken as stored")
    try:
        return image_class.from_bytes(bytes(content)), warnings
    except Exception as error:  # nibabel raises many types for malformed headers
        raise InputError(path, f"has a NIfTI header that cannot be used ({error})", _COPY_AGAIN) from None


def _announced_bytes(path: Path, header: Any) -> int:
    """Size of the whole file by its header, refused before anything is allocated."""
    dims = [int(n) for n in header["dim"]]
    if not 1 <= dims[0] <= 7 or any(n < 1 for n in dims[1 : dims[0] + 1]):
        raise InputError(path, f"has the impossible dimensions {dims} in its header", _COPY_AGAIN)
    shape = dims[1 : dims[0] + 1]
    voxels = 1
    for n in shape:
        voxels *= n
    if voxels > MAX_VOXELS:
        problem = f"announces {' x '.join(map(str, shape))} voxels, above the limit of {MAX_VOXELS}"
        raise InputError(path, problem, "Check the header; crop or resample the image if it is truly that large")
    try:
        item = header.get_data_dtype().itemsize
    except Exception as error:  # nibabel raises HeaderDataError, KeyError
        raise InputError(path, f"has an unknown data type ({error})", "Convert it to float32") from None
    offset = float(header["vox_offset"])
    if not header.sizeof_hdr <= offset <= _MAX_HEADER_BYTES:
        raise InputError(path, f"announces its data at byte {offset:g}", _COPY_AGAIN)
    return int(offset) + voxels * int(item)


def _check_shape(path: Path, image: Any, warnings: list[str]) -> tuple[int, int, int]:
    shape = tuple(int(n) for n in image.shape)
    if len(shape) > 3 and all(n == 1 for n in shape[3:]):
        warnings.append(f"is stored with {len(shape)} dimensions but one volume, which was taken")
        shape = shape[:3]
    text = " x ".join(map(str, shape))
    if len(shape) > 3:
        mend = "Store one 3D file per echo or run (echo-1, echo-2, ... with an EchoTime each)"
        raise InputError(path, f"holds several volumes ({text}) where one is needed", mend)
    if len(shape) < 3 or min(shape) < 2:
        raise InputError(path, f"is not three-dimensional ({text})", "Give a 3D image of the whole head")
    return shape[0], shape[1], shape[2]


def _check_affine(path: Path, image: Any, shape: tuple[int, int, int]) -> NDArray[np.float64]:
    header = image.header
    if header.get_xyzt_units()[0] in ("meter", "micron"):
        raise InputError(path, f"gives lengths in {header.get_xyzt_units()[0]}s", "Convert its header to millimetres")
    mend = "Convert it again from DICOM, or set the right sform and qform"
    if int(header["sform_code"]) == 0 and int(header["qform_code"]) == 0:
        raise InputError(path, "says nothing of its place in space (sform and qform codes are both 0)", mend)
    try:
        sform, qform = header.get_sform(coded=True)[0], header.get_qform(coded=True)[0]
    except Exception as error:  # an impossible quaternion
        raise InputError(path, f"has a qform that cannot be used ({error})", mend) from None
    affine = np.asarray(qform if sform is None else sform, dtype=np.float64)
    axes = affine[:3, :3]
    sizes = np.linalg.norm(axes, axis=0)
    if not np.all(np.isfinite(affine)) or np.any(sizes < 1e-3):
        raise InputError(path, "has a singular affine (an axis without length, or values not finite)", mend)
    cosines = (axes / sizes).T @ (axes / sizes) - np.eye(3)
    if np.abs(cosines).max() > 0.999:
        raise InputError(path, "has a singular affine (two axes run along the same line)", mend)
    if np.abs(cosines).max() > MAX_SHEAR_COSINE:
        mend_shear = "Resample it to a grid with perpendicular axes"
        raise InputError(path, "has a sheared affine (its axes are not perpendicular)", mend_shear)
    if sform is not None and qform is not None:
        distance = _corner_distance_mm(affine, np.asarray(qform), shape)
        if not distance <= MAX_FORM_DISAGREEMENT_MM:
            problem = f"has an sform and a qform that differ by {distance:.3g} mm"
            raise InputError(path, problem, "Find out which is right and set both to it")
    return affine


def _corner_distance_mm(first: NDArray[Any], second: NDArray[Any], shape: tuple[int, int, int]) -> float:
    """Largest distance between the places that two affines give to the corners of a grid."""
    corners = np.array(np.meshgrid(*[(0, n - 1) for n in shape], indexing="ij")).reshape(3, -1)
    difference = np.asarray(first, dtype=float) - np.asarray(second, dtype=float)
    moved = difference[:3, :3] @ corners + difference[:3, 3:]
    return float(np.linalg.norm(moved, axis=0).max())


def _check_values(
    path: Path, image: Any, shape: tuple[int, ...], warnings: list[str], tolerated: float = MAX_NONFINITE_FRACTION
) -> NDArray[np.float32]:
    kind = image.get_data_dtype()
    if kind.kind == "c":
        raise InputError(path, "holds complex values", "Store the magnitude, or give the k-space under sourcedata")
    if kind.kind not in "iuf":
        raise InputError(path, f"holds {kind} values where one number per voxel is needed", "Convert it to float32")
    with np.errstate(over="ignore", invalid="ignore"):
        data = np.require(np.asarray(image.dataobj, dtype=np.float32), requirements="W").reshape(shape)
    finite = np.isfinite(data)
    bad = data.size - int(np.count_nonzero(finite))
    if bad > tolerated * data.size:
        problem = f"has {100 * bad / data.size:.2g} % of its voxels not finite (NaN or Inf)"
        raise InputError(path, problem, "Reconstruct it again, or set voxels outside the measured field to 0")
    if bad:
        data[~finite] = 0.0
        warnings.append(f"{bad} voxels were not finite (NaN or Inf) and count as 0")
    values = data[finite]
    if values.min() == values.max():
        raise InputError(path, f"has the same value ({values[0]:g}) in every voxel", _COPY_AGAIN)
    return data
