"""Published sodium concentrations of the healthy brain: shown as a cited table, never a reason to fail a scan."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True)
class Norm:
    """One published study: mean and standard deviation in mM (``n/a`` where it gives none)."""

    study: str
    setting: str
    grey: str
    white: str
    other: str
    citation: str


LITERATURE_NORMS: Final[tuple[Norm, ...]] = (
    Norm(
        "Riemer et al. 2019",
        "3 T, two vendors, 11 volunteers, 3D cones 4 mm",
        "52.1 ± 7.1",
        "41.8 ± 6.7",
        "scan-rescan variation 2 to 4 %, between sites 3 to 6 %",
        "riemer2019",
    ),
    Norm(
        "Ouwerkerk et al. 2003",
        "20 patients with tumours and 9 volunteers (mmol/kg wet weight)",
        "61 ± 8",
        "69 ± 10",
        "CSF 135 ± 10, vitreous humour 113 ± 14",
        "ouwerkerk2003",
    ),
    Norm("Hagiwara et al. 2021", "review", "30 to 56 (brain tissue)", "30 to 56 (brain tissue)", "", "hagiwara2021"),
)

NORMS_CAUTION: Final = (
    "The published values disagree even in which tissue holds more sodium. They are given for orientation: a scan "
    "outside them deserves a look, and never fails for it."
)
