"""Time of voxel-wise T2* fits at the size of a clinical scan, and how often their intervals hold the truth.

Usage: OMP_NUM_THREADS=1 python benchmarks/t2star.py
"""

from __future__ import annotations

import time

import numpy as np

from sodium_prep.quant.t2star import fit_t2star

SHAPE, N_VOXELS = (80, 80, 80), 200_000
ECHOES_S = np.array([0.3, 1.0, 2.5, 5.0, 10.0, 18.0, 30.0, 45.0]) * 1e-3
SHARE, FAST_S, SLOW_S = 0.6, 0.0035, 0.024
TRUTH = {"amplitude": 1.0, "fraction_fast": SHARE, "t2star_fast": FAST_S, "t2star_slow": SLOW_S, "t2star": SLOW_S}


def magnitudes(snr, share, n_channels, rng):
    """A volume of which the first voxels hold signal."""
    parts = rng.standard_normal((2 * n_channels, *SHAPE, len(ECHOES_S)), dtype=np.float32) / snr
    signal = share * np.exp(-ECHOES_S / FAST_S) + (1.0 - share) * np.exp(-ECHOES_S / SLOW_S)
    parts[0].reshape(-1, len(ECHOES_S))[:N_VOXELS] += signal.astype(np.float32)
    return np.sqrt((parts**2).sum(axis=0))


def main():
    rng = np.random.default_rng(0)
    print(f"{SHAPE} voxels, {N_VOXELS} with signal, {len(ECHOES_S)} echoes; CPU seconds, coverage of 95 % intervals")
    for model, share, snr, n_channels in (
        ("mono", 0.0, 15.0, 1),
        ("mono", 0.0, 15.0, 8),
        ("biexponential", SHARE, 50.0, 1),
    ):
        data = magnitudes(snr, share, n_channels, rng)
        for interval in ("wald", "profile"):
            start = time.process_time()
            fit = fit_t2star(data, ECHOES_S, 1.0 / snr, model=model, n_channels=n_channels, interval=interval)
            taken = time.process_time() - start
            inside = np.zeros(SHAPE, bool)
            inside.reshape(-1)[:N_VOXELS] = True
            held = {}
            for name in fit.values:
                known = inside & np.isfinite(fit.values[name])
                held[name] = np.mean((fit.low[name] <= TRUTH[name])[known] & (TRUTH[name] <= fit.high[name])[known])
            told = ", ".join(f"{name} {share_held:.3f}" for name, share_held in held.items())
            fitted = int(np.isfinite(fit.values["amplitude"]).sum())
            print(
                f"{model:14s} SNR {snr:3.0f} channels {n_channels} {interval:7s} {taken:6.1f} s {fitted} fits: {told}"
            )


if __name__ == "__main__":
    main()
