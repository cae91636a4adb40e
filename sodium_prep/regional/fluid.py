"""Signal of the fluid as a reference of its own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import scipy.sparse
from numpy.typing import NDArray

from sodium_prep.pvc.compartments import Compartments
from sodium_prep.pvc.estimators import RegionalSystem, RegionFit
from sodium_prep.regional.designs import Design, Region, merged_design
from sodium_prep.regional.estimates import Model, Parameter, corrected

Array = NDArray[np.float64]


@dataclass(frozen=True)
class CsfReference:
    """Signal of CSF as a reference of its own, by least squares.

    Attributes
    ----------
    signal
        Of pure fluid.
    within_sd
        From noise and registration.
    factor
        Signal factor of CSF at the transmit field there.
    changes
        Of the signal by each relaxation parameter through PSF and signal factor together, for one standard deviation:
        what that parameter does to the slope of the line, in units of signal.
    covariance : (n,)
        With the least-squares signals of the regions, from noise and registration.
    """

    signal: float
    within_sd: float
    factor: float
    changes: dict[Parameter, float]
    covariance: Array = field(repr=False)

    @property
    def sd(self) -> float:
        """From noise, registration and relaxation."""
        return float(np.sqrt(self.within_sd**2 + sum(change**2 for change in self.changes.values())))


def csf_design(c: Compartments) -> Design | None:
    """The ventricles of the atlas as one region, all CSF if it has none."""
    fluid = [i for i in c.regions if c.structures[i] == "csf" and c.voxels[i].size]
    if not fluid:
        return None
    ventricles = [i for i in fluid if "vent" in c.names[i].lower()]
    return merged_design(c, Region(None, "CSFReference", "both", "CSF", tuple(ventricles or fluid)))


def csf_reference(
    model: Model,
    system: RegionalSystem,
    fits: Sequence[RegionFit],
    fluid: Design,
    fractions: scipy.sparse.csr_matrix,
    b1_plus: NDArray[np.floating] | None,
    sds: Mapping[Parameter, float],
) -> CsfReference:
    """The fluid as one more region beside all others, so that what they share is known."""
    region, kappa = fluid.regions[0], 1.0
    if b1_plus is not None:
        share = np.asarray(fractions[list(region.members)].sum(axis=0)).reshape(-1)
        kappa = float(share @ np.asarray(b1_plus, float).reshape(-1) / share.sum())
    every = replace(
        model,
        designs=[*model.designs, fluid],
        regions=(*model.regions, region),
        kappa=np.append(model.kappa, kappa if kappa > 0.0 else 1.0),
    )
    all_fits = [*fits, system.fit(fluid.membership)]
    joint = corrected(every, all_fits, [fit.misfit for fit in all_fits])
    value = float(joint.values[-1])
    changes = {
        p: sd
        * float(
            (joint.slopes[p][-1] if p in joint.slopes else 0.0)
            - value * (joint.log_slopes[p][-1] if p in joint.log_slopes else 0.0)
        )
        for p, sd in sds.items()
    }
    return CsfReference(
        value,
        float(np.sqrt(joint.covariance[-1, -1])),
        float(joint.factors[-1]),
        changes,
        joint.covariance[:-1, -1],
    )
