"""Figures of voxel-wise results: slices over the template, and a glass brain.

The left of the brain is on the left of every picture.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sodium_prep.report.mosaic import mosaic
from sodium_prep.report.svg import new_figure, to_svg

_DISPLAY_MM: Final = 2.0
_CMAP: Final = "coolwarm"


def map_slices(
    values: ArrayLike,
    affine: ArrayLike,
    template: ArrayLike,
    template_affine: ArrayLike,
    *,
    label: str,
    title: str = "",
    significant: ArrayLike | None = None,
    outline: str = "",
    limit: float | None = None,
) -> str:
    """Values over slices of a template as SVG text, all of them, with an outline about those that are significant.

    To show only what is significant hides how the rest looks (Taylor et al., NeuroImage 2023;274:120138).

    Parameters
    ----------
    values : (X, Y, Z)
        Effect or z; nan where nothing was analysed.
    affine : (4, 4)
        Voxel to RAS mm.
    template, template_affine
        T1-weighted image in the same space, RAS order.
    label
        Of the colour bar, with the unit.
    significant : (X, Y, Z) bool
        What is outlined, and ``outline`` the words for it.
    limit
        Value at both ends of the colours; by default the 99th percentile of the absolute values.

    Returns
    -------
    SVG
    """
    shown = np.asarray(values, dtype=np.float64)
    fine = np.asarray(template_affine, dtype=np.float64)
    step = [max(round(_DISPLAY_MM / float(mm)), 1) for mm in np.linalg.norm(fine[:3, :3], axis=0)]
    background = np.asarray(template)[:: step[0], :: step[1], :: step[2]]
    grid = fine @ np.diag([*step, 1.0])
    finite = np.abs(shown[np.isfinite(shown)])
    top = limit or (float(np.percentile(finite, 99)) if finite.size else 1.0) or 1.0
    marked = np.zeros(shown.shape) if significant is None else np.asarray(significant, dtype=np.float64)
    through = _nearest(marked, affine, grid, background.shape, 0.0) > 0.5
    return mosaic(
        background, grid, title=title, overlay=_nearest(shown, affine, grid, background.shape, np.nan), cmap=_CMAP,
        vmin=-top, vmax=top, overlay_label=label, overlay_alpha=0.65, extent=background > 0,
        contours=[(through, "#000000", outline)] if outline else (), through=through, n_slices=6,
    )  # fmt: skip


def glass_brain(values: ArrayLike, affine: ArrayLike, significant: ArrayLike, *, label: str, title: str = "") -> str:
    """What is significant, projected onto the outline of a brain from the left, behind, the right and above, as SVG.

    Parameters
    ----------
    values : (X, Y, Z)
        Effect; the largest along each line of sight is shown.
    affine : (4, 4)
        Voxel to RAS mm of MNI152.
    significant : (X, Y, Z) bool
        Voxels that are shown, at least one.
    """
    import nibabel as nib
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize
    from nilearn.plotting import plot_glass_brain

    chosen = np.where(np.asarray(significant), np.nan_to_num(np.asarray(values, dtype=np.float32)), np.float32(0.0))
    top = float(np.abs(chosen).max()) or 1.0
    with new_figure(9.0, 2.9) as figure:
        axes = figure.add_axes((0.0, 0.02, 0.88, 0.84))
        image: Any = nib.Nifti1Image  # its constructor has no types
        display = plot_glass_brain(
            image(chosen, np.asarray(affine)), display_mode="lyrz", figure=figure, axes=axes, colorbar=False,
            plot_abs=False, threshold=1e-6 * top, vmin=-top, vmax=top, cmap=_CMAP, annotate=True,
        )  # fmt: skip
        for name, view in display.axes.items():
            view.ax.set_rasterization_zorder(100)  # thousands of points of its lines
            if name in "lr":
                words = {"l": "left hemisphere", "r": "right hemisphere"}[name]
                view.ax.text(0.0, 0.0, words, transform=view.ax.transAxes, fontsize=8, zorder=101)
        side = figure.add_axes((0.90, 0.16, 0.014, 0.66))
        bar = figure.colorbar(ScalarMappable(Normalize(-top, top), _CMAP), cax=side, label=label)
        if bar.solids is not None:
            bar.solids.set_rasterized(True)
        side.grid(False)
        side.tick_params(labelsize=8)
        if title:
            figure.text(0.006, 0.97, title, ha="left", va="top", fontsize=10.5, fontweight="bold")
        return to_svg(figure, 110)


def _nearest(
    values: NDArray[np.float64], affine: ArrayLike, grid: NDArray[np.float64], shape: tuple[int, ...], outside: float
) -> NDArray[np.float64]:
    """Values of the nearest voxels at those of another grid."""
    from scipy.ndimage import affine_transform

    step = np.linalg.solve(np.asarray(affine, dtype=np.float64), grid)
    return np.asarray(
        affine_transform(values, step[:3, :3], step[:3, 3], shape, order=0, mode="constant", cval=outside)
    )
