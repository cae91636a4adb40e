"""Style of all figures, and SVG text that is the same bytes on every run."""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final, cast

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from PIL import Image

# Okabe and Ito's palette, distinguishable with every common colour blindness.
ORANGE: Final = "#E69F00"
SKY: Final = "#56B4E9"
GREEN: Final = "#009E73"
BLUE: Final = "#0072B2"
VERMILION: Final = "#D55E00"
PURPLE: Final = "#CC79A7"
GREY: Final = "#5F6B7A"

_PICTURE_CHARACTERS: Final = 340_000  # keeps a figure below 400 kB and a page of a dozen figures below 6 MB

TISSUE_COLOURS: Final[dict[str, str]] = {"GM": SKY, "WM": GREY, "CSF": GREEN}
"""Colour of a tissue on white ground; in pictures they are the same, with white for the grey of white matter."""

_STYLE: Final[dict[str, Any]] = {
    "svg.hashsalt": "sodium_prep",
    "svg.fonttype": "path",
    "font.family": "DejaVu Sans",
    "font.size": 9.5,
    "axes.titlesize": 10.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": GREY,
    "axes.linewidth": 0.8,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#E3E7EC",
    "grid.linewidth": 0.7,
    "legend.frameon": False,
    "legend.fontsize": 8.5,
    "lines.linewidth": 1.6,
    "figure.facecolor": "white",
    "text.parse_math": False,
}


@contextmanager
def new_figure(width_in: float, height_in: float) -> Iterator[Figure]:
    """A figure in the house style, independent of the user's matplotlib settings and of any display."""
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(cast("Any", _STYLE))
        figure = Figure(figsize=(width_in, height_in))
        FigureCanvasAgg(figure)
        yield figure


def to_svg(figure: Figure, dpi: float = 150.0) -> str:
    """The figure as an SVG document; pixels of rasterised parts at ``dpi``. Call inside :func:`new_figure`."""
    stream = io.StringIO()
    nothing: Any = {"Date": None, "Creator": None, "Format": None, "Type": None}
    figure.savefig(stream, format="svg", dpi=dpi, metadata=nothing)
    return re.sub(r"(?<=data:image/png;base64,)[^\"]+", _smaller_png, stream.getvalue())


def _smaller_png(match: re.Match[str]) -> str:
    """A large embedded picture, laid on black, with as many colours up to 256 as keep it below the limit of size."""
    from PIL import Image

    text = match.group()
    if len(text) <= _PICTURE_CHARACTERS:
        return text
    picture = Image.open(io.BytesIO(base64.b64decode(text))).convert("RGBA")
    opaque = Image.alpha_composite(Image.new("RGBA", picture.size, "black"), picture).convert("RGB")
    for colours in (256, 128, 64, 48):
        if len(text) <= _PICTURE_CHARACTERS:
            break
        reduced = opaque.quantize(palette=_palette(opaque, colours), dither=Image.Dither.NONE)
        stream = io.BytesIO()
        reduced.save(stream, format="PNG", compress_level=6)  # 9 takes six times as long for 4 %
        text = base64.b64encode(stream.getvalue()).decode()
    return text


def _palette(picture: Image.Image, colours: int) -> Image.Image:
    """Palette of a third greys; the twelve hues, as far as they occur, share the rest equally.

    By area, as is usual, the line about a small lesion would turn grey.
    """
    import numpy as np
    from PIL import Image

    coarse = np.asarray(picture, dtype=np.int32).reshape(-1, 3) >> 3
    packed = (coarse[:, 0] << 10) | (coarse[:, 1] << 5) | coarse[:, 2]
    codes, counts = np.unique(packed, return_counts=True)
    seen = np.stack([codes >> 10, (codes >> 5) & 31, codes & 31], axis=1) * 8 + 4
    bright = np.ptp(seen, axis=1) > 24
    seen, counts = seen[bright], np.ceil(np.sqrt(counts[bright])).astype(int)
    red, green, blue = seen.T.astype(float)
    angle = np.arctan2(np.sqrt(3.0) * (green - blue), 2.0 * red - green - blue)
    sector = np.rint(angle / (np.pi / 6.0)).astype(int) % 12
    sectors = np.unique(sector)
    n_grey = colours // 3 if sectors.size else colours
    table = [np.repeat(np.linspace(0, 255, n_grey).round()[:, None], 3, axis=1)]
    for one in sectors:
        share = (colours - n_grey) // sectors.size
        pixels = np.repeat(seen[sector == one], counts[sector == one], axis=0).astype(np.uint8)
        cut = Image.fromarray(pixels[None]).quantize(share, Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE)
        table.append(np.array(cut.getpalette(), dtype=float).reshape(-1, 3)[:share])
    out = Image.new("P", (1, 1))
    out.putpalette(np.concatenate(table).astype(np.uint8).tobytes())
    return out
