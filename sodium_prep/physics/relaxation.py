"""Relaxation times of sodium in brain tissue, each with its uncertainty and citation.

Sources: T2* at 3 T from Riemer et al., NMR Biomed 2018 (doi:10.1002/nbm.3899); T2* at 7 T from Niesporek et al.,
MAGMA 2017 (GM, WM); T2* of CSF from Fleysher et al. 2009 as tabulated by Ridley et al., Sci Rep 2018
(doi:10.1038/s41598-018-22711-0, table 4); short fraction 0.6 from spin-3/2 theory (motional narrowing). T1 values of
tissue vary between reports, so they carry a wide uncertainty that reaches the confidence intervals.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final, Literal

Tissue = Literal["GM", "WM", "CSF", "extracerebral", "vitreous"]
TISSUES: Final[tuple[Tissue, ...]] = ("GM", "WM", "CSF", "extracerebral", "vitreous")


@dataclass(frozen=True)
class Relaxation:
    """T1 and biexponential T2* of one compartment, in seconds.

    ``fraction_fast`` is the signal fraction that decays with ``t2star_fast_s``; a compartment with one component has
    ``fraction_fast = 0``. The ``*_sd`` fields are standard uncertainties of the values.
    """

    t1_s: float
    t2star_slow_s: float
    t2star_fast_s: float = 1e-3
    fraction_fast: float = 0.0
    t1_sd_s: float = 0.0
    t2star_slow_sd_s: float = 0.0
    t2star_fast_sd_s: float = 0.0
    fraction_fast_sd: float = 0.0
    citation: str = field(default="", compare=False)


_RIEMER = "Riemer et al., NMR Biomed 2018, doi:10.1002/nbm.3899"
_NIESPOREK = "Niesporek et al., MAGMA 2017 (7 T)"
_FLEYSHER = "Fleysher et al. 2009 in Ridley et al., Sci Rep 2018, doi:10.1038/s41598-018-22711-0, table 4"
_FLUID = Relaxation(0.064, 0.054, t1_sd_s=0.004, t2star_slow_sd_s=0.004, citation=_FLEYSHER)

_AT_3T: Final[dict[Tissue, Relaxation]] = {
    "GM": Relaxation(0.038, 0.0263, 0.0039, 0.6, 0.004, 0.0026, 0.0005, 0.03, _RIEMER),
    "WM": Relaxation(0.036, 0.0235, 0.0034, 0.6, 0.004, 0.0018, 0.0002, 0.03, _RIEMER),
    "CSF": _FLUID,
    "vitreous": _FLUID,
    "extracerebral": Relaxation(0.035, 0.0200, 0.0030, 0.6, 0.006, 0.0050, 0.0010, 0.05, "assumed, as muscle"),
}
_AT_7T: Final[dict[Tissue, Relaxation]] = _AT_3T | {
    "GM": Relaxation(0.038, 0.0364, 0.0054, 0.6, 0.004, 0.0031, 0.0002, 0.03, _NIESPOREK),
    "WM": Relaxation(0.036, 0.0233, 0.0035, 0.6, 0.004, 0.0026, 0.0001, 0.03, _NIESPOREK),
}


def tissue_relaxation(tissue: Tissue, field_strength_t: float) -> Relaxation:
    """Literature relaxation times of a tissue at the nearer of 3 T and 7 T.

    Parameters
    ----------
    tissue
        One of :data:`TISSUES`.
    field_strength_t
        Static field, tesla.
    """
    return (_AT_7T if field_strength_t > 5.0 else _AT_3T)[tissue]
