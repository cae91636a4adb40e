"""Left and right: a head swapped on purpose is told from the same head as it is."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage
from scipy.spatial.transform import Rotation

from sodium_prep.anat.mirror import check_handedness
from sodium_prep.atlas.bundled import load_template
from tests.anat.colin import colin27
from tests.anat.heads import make_head


def swapped(data):
    """As if the header named left what is right: the data runs the other way, the affine stays."""
    return np.ascontiguousarray(data[::-1])


def swap_map(t1w_to_template, shape, affine):
    """The affine that brain extraction finds for the swapped image."""
    turn = np.diag([-1.0, 1, 1, 1])
    turn[0, 3] = shape[0] - 1
    return np.diag([-1.0, 1, 1, 1]) @ t1w_to_template @ affine @ turn @ np.linalg.inv(affine)


def rigid_map(euler_deg, shift_mm):
    move = np.eye(4)
    move[:3, :3] = Rotation.from_euler("xyz", euler_deg, degrees=True).as_matrix()
    move[:3, 3] = shift_mm
    return move


@pytest.fixture(scope="module")
def head():
    return make_head(2.0, bias=0.3, noise=0.03, seed=2)


@pytest.mark.thorough
def test_swapped_header_is_detected(head):
    template = load_template()
    near_truth = rigid_map((2, -2, 2), (2, 1, -2))
    as_is = check_handedness(head.t1w, head.affine, head.brain, template, t1w_to_template=near_truth)
    initial = swap_map(near_truth, head.t1w.shape, head.affine)
    wrong = check_handedness(swapped(head.t1w), head.affine, swapped(head.brain), template, t1w_to_template=initial)
    assert as_is.mirrored is False
    assert wrong.mirrored is True
    # Both hypotheses are treated alike.
    assert wrong.score == pytest.approx(-as_is.score, abs=0.05)
    assert "with left and right swapped" in wrong.evidence


@pytest.mark.thorough
def test_symmetric_brain_is_undecidable(head):
    # The head was built around x = 0, so that the mean of both ways round is a symmetric head on a symmetric grid.
    x = head.affine[:3, :3] @ ((np.array(head.t1w.shape) - 1) / 2) + head.affine[:3, 3]
    image = (head.t1w + swapped(head.t1w)) / 2
    brain = head.brain & swapped(head.brain)
    initial = rigid_map((0, 0, 0), (-x[0], 0, 0))
    found = check_handedness(image, head.affine, brain, load_template(), t1w_to_template=initial)
    assert found.mirrored is None
    assert abs(found.score) < 0.1


@pytest.mark.thorough
def test_colin27_both_ways():
    image, affine = colin27()
    mask, _ = colin27("ch2bet")
    brain = ndimage.binary_fill_holes(ndimage.binary_closing(mask > 0, iterations=2))
    image = image.astype(np.float32)
    template = load_template()
    as_is = check_handedness(image, affine, brain, template, t1w_to_template=np.eye(4))
    initial = swap_map(np.eye(4), image.shape, affine)
    wrong = check_handedness(swapped(image), affine, swapped(brain), template, t1w_to_template=initial)
    assert as_is.mirrored is False
    assert wrong.mirrored is True
    assert as_is.score > 0.3
    assert wrong.score < -0.3
