"""Regional signal of a weighted image, relative to one region: it has no concentration."""

from __future__ import annotations

from typing import Any, Final

import numpy as np

from sodium_prep.quant.weighted import CAUTION, Weighting
from sodium_prep.regional.asymmetry import ratio
from sodium_prep.regional.signals import RegionalSignals

REFERENCE_REGION: Final = ("WhiteMatter", "both")
"""Name and hemisphere: large, and neither nulled with fluid by an inversion nor dark behind a quantum filter."""
_UNCERTAIN: Final = 0.25

RELATIVE_COLUMNS: Final[dict[str, dict[str, Any]]] = {
    "index": {"Description": "Label of the region in the atlas; n/a for regions that are merged or without a label"},
    "name": {"Description": "Name of the region"},
    "hemisphere": {
        "Description": "Side of the brain",
        "Levels": {"L": "left", "R": "right", "both": "both, or midline"},
    },
    "tissue": {"Description": "Tissue of the region"},
    "weighting": {
        "Description": "Kind of the image",
        "Levels": {"IR": "prepared by an inversion", "TQ": "behind a multiple-quantum filter"},
    },
    "reference_region": {"Description": "Region, of both sides, whose mean signal is 1"},
    "n_voxels": {"Description": "Native sodium voxels of the mean"},
    "volume_mm3": {"Description": "Volume of the region's tissue in the anatomical image", "Units": "mm^3"},
    "coverage": {"Description": "Part of the region's volume inside usable sodium voxels", "Units": "1"},
    "relative_signal": {
        "Description": "Mean weighted signal over the region's voxels over that of the reference region, not corrected "
        "for partial volume. " + CAUTION,
        "Units": "1",
    },
    "relative_stderr": {
        "Description": "Standard error from noise and registration, with what both regions share",
        "Units": "1",
    },
    "relative_sd": {"Description": "Standard deviation over the region's voxels, over the reference", "Units": "1"},
    "flag": {
        "Description": "Why the row must be read with care; ok if nothing is known against it",
        "Levels": {
            "absent": "the region or the reference region has no signal here",
            "uncertain": "standard error above 25 % of the value",
        },
    },
    "caution": {"Description": "What holds for every value of a weighted image"},
}
"""Columns of the table of a weighted image, with the fields of a BIDS data dictionary."""


def relative_table(signals: RegionalSignals, weighting: Weighting) -> list[dict[str, Any]]:
    """Mean weighted signal of every region over that of white matter.

    Parameters
    ----------
    signals
        With the estimator ``none``: relaxation of a prepared image is not that of the model that others rest on.

    Returns
    -------
    Rows with the keys of :data:`RELATIVE_COLUMNS`; NaN where there is no value.
    """
    found, means = signals.by_estimator["none"], signals.means
    unit = np.eye(len(signals.regions))
    reference = next(
        (i for i, r in enumerate(signals.regions) if r.index is None and (r.name, r.hemisphere) == REFERENCE_REGION),
        None,
    )
    rows = []
    for i, region in enumerate(signals.regions):
        value, sd, spread = (float("nan"),) * 3
        if reference is not None:
            value, sd = ratio(found.values, found.covariance, unit[i], unit[reference])
            spread = float(means.sd[i] / found.values[reference]) if np.isfinite(value) else spread
        flag = "absent" if not np.isfinite(value) else "uncertain" if sd > _UNCERTAIN * abs(value) else "ok"
        rows.append(
            {
                "index": region.index,
                "name": region.name,
                "hemisphere": region.hemisphere,
                "tissue": region.tissue,
                "weighting": weighting,
                "reference_region": REFERENCE_REGION[0],
                "n_voxels": int(means.n_voxels[i]),
                "volume_mm3": float(signals.volumes_mm3[i]),
                "coverage": float(means.coverage[i]),
                "relative_signal": value,
                "relative_stderr": sd,
                "relative_sd": spread,
                "flag": flag,
                "caution": CAUTION,
            }
        )
    return rows
