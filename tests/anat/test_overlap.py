"""The default registration to the template, judged by structures of a real head that no registration drew."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from benchmarks.anatomy import overlaps
from sodium_prep.anat.conform import mask_to_template
from sodium_prep.anat.grids import largest_component
from sodium_prep.anat.register import register_to_template, warp_labels_to_t1w
from sodium_prep.atlas.bundled import load_atlas, load_template
from tests.anat.colin import colin27


@pytest.mark.thorough
def test_labels_overlap_with_those_drawn_on_colin27(tmp_path):
    (image, affine), (aal, _) = colin27("ch2bet"), colin27("aal")
    brain = ndimage.binary_fill_holes(largest_component(ndimage.binary_closing(image > 0, iterations=2)))
    template, atlas = load_template(), load_atlas()
    start = mask_to_template(brain, affine, template)
    found = register_to_template(image.astype(np.float32), affine, brain, template, tmp_path, initial=start)
    labels = warp_labels_to_t1w(atlas, image.shape, affine, [found.inverse])
    hippocampus, cortex, white_matter = overlaps(labels, atlas.table, image, brain, aal)
    assert found.attempts == ()
    assert hippocampus >= 0.63
    assert cortex >= 0.57
    assert white_matter >= 0.79
