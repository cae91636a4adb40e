"""The sub-command ``pvc``: regions of one image, without a data set around it."""

from __future__ import annotations

import argparse
import csv
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import scipy.sparse
from numpy.typing import NDArray

import sodium_prep
from sodium_prep.bids.images import CheckedImage, check_available, load_finite, same_grid
from sodium_prep.bids.outputs import json_beside, write_json, write_tsv
from sodium_prep.bids.sidecar import sidecar_from_files
from sodium_prep.errors import InputError, UsageError
from sodium_prep.physics.relaxation import TISSUES, Relaxation, Tissue, tissue_relaxation
from sodium_prep.pvc.estimators import ILL_DETERMINED, RegionValues
from sodium_prep.pvc.psf import PsfModel
from sodium_prep.pvc.samegrid import SameGrid, sparse_fractions

METHODS: Final[dict[str, Callable[[SameGrid, NDArray[np.float32], float | None], RegionValues]]] = {
    "labbe": SameGrid.labbe,
    "gtm": SameGrid.gtm,
}
"""Of ``--method``."""
COLUMNS: Final[dict[str, dict[str, Any]]] = {
    "index": {"Description": "Label of the region, or number of its volume from 1"},
    "name": {"Description": "Name of the region"},
    "tissue": {"Description": "Tissue that decides the point spread function; n/a where one holds for all"},
    "method": {
        "Description": "How the value was corrected",
        "Levels": {
            "labbe": "least squares on the regions as the acquisition blurs them (Labbe et al. 1998)",
            "gtm": "geometric transfer matrix (Rousset et al. 1998)",
        },
    },
    "volume_mm3": {"Description": "Volume of the region", "Units": "mm^3"},
    "uncorrected": {"Description": "Mean over the region, in the unit of the image"},
    "value": {"Description": "Corrected value, in the unit of the image"},
    "stderr": {"Description": "Standard error from noise, widened where the residual is larger than noise explains"},
    "inflation": {"Description": "Factor by which the other regions raise the variance of the value", "Units": "1"},
    "flag": {
        "Description": "Why the row must be read with care, joined by +; ok if nothing is known against it",
        "Levels": {
            "absent": "the region has no volume",
            "ill-determined": f"inflation above {ILL_DETERMINED:g}: the image does not tell it from its neighbours",
            "uncertain": "standard error above 25 % of the value",
        },
    },
}
_SUM_TOLERANCE: Final = 0.01
_HIGHEST_LABEL: Final = 1_000_000
_WIDEST_MM: Final = 100.0


@dataclass(frozen=True)
class _Regions:
    """Labels 1..n or sparse fractions, with the index that the user knows each region by."""

    maps: NDArray[np.int32] | scipy.sparse.csr_matrix
    index: list[int]


def correct_regions(args: argparse.Namespace) -> int:
    """Do what the options of ``sodium-prep-tools pvc`` say."""
    _check_options(args)
    psf, source, known = _psf(args)
    image, grid = load_finite(args.image)
    regions = _read_regions(args.regions, grid)
    rows = _read_names(args.table) if args.table else {}
    regions, names, tissues = _described(regions, rows, args, needs_tissue=psf.kind == "acquisition")
    # A Gaussian is the same for every tissue.
    used: list[Tissue] = tissues if psf.kind == "acquisition" else ["GM"] * len(names)
    relaxations = {tissue: known[tissue] for tissue in set(used)}
    model = SameGrid(regions.maps, grid.shape, grid.voxel_mm, psf, used, relaxations)
    together = "Merge regions, or leave out such as the image is too coarse for"
    if len(names) >= model.n_modes:
        problem = f"has {len(names)} regions where the point spread function leaves {model.n_modes} independent values"
        raise InputError(args.regions, problem, together)
    try:
        fits = {method: METHODS[method](model, image, args.noise) for method in dict.fromkeys(args.method)}
    except np.linalg.LinAlgError:
        raise InputError(args.regions, "has regions that cannot be told apart", together) from None
    means, volumes = model.means(image)
    table = [
        {
            "index": regions.index[i],
            "name": names[i],
            "tissue": tissues[i] if tissues else None,
            "method": method,
            "volume_mm3": volumes[i] * np.prod(grid.voxel_mm),
            "uncorrected": means[i],
            "value": fit.values[i],
            "stderr": fit.standard_errors[i],
            "inflation": fit.inflation[i],
            "flag": _flag(fit, i),
        }
        for method, fit in fits.items()
        for i in range(len(names))
    ]
    write_tsv(args.output, table, list(COLUMNS))
    write_json(json_beside(args.output), COLUMNS | _record(args, grid, psf, source, relaxations, fits))
    for warning in grid.warnings:
        print(warning)
    print(args.output)
    return 0


def _check_options(args: argparse.Namespace) -> None:
    if not args.output.name.endswith(".tsv"):
        raise UsageError(args.output, "is not a .tsv file name", "Give one")
    inputs = [p.resolve() for p in (args.image, args.regions, args.table, args.sidecar, args.protocol) if p]
    for path in (args.output, json_beside(args.output)):
        if path.resolve() in inputs:
            raise UsageError(path, "is an input, and would be written over", "Give another --output")
    if (args.psf is None) == (args.sidecar is None and args.protocol is None):
        problem = "are both missing" if args.psf is None else "are both given"
        mend = "Give the width of a Gaussian in millimetres, or --sidecar or --protocol of the acquisition"
        raise UsageError("--psf and --sidecar or --protocol", problem, mend)
    for option, value, highest in (("--psf", args.psf, _WIDEST_MM), ("--noise", args.noise, np.finfo(np.float32).max)):
        if value is not None and not 0.0 < value <= highest:
            unit = "millimetres" if option == "--psf" else "the unit of the image"
            raise UsageError(option, f"is {value:g}", f"Give a positive number in {unit}")


def _psf(args: argparse.Namespace) -> tuple[PsfModel, dict[str, Any], dict[Tissue, Relaxation]]:
    """Model, what to say of it, and relaxation times, which a Gaussian does not depend on."""
    if args.psf is not None:
        model = PsfModel("gaussian", fwhm_mm=args.psf)
        return model, {"kind": "gaussian", "fwhm_mm": args.psf}, {"GM": tissue_relaxation("GM", 3.0)}
    sidecar = sidecar_from_files(args.sidecar, args.protocol)
    facts, block = sidecar.acquisition(), sidecar.sodium_acquisition
    for key, named in (("PointSpreadFunction", block.psf_files), ("NonlinearReconstruction", block.nonlinear)):
        if named:
            problem = f"has {key}, but here the point spread function is computed from the acquisition"
            raise InputError(args.sidecar or args.protocol, problem, "Give --psf, the width of a Gaussian that holds")
    if not facts.psf_known:
        problem = f"does not tell the point spread function: {', '.join(facts.missing)} missing"
        raise InputError(args.sidecar or args.protocol, problem, "Add to SodiumAcquisition, or give --psf")
    record = {"kind": "acquisition", **asdict(facts.acquisition), "assumed": facts.assumed}
    given, field_t = sidecar.relaxation_given(), sidecar.field_strength_t
    known = {tissue: tissue_relaxation(tissue, field_t, given.get(tissue)) for tissue in TISSUES}
    return PsfModel("acquisition", facts.acquisition), record, known


def _read_regions(path: Path, grid: CheckedImage) -> _Regions:
    data, checked = load_finite(path, volumes=True)
    if not same_grid(grid, checked):
        mend = "Resample the regions onto the grid of the image (labels by nearest neighbour)"
        shapes = " and ".join(" x ".join(map(str, one.shape)) for one in (checked, grid))
        raise InputError(path, f"is not on the grid of {grid.path.name} ({shapes} voxels, or another affine)", mend)
    if data.ndim == 4:
        total = data.sum(axis=3)
        worst = float(total.flat[np.abs(total - 1.0).argmax()])
        if abs(worst - 1.0) > _SUM_TOLERANCE or float(data.min()) < -_SUM_TOLERANCE:
            problem = f"its fractions add up to {worst:.3g} in a voxel, the least is {data.min():.3g}"
            raise InputError(path, problem, "Give fractions from 0 to 1 that fill every voxel, air and skull included")
        maps = sparse_fractions([data[..., i] for i in range(data.shape[3])])
        return _Regions(maps, list(range(1, data.shape[3] + 1)))
    low, high = float(data.min()), float(data.max())
    if low < 0.0 or high > _HIGHEST_LABEL or not np.array_equal(data, np.rint(data)):
        problem = f"holds values from {low:g} to {high:g} that are not all labels"
        raise InputError(path, problem, f"Give whole numbers from 0 to {_HIGHEST_LABEL}, or fractions in 4 dimensions")
    labels = np.ascontiguousarray(data, np.int32)
    present = np.bincount(labels.reshape(-1)) > 0
    return _Regions(np.cumsum(present, dtype=np.int32)[labels], [int(label) for label in np.flatnonzero(present)])


def _read_names(path: Path) -> dict[int, dict[str, str]]:
    """Rows of the table by their index."""
    check_available(path)
    mend = "Give tab-separated columns index, name and tissue, one row per region"
    try:
        with path.open(encoding="utf-8-sig", newline="") as stream:
            read = list(csv.DictReader(stream, delimiter="\t"))
        rows = {int(row["index"]): row for row in read}
    except (ValueError, KeyError, TypeError, csv.Error) as error:
        raise InputError(path, f"cannot be read as a table of regions ({error})", mend) from None
    if not rows or len(rows) != len(read) or any(not (row.get("name") or "").strip() for row in rows.values()):
        raise InputError(path, "has no row, an index twice, or a row without a name", mend)
    return rows


def _described(
    regions: _Regions, rows: dict[int, dict[str, str]], args: argparse.Namespace, *, needs_tissue: bool
) -> tuple[_Regions, list[str], list[Tissue]]:
    """Names of the regions, and their tissues where these are needed; regions of the table that are nowhere come last.

    Label 0 is what no region covers: it is fitted like the others, for it gives and takes signal too.
    """
    if rows and (unnamed := [i for i in regions.index if i not in rows and i != 0]):
        problem = f"has no row for {', '.join(map(str, unnamed[:5]))}"
        raise InputError(args.table, problem, f"Give every region of {args.regions.name} a row")
    if isinstance(regions.maps, np.ndarray):
        regions = _Regions(regions.maps, regions.index + sorted(set(rows) - set(regions.index)))
    elif absent := set(rows) - set(regions.index):
        raise InputError(args.table, f"has a row {min(absent)} that no volume stands for", "Number the volumes from 1")
    names = [rows[i]["name"].strip() if i in rows else f"region-{i}" if i else "background" for i in regions.index]
    if not needs_tissue:
        return regions, names, []
    tissues: list[Tissue] = []
    for i in regions.index:
        given = (rows.get(i, {}).get("tissue") or "").strip()
        found = next((tissue for tissue in TISSUES if tissue == given), None)
        if found is None:
            problem = (
                f"tells no tissue of region {i}" if not given else f"has the unknown tissue {given} for region {i}"
            )
            mend = f"Give one of {', '.join(TISSUES)} in the column tissue, for index 0 too if it is a label"
            raise InputError(args.table or "--table", problem, mend)
        tissues.append(found)
    return regions, names, tissues


def _flag(fit: RegionValues, i: int) -> str:
    if not np.isfinite(fit.values[i]):
        return "absent"
    conditions = {
        "ill-determined": fit.inflation[i] > ILL_DETERMINED,
        "uncertain": fit.standard_errors[i] > 0.25 * abs(fit.values[i]),
    }
    return "+".join(name for name, holds in conditions.items() if holds) or "ok"


def _record(
    args: argparse.Namespace,
    grid: CheckedImage,
    psf: PsfModel,
    source: dict[str, Any],
    relaxations: dict[Tissue, Relaxation],
    fits: dict[str, RegionValues],
) -> dict[str, Any]:
    """What was done, beside the meaning of the columns."""
    if psf.kind == "acquisition":
        source = source | {"relaxation": {tissue: asdict(values) for tissue, values in relaxations.items()}}
    return {
        "Description": "Regional values corrected for partial volume; image and regions on one grid",
        "GeneratedBy": [{"Name": "sodium_prep", "Version": sodium_prep.__version__}],
        "Image": args.image,
        "Regions": args.regions,
        "RegionTable": args.table,
        "VoxelSize": grid.voxel_mm,
        "PointSpreadFunction": source,
        "NoiseFrom": "residual" if args.noise is None else "option --noise",
        "Fits": {
            method: {
                "ConditionNumber": fit.condition,
                "NoiseStandardDeviation": fit.noise_sd,
                "ResidualStandardDeviation": fit.residual_sd,
                "Misfit": fit.misfit,
            }
            for method, fit in fits.items()
        },
    }
