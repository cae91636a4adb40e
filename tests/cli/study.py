"""A coarse BIDS study with its anatomy given, so that a whole run takes seconds; for tests to run, spoil and resume."""

from __future__ import annotations

import io
import json
import logging
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from scipy import ndimage

from sodium_prep.atlas.bundled import load_atlas, load_template
from sodium_prep.cli.main import run

ROOT = Path(__file__).parents[2]
SODIUM = "sub-{0}/anat/sub-{0}_acq-sodium_PDw.nii.gz"
SIDECAR = "sub-{0}/anat/sub-{0}_acq-sodium_PDw.json"
T1W = "sub-{0}/anat/sub-{0}_T1w.nii.gz"
TABLE = "sub-{0}/anat/sub-{0}_acq-sodium_seg-DesikanKilliany_tsc.tsv"

_FINE_MM = 4.0
_N_FINE = 60
_VIALS = {"low": (20.0, (96.0, 60.0, 0.0)), "mid": (60.0, (-96.0, 60.0, 0.0)), "high": (110.0, (96.0, -60.0, 0.0))}
_CONCENTRATIONS_MM = {"gm": 45.0, "wm": 35.0, "csf": 140.0, "scalp": 25.0}
_IDENTITY = """\
#Insight Transform File V1.0
#Transform 0
Transform: AffineTransform_double_3_3
Parameters: 1 0 0 0 1 0 0 0 1 0 0 0
FixedParameters: 0 0 0
"""


def sidecar() -> dict:
    """Of the sodium image: Cartesian, so that its PSF is known without a simulation of spokes."""
    vials = [
        {"Label": label, "Concentration": value, "Matrix": "saline", "T1": 0.05, "T2starSlow": 0.05}
        | {"CentreRAS": list(centre), "Radius": 12.0, "ConcentrationError": 0.5}
        for label, (value, centre) in _VIALS.items()
    ]
    block = {"Trajectory": "Cartesian", "NominalResolution": [8.0, 8.0, 8.0], "KSpaceFilter": "none"}
    return {
        "ResonantNucleus": "23Na",
        "MagneticFieldStrength": 3.0,
        "EchoTime": 0.0005,
        "RepetitionTime": 0.3,
        "FlipAngle": 90,
        "SodiumAcquisition": block,
        "SodiumReferences": vials,
    }


def _affine(n_voxels: int, size_mm: float) -> np.ndarray:
    matrix = np.diag([size_mm, size_mm, size_mm, 1.0])
    matrix[:3, 3] = -0.5 * size_mm * (n_voxels - 1)
    return matrix


def _on_grid(volume: np.ndarray, affine: np.ndarray, order: int) -> np.ndarray:
    """A volume of the template on the fine grid, smoothed for the coarser voxels unless it holds labels."""
    values = ndimage.gaussian_filter(volume.astype(np.float32), 1.5) if order else volume
    matrix = np.linalg.inv(affine) @ _affine(_N_FINE, _FINE_MM)
    return ndimage.affine_transform(values, matrix[:3, :3], matrix[:3, 3], (_N_FINE,) * 3, order=order)


def save(path: Path, data: np.ndarray, size_mm: float = _FINE_MM) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(data, _affine(data.shape[0], size_mm)), path)


def put_json(path: Path, content: dict) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))


def head_maps() -> dict[str, np.ndarray]:
    """Brain, tissue fractions, labels and scalp on the fine grid."""
    template, atlas = load_template(), load_atlas()
    tissue = np.zeros(int(atlas.labels.max()) + 1, np.uint8)
    for number, name in enumerate(("GM", "WM", "CSF"), start=1):
        tissue[atlas.table.loc[atlas.table["tissue"] == name, "index"]] = number
    kinds = tissue[atlas.labels]
    kinds[(kinds == 0) & template.brain_mask] = 3
    head = {
        name: _on_grid(kinds == number, template.affine, 1) for number, name in enumerate(("gm", "wm", "csf"), start=1)
    }
    head["labels"] = _on_grid(atlas.labels, template.affine, 0).astype(np.int32)
    head["brain"] = (head["gm"] + head["wm"] + head["csf"]) > 0.5
    rim = ndimage.binary_dilation(head["brain"], iterations=3)
    head["scalp"] = (rim & ~ndimage.binary_dilation(head["brain"])).astype(np.float32)
    return head


def sodium_image(head: dict[str, np.ndarray], rng: np.random.Generator, decay: float = 1.0) -> np.ndarray:
    """Concentrations with vials, their k-space cut to voxels of twice the size, with noise of 1."""
    tsc_mM = sum(value * head[name] for name, value in _CONCENTRATIONS_MM.items())
    centres = np.indices(tsc_mM.shape).reshape(3, -1).T * _FINE_MM + _affine(_N_FINE, _FINE_MM)[:3, 3]
    for value, centre in _VIALS.values():
        distance = np.linalg.norm(centres - centre, axis=1).reshape(tsc_mM.shape)
        tsc_mM += value * np.clip((12.0 - distance) / _FINE_MM + 0.5, 0.0, 1.0)
    n = _N_FINE // 2
    frequency = np.fft.fftfreq(n) * n
    shift = np.exp(1j * np.pi * frequency / _N_FINE)  # the first coarse voxel lies half a fine one further on
    index = frequency.astype(int)
    kspace = decay * np.fft.fftn(tsc_mM)[np.ix_(index, index, index)] * np.einsum("i,j,k->ijk", shift, shift, shift)
    image = np.fft.ifftn(kspace) / 8.0 + rng.normal(size=(n, n, n)) + 1j * rng.normal(size=(n, n, n))
    return np.abs(image).astype(np.float32)


def make_study(root: Path, labels: tuple[str, ...] = ("01", "02")) -> Path:
    """Make ``root/raw`` and ``root/derivatives``; the participants differ in the noise only."""
    raw, given = root / "raw", root / "derivatives"
    put_json(raw / "dataset_description.json", {"Name": "coarse", "BIDSVersion": "1.10.0"})
    put_json(given / "dataset_description.json", {"Name": "given", "BIDSVersion": "1.10.0"})
    head = head_maps()
    t1w = (70 * head["gm"] + 100 * head["wm"] + 25 * head["csf"] + 80 * head["scalp"]).astype(np.float32)
    for seed, label in enumerate(labels):
        rng = np.random.default_rng(seed)
        save(raw / T1W.format(label), t1w + rng.normal(size=t1w.shape).astype(np.float32))
        save(raw / SODIUM.format(label), sodium_image(head, rng), 2 * _FINE_MM)
        put_json(raw / SIDECAR.format(label), sidecar())
        stem = given / f"sub-{label}" / "anat" / f"sub-{label}"
        save(Path(f"{stem}_desc-brain_mask.nii.gz"), head["brain"].astype(np.uint8))
        save(Path(f"{stem}_desc-aparcaseg_dseg.nii.gz"), head["labels"])
        for tissue in ("gm", "wm", "csf"):
            save(Path(f"{stem}_label-{tissue.upper()}_probseg.nii.gz"), head[tissue])
        Path(f"{stem}_acq-sodium_from-sodium_to-T1w_mode-image_xfm.txt").write_text(_IDENTITY)
    return root


@dataclass(frozen=True)
class Outcome:
    """What a command said and did; the steps without the name of the workflow."""

    code: int
    out: str
    err: str
    executed: list[str]
    unchanged: list[str]


def options(root: Path, out: Path, *extra: str) -> list[str]:
    """The arguments of a quick run of a study; ``root/work`` keeps the steps of all runs."""
    given = ["-d", f"given={root / 'derivatives'}", "--output-spaces", "T1w", "--skip-bids-validation", "--nprocs", "2"]
    return [str(root / "raw"), str(out), "participant", "-w", str(root / "work"), *given, *extra]


def run_here(arguments: list[str]) -> Outcome:
    """Run the command line in this process, which saves its imports, and leave no trace of it in the process."""
    ours = logging.getLogger("sodium_prep")
    numbers = (signal.SIGTERM, signal.SIGHUP)
    before = [signal.getsignal(number) for number in numbers], ours.propagate, ours.level
    out, err = io.StringIO(), io.StringIO()
    try:
        with redirect_stdout(out), redirect_stderr(err):
            code = run([*arguments, "-v"])
    except SystemExit as end:  # argparse ends the program itself
        code = int(end.code or 0)
    finally:
        for number, handler in zip(numbers, before[0], strict=True):
            signal.signal(number, handler)
        ours.handlers, ours.propagate = [], before[1]
        ours.setLevel(before[2])
    return Outcome(code, out.getvalue(), err.getvalue(), _steps(err, "done"), _steps(err, "unchanged"))


def _steps(stream: io.StringIO, word: str) -> list[str]:
    return re.findall(rf"^INFO {word} sodium_prep\.(\S+)", stream.getvalue(), re.MULTILINE)


def start(arguments: list[str], prepare: Callable[[], object] | None = None) -> subprocess.Popen[str]:
    """Start the command line in a process of its own; ``prepare`` runs in it before."""

    def begin() -> None:
        # A shell that runs the tests in the background makes its children deaf to SIGINT.
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        if prepare is not None:
            prepare()

    program = [sys.executable, "-m", "sodium_prep.cli.main", *arguments]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    return subprocess.Popen(
        program,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
        preexec_fn=begin,
    )


def read_status(out: Path) -> dict[str, Any]:
    return json.loads((out / "logs" / "status.json").read_text())


def files_below(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@contextmanager
def changed(path: Path) -> Iterator[None]:
    """Let a file be changed or removed, and put it back."""
    content, times = path.read_bytes(), path.stat()
    try:
        yield
    finally:
        path.unlink(missing_ok=True)
        path.write_bytes(content)
        os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
