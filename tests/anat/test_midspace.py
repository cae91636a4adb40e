from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from sodium_prep.anat import midspace
from sodium_prep.anat.grids import coarsen
from sodium_prep.anat.jobs import JobSettings, Volume
from sodium_prep.anat.midspace import check_sessions, within_subject_template
from sodium_prep.anat.transforms import apply_affine, check_rigid, compose, invert, resample_bandlimited, rigid_log
from sodium_prep.errors import InputError
from tests.anat.colin import colin27
from tests.anat.heads import dice, make_head


def motion(turn_deg, shift_mm):
    """The motion of a head that make_head places so."""
    move = np.eye(4)
    move[:3, :3] = Rotation.from_rotvec(np.deg2rad(turn_deg) * np.array([1, 2, 2]) / 3).as_matrix()
    move[:3, 3] = shift_mm
    return move


PLACES = [(5.0, (-3, 3, 1)), (-15.0, (12, -12, 10)), (10.0, (2, 6, -8)), (0.0, (5, 0, 0)), (-4.0, (-6, -2, 3))]


def sessions(count, voxel_mm, **options):
    return [
        make_head(voxel_mm, turn_deg=turn, shift_mm=shift, bias=0.25, noise=0.03, seed=20 + n, **options)
        for n, (turn, shift) in enumerate(PLACES[:count])
    ]


def make(heads, **options):
    return within_subject_template(
        [h.t1w for h in heads], [h.affine for h in heads], [h.brain for h in heads], **options
    )


def errors_mm(found, heads):
    """How far the brain of each session lands from that of the first, root mean square."""
    still = make_head(3.0)
    points = apply_affine(still.affine, np.argwhere(still.brain)[::29])
    places = [apply_affine(m @ motion(*place), points) for m, place in zip(found.matrices, PLACES, strict=False)]
    return [float(np.sqrt(((place - places[0]) ** 2).sum(axis=1).mean())) for place in places[1:]]


def centred(found):
    return np.abs(sum(rigid_log(matrix) for matrix in found.matrices)).max()


@pytest.fixture(scope="module")
def two():
    heads = [shaded(head, sign) for head, sign in zip(sessions(2, 2.0), (1, -1), strict=True)]
    return heads, make(heads)


def shaded(head, sign):
    """A head brighter on one side, as where a coil lies."""
    ramp = np.exp(sign * np.linspace(-0.4, 0.4, head.t1w.shape[0], dtype=np.float32))[:, None, None]
    return replace(head, t1w=head.t1w * ramp, bias=head.bias * ramp)


def test_two_sessions_meet_half_way(two):
    heads, found = two
    assert errors_mm(found, heads)[0] < 0.15
    assert centred(found) < 1e-9
    assert all(check_rigid(matrix, 1e-9) is not None for matrix in found.matrices)
    assert found.disagreement_mm < 0.1
    assert min(found.similarity) > 0.95
    check_sessions(found)


def test_the_template_is_the_head_with_the_mean_shading_and_less_noise(two):
    heads, found = two
    assert dice(found.brain_mask, on_template(heads[0], heads[0].brain.astype(np.float32), found, 0) > 0.5) > 0.98
    inside = on_template(heads[0], (heads[0].brain & (heads[0].wm > 0.99)).astype(np.float32), found, 0) > 0.99
    fields = [on_template(head, head.bias, found, n)[inside] for n, head in enumerate(heads)]
    ratio = found.template[inside] / np.sqrt(fields[0] * fields[1])
    # Noise of 3 % in each of two sessions, whose shadings differ by far more.
    assert ratio.std() / ratio.mean() < 0.03
    assert (fields[0] / fields[1]).std() > 0.15
    single = on_template(heads[0], heads[0].t1w / heads[0].bias, found, 0)[inside]
    assert ratio.std() / ratio.mean() < single.std() / single.mean()


def on_template(head, image, found, number):
    return resample_bandlimited(image, head.affine, found.matrices[number], found.template.shape, found.affine)


@pytest.mark.thorough
def test_neither_session_is_the_first():
    heads = sessions(2, 3.0)
    a, b = (midspace._prepare(Volume(head.t1w, head.affine), head.brain, 3.0) for head in heads)
    there, _ = midspace._pairwise_poses([a, b], JobSettings())
    back, _ = midspace._pairwise_poses([b, a], JobSettings())
    # What the algorithm finds does not depend on the order ...
    assert np.allclose(compose(there[0], invert(there[1])), invert(compose(back[0], invert(back[1]))), atol=1e-9)
    # ... and the last bits of the result do not either.
    found, swapped = make(heads, work_mm=3.0), make(heads[::-1], work_mm=3.0)
    assert np.array_equal(found.template, swapped.template)
    assert np.array_equal(found.matrices, swapped.matrices[::-1])
    assert found.similarity == swapped.similarity[::-1]


@pytest.mark.parametrize("other", ["mirror image", "another head"])
def test_another_head_is_refused(other):
    image, affine, brain = colin_at_3mm()
    if other == "mirror image":
        # The template is an average and nearly symmetric; a person is not.
        second = image[::-1], affine, brain[::-1]
    else:
        head = make_head(3.0, noise=0.03, bias=0.2, seed=1)
        second = head.t1w, head.affine, head.brain
    found = within_subject_template([image, second[0]], [affine, second[1]], [brain, second[2]], work_mm=3.0)
    with pytest.raises(InputError, match=r"session 1 and session 2: .* the same head \(correlation 0\.[4-7]"):
        check_sessions(found)


def colin_at_3mm():
    data, affine = colin27("ch2")
    brain, _ = colin27("ch2bet")
    head = coarsen(Volume(data.astype(np.float32), affine), 3.0)
    return head.data, head.affine, coarsen(Volume((brain > 0).astype(np.float32), affine), 3.0).data > 0.5


def test_the_session_that_contradicts_the_others_is_named(two):
    odd = replace(two[1], disagreement_mm=2.5, similarity=(0.95, 0.9, 0.97))
    with pytest.raises(InputError, match=r"ses-b: the registrations .* disagree by 2\.5 mm"):
        check_sessions(odd, ["ses-a", "ses-b", "ses-c"])


@pytest.mark.thorough
@pytest.mark.parametrize("count", [3, 5])
def test_many_sessions_are_put_together(count):
    heads = sessions(count, 3.0)
    found = make(heads, work_mm=3.0)
    assert max(errors_mm(found, heads)) < 0.2
    assert centred(found) < 1e-9
    assert min(found.similarity) > 0.9


def test_wrong_numbers_of_images_and_empty_masks_are_refused():
    image, mask = np.ones((8, 8, 8), np.float32), np.ones((8, 8, 8), bool)
    with pytest.raises(ValueError, match="two or more"):
        within_subject_template([image], [np.eye(4)], [mask])
    with pytest.raises(ValueError, match="two or more"):
        within_subject_template([image, image], [np.eye(4)] * 2, [mask])
    with pytest.raises(InputError, match="empty"):
        within_subject_template([image, image + 1], [np.eye(4)] * 2, [mask, ~mask])
    with pytest.raises(InputError, match="no signal"):
        within_subject_template([image, 0 * image], [np.eye(4)] * 2, [mask, mask])
