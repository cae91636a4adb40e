"""Why the site belongs in the model, and what scaling by travelling volunteers does.

Usage: OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 python -m benchmarks.harmonisation [STUDIES]

False positives: 3 sites of 30, offsets 0, +4 and -5 mM, noise of 2 mM (first region) to 4 mM (last of 12) x 1, 1.3
and 0.8, and no effect of group; equally many patients at every site, or 80, 50 and 20 %. Tests at 5 %.

Travelling volunteers: 11 at two sites, whose scans repeat within 2 and 4 %, so that sites that measure alike have an
inter-site CoV of 3.2 %; the second site measures CSF 7.2 % too high, which makes 6 % (Riemer et al. 2019: 3, 3 and 6 %
in WM, GM and CSF). New volunteers are others than those that the factors are from.
"""

from __future__ import annotations

import sys

import numpy as np
import pandas as pd

from sodium_prep.cohort.combat import fit_combat
from sodium_prep.cohort.travelling import apply_factors, travelling_factors

SITES = np.repeat(["A", "B", "C"], 30)
OFFSETS, NOISE = np.repeat([0.0, 4.0, -5.0], 30), np.repeat([1.0, 1.3, 0.8], 30)
SHARES = {"balanced": (0.5, 0.5, 0.5), "0.8 / 0.5 / 0.2": (0.8, 0.5, 0.2)}
SPREAD = np.linspace(2.0, 4.0, 12)
ANALYSES = (
    "no site", "site in the model", "site in the model, HC3", "ComBat, then no site", "ComBat, then site in the model",
)  # fmt: skip
SCANS = {"A": 0.02, "B": 0.04}
TISSUES = {
    "WhiteMatter": (41.8, 6.7, 0.0),
    "Cortex": (52.1, 7.1, 0.0),
    "CSF": (140.0, 5.0, np.sqrt(2 * (0.06**2 - 0.001))),
}


def p_values(y: np.ndarray, group: np.ndarray, sites: bool, hc3: bool = False) -> np.ndarray:
    """t test of the group, with or without site in the linear model and errors that allow for unequal noise (HC3)."""
    from scipy.stats import t

    site = [name == SITES for name in ("B", "C")] if sites else []
    x = np.column_stack([np.ones(group.size), group, *site]).astype(float)
    inverse = np.linalg.inv(x.T @ x)
    beta, dof = inverse @ x.T @ y, len(y) - x.shape[1]
    left, weights = y - x @ beta, x @ inverse[1]
    variance = np.sum(left**2, axis=0) / dof * inverse[1, 1]
    if hc3:
        leverage = np.sum(x @ inverse * x, axis=1)
        variance = np.sum((left * (weights / (1.0 - leverage))[:, None]) ** 2, axis=0)
    return 2.0 * t.sf(np.abs(beta[1]) / np.sqrt(variance), dof)


def false_positives(shares: tuple[float, ...], studies: int, seed: int = 42) -> dict[str, float]:
    """Share of tests below 0.05 where no group differs."""
    rng = np.random.default_rng(seed)
    group = np.concatenate([np.arange(30) < round(30 * share) for share in shares])
    site, people = pd.Series(SITES), pd.DataFrame({"group": np.where(group, "AD", "CN")})
    hits = dict.fromkeys(ANALYSES, 0)
    for _ in range(studies):
        y = 40.0 + OFFSETS[:, None] + NOISE[:, None] * SPREAD * rng.normal(size=(90, SPREAD.size))
        values = pd.DataFrame(y, columns=[f"r{j}" for j in range(SPREAD.size)])
        harmonised = fit_combat(values, site, people).apply(values, site, people).to_numpy()
        tests = ((y, False), (y, True), (y, True, True), (harmonised, False), (harmonised, True))
        for name, (v, *how) in zip(ANALYSES, tests, strict=True):
            hits[name] += int((p_values(v, group, *how) < 0.05).sum())
    return {name: hits[name] / (studies * SPREAD.size) for name in ANALYSES}


def volunteers(rng: np.random.Generator, n: int = 11) -> pd.DataFrame:
    """Values of ``n`` volunteers, once at each of two sites."""
    rows = []
    for who in range(n):
        for region, (mean, sd, excess) in TISSUES.items():
            true = rng.normal(mean, sd)
            for site, cov in SCANS.items():
                measured = true * np.exp((site == "B") * excess + cov * rng.normal())
                rows.append((f"{who:02d}", f"at{site}", site, region, measured))
    frame = pd.DataFrame(rows, columns=["participant_id", "session_id", "site", "region", "tsc"])
    return frame.assign(
        acquisition="", reconstruction="", atlas="dk", hemisphere="both", index="", estimator="gtm", reference="vials",
        tsc_stderr=0.03 * frame["tsc"],
    )  # fmt: skip


def intersite_cov(values: pd.DataFrame) -> dict[str, float]:
    """Root mean square over the volunteers of SD between two sites over mean, by region, %."""
    wide = values.pivot(index=["region", "participant_id"], columns="site", values="tsc")
    squares = (wide["A"] - wide["B"]) ** 2 / 2.0 / wide.mean(axis=1) ** 2
    return (100.0 * np.sqrt(squares.groupby(level="region").mean())).to_dict()


def travelling(studies: int, seed: int = 42) -> dict[str, dict[str, float]]:
    """Inter-site CoV of the volunteers, raw and scaled, and of new ones scaled by their factors; in %."""
    rng = np.random.default_rng(seed)
    sums: dict[str, dict[str, float]] = {}
    for _ in range(studies):
        here, new = volunteers(rng), volunteers(rng)
        factors = travelling_factors(here)
        scaled, news = apply_factors(here, factors), apply_factors(new, factors)
        for name, table in (("without scaling", here), ("scaled", scaled), ("new ones, scaled", news)):
            for region, cov in intersite_cov(table).items():
                sums.setdefault(name, dict.fromkeys(TISSUES, 0.0))[region] += cov**2 / studies
    return {name: {region: np.sqrt(v) for region, v in row.items()} for name, row in sums.items()}


def main(argv: list[str] | None = None) -> int:
    arguments = sys.argv[1:] if argv is None else argv
    studies = int(arguments[0]) if arguments else 1500
    for name, shares in SHARES.items():
        print(f"false positives, patients {name} ({studies} studies, {SPREAD.size} regions)")
        for analysis, rate in false_positives(shares, studies).items():
            print(f"  {analysis:34s} {100 * rate:5.1f} %")
    few = max(studies // 5, 1)
    print(f"inter-site CoV, % ({few} studies of 11 volunteers): {', '.join(TISSUES)}")
    for name, row in travelling(few).items():
        print(f"  {name:34s} " + "  ".join(f"{row[region]:4.1f}" for region in TISSUES))
    return 0


if __name__ == "__main__":
    sys.exit(main())
