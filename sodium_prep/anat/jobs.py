"""Registration programs (ANTs, greedy), each run in a process of its own on files in a fresh folder.

Arrays go in and out as NIfTI files in a temporary folder, and the program runs inside that folder with relative names,
so that no character of a path can upset its argument parser. One thread and a fixed seed make results the same bytes on
every run.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sodium_prep.errors import InputError, ResourceError

_LOGGER = logging.getLogger(__name__)


@dataclass(frozen=True)
class Volume:
    """A 3-D image with its place: data (X, Y, Z) and affine (4, 4), voxel to RAS mm."""

    data: NDArray[Any]
    affine: NDArray[np.float64]

    @property
    def voxel_mm(self) -> NDArray[np.float64]:
        """Voxel size along the axes, (3,)."""
        return np.asarray(np.linalg.norm(self.affine[:3, :3], axis=0), dtype=np.float64)


@dataclass(frozen=True)
class JobSettings:
    """How a program is run: threads (results are reproducible with one only), random seed, time limit per program."""

    n_threads: int = 1
    seed: int = 42
    timeout_s: float = 7200.0


@dataclass(frozen=True)
class Cost:
    """What one program took."""

    cpu_s: float
    peak_memory_gb: float


_DEFAULT = JobSettings()


def run_job(step: str, program: str, args: Sequence[str], folder: Path, settings: JobSettings = _DEFAULT) -> Cost:
    """Run one program with a folder as its working directory.

    Parameters
    ----------
    step
        Name of the step, for messages.
    program
        Name of an ANTs program, or ``greedy``.
    args
        Its command line; files by names within the folder.

    Raises
    ------
    ResourceError
        If the program fails, is killed or takes longer than the time limit; the message holds the end of its stderr.
    """
    (folder / "job.json").write_text(json.dumps({"program": program, "args": list(args)}))
    environment = os.environ | {
        "ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS": str(settings.n_threads),
        "ANTS_RANDOM_SEED": str(settings.seed),
        "SODIUM_PREP_PARENT": str(os.getpid()),
        "TMPDIR": str(folder),
        "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
    }
    command = [sys.executable, "-m", "sodium_prep.anat._worker", str(folder)]
    with (folder / "stdout.txt").open("wb") as out, (folder / "stderr.txt").open("wb") as err:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=out, stderr=err, env=environment, start_new_session=True
        )
        try:
            exit_code = process.wait(settings.timeout_s)
        except subprocess.TimeoutExpired:
            raise ResourceError(
                step,
                f"{program} did not end within {settings.timeout_s:g} s",
                "Allow it more time or look at the image",
            ) from None
        finally:
            _end(process)
    if exit_code != 0:
        raise ResourceError(step, _cause(program, exit_code, folder), "Look at the image, or give the run more memory")
    result = json.loads((folder / "result.json").read_text())
    cost = Cost(result["cpu_s"], result["peak_memory_gb"])
    _LOGGER.info("%s: %.1f CPU s, %.2f GB", step, cost.cpu_s, cost.peak_memory_gb)
    return cost


@contextmanager
def job_folder() -> Iterator[Path]:
    """Give a fresh temporary folder that is gone afterwards, whatever happens."""
    folder = Path(tempfile.mkdtemp(prefix="sodium_prep_job_"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def write_volume(path: Path, volume: Volume) -> None:
    """Write a volume as NIfTI with equal qform and sform.

    Raises
    ------
    InputError
        If the affine is not a rotation with scaling, or an intensity is not finite: ITK would misplace the one
        without a word and never end on the other.
    """
    import nibabel as nib

    affine = np.asarray(volume.affine, dtype=np.float64)
    if affine.shape != (4, 4) or not np.all(np.isfinite(affine)):
        raise InputError("image header", "the affine is missing or not finite", "Write a valid sform and qform")
    axes = affine[:3, :3] / np.maximum(np.linalg.norm(affine[:3, :3], axis=0), 1e-12)
    if abs(abs(np.linalg.det(axes)) - 1.0) > 1e-3:
        raise InputError("image header", "the affine is sheared or singular", "Resample the image to a regular grid")
    data = np.asarray(volume.data)
    if data.ndim != 3:
        raise InputError("image", f"it has shape {data.shape}", "Give a 3-D image")
    if data.dtype == bool:
        data = data.astype(np.uint8)
    if np.issubdtype(data.dtype, np.floating):
        data = data.astype(np.float32)
        if not np.all(np.isfinite(data)):
            raise InputError("image", "it holds NaN or infinite values", "Replace them before processing")
    image = nib.Nifti1Image(data, affine)  # type: ignore[no-untyped-call]
    image.set_qform(affine, 1)  # type: ignore[no-untyped-call]
    image.set_sform(affine, 1)  # type: ignore[no-untyped-call]
    nib.save(image, path)


def read_volume(path: Path) -> NDArray[np.float32]:
    """Read the data of an image that a program has written."""
    import nibabel as nib

    return np.asarray(nib.load(path).dataobj, dtype=np.float32)  # type: ignore[attr-defined]


def _end(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _cause(program: str, exit_code: int, folder: Path) -> str:
    text = (folder / "stderr.txt").read_text(errors="replace") + (folder / "stdout.txt").read_text(errors="replace")
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    telling = [line for line in lines if any(word in line.lower() for word in ("error", "exception", "descr"))]
    last = "; ".join((telling or lines)[-3:]) or "no message"
    how = f"was killed by signal {-exit_code}" if exit_code < 0 else f"ended with code {exit_code}"
    return f"{program} {how} ({last})"
