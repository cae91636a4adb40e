"""Groups compared voxel by voxel, against closed forms, nilearn, statsmodels, and data without any effect."""

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
import statsmodels.api as sm
from joblib import parallel_config
from nilearn.glm.second_level import non_parametric_inference
from numpy.testing import assert_allclose, assert_array_equal
from scipy import ndimage

from sodium_prep.atlas.bundled import load_atlas
from sodium_prep.cohort.voxelwise import CLUSTER_COLUMNS, cluster_mass, cluster_table, compare_voxels, cover, tfce
from sodium_prep.errors import InputError


def block(shape=(9, 10, 8)):
    mask = np.ones(shape, dtype=bool)
    mask[:2, :2] = False  # not a box
    return mask


def smooth_noise(rng, n, mask, sd=0.8):
    return np.array([ndimage.gaussian_filter(rng.standard_normal(mask.shape), sd)[mask] for _ in range(n)])


def test_enhancement_of_plateaus_in_closed_form():
    t = np.zeros((12, 6, 6))
    t[1:4, 1:4, 1] = 4.0  # nine voxels
    t[8, 4, 4] = -2.0
    found = tfce(t)
    steps = (np.arange(1, 101) / 100) ** 2
    assert_allclose(found[2, 2, 1], np.sqrt(9) * 4**3 * steps.sum() / 100)
    assert_allclose(found[2, 2, 1], np.sqrt(9) * 4**3 / 3, rtol=0.02)  # the integral itself
    assert_allclose(found[8, 4, 4], -(2**3) / 3, rtol=0.04)
    assert np.count_nonzero(found) == 10
    mass = cluster_mass(t, 1.5)
    assert_allclose([mass[2, 2, 1], mass[8, 4, 4]], [9 * 2.5, -0.5])
    assert not tfce(np.zeros((3, 3, 3))).any()


def test_diagonal_neighbours_are_apart():
    t = np.zeros((4, 4, 4))
    t[1, 1, 1] = t[2, 2, 1] = 3.0
    assert_allclose(cluster_mass(t, 1.0)[1, 1, 1], 2.0)


@pytest.mark.filterwarnings("ignore:Data array used to create a new image")  # nilearn of its own
@pytest.mark.parametrize("statistic", ["tfce", "mass"])
def test_same_permutations_as_nilearn_and_same_results(statistic):
    rng = np.random.default_rng(1)
    mask, n = block(), 16
    second = np.arange(n) % 2 == 0
    covariates = rng.standard_normal((n, 2)) + second[:, None] * 0.5
    values = 40 + 3 * smooth_noise(rng, n, mask)
    values[second, :60] += 2.0
    how = {"statistic": statistic, "permutations": 20, "seed": 7, "cluster_p": 0.05}
    plain = compare_voxels(values, second, covariates, mask, **how)
    # A tissue that is the same in all voxels is one more covariate: both ways must agree in every permutation.
    tissue = np.tile(covariates[:, 1:], values.shape[1])
    own = compare_voxels(values, second, covariates[:, :1], mask, tissue=tissue, **how)
    assert_allclose(own.null, plain.null, rtol=1e-6)
    assert_allclose(own.p, plain.p, rtol=1e-9)
    assert_allclose(own.effect, plain.effect, rtol=1e-9)
    # And with what nilearn itself says, for its seed of the first chunk.
    images = []
    for row in values:
        image = np.zeros(mask.shape)
        image[mask] = row
        images.append(nib.Nifti1Image(image, np.eye(4)))
    design = pd.DataFrame({"group": second.astype(float), "a": covariates[:, 0], "b": covariates[:, 1]})
    chunk_seed = int(np.random.SeedSequence(7).generate_state(1)[0])
    theirs = non_parametric_inference(
        images, design_matrix=design, second_level_contrast="group", n_perm=20, two_sided_test=True, verbose=0,
        mask=nib.Nifti1Image(mask.astype(np.uint8), np.eye(4)), random_state=chunk_seed, tfce=statistic == "tfce",
        threshold=0.05 if statistic == "mass" else None,
    )  # fmt: skip
    assert_allclose(plain.t, theirs["t"].get_fdata()[mask], rtol=1e-6, atol=1e-9)
    if statistic == "mass":
        mass = np.abs(plain.enhanced)
        assert_allclose(mass, theirs["mass"].get_fdata()[mask], rtol=1e-6)
        # Its p does not count the data themselves as one of the permutations.
        p = np.mean(plain.null[:, None] >= mass * (1 - 1e-9), axis=0).clip(1 / 20, 19 / 20)
        assert_allclose(p, 10 ** -theirs["logp_max_mass"].get_fdata()[mask], rtol=1e-5)
        assert np.unique(p).size > 3
    else:
        step = np.abs(plain.t).max() / 100  # of the integral, which it leaves out
        assert_allclose(plain.enhanced, theirs["tfce"].get_fdata()[mask] * step, rtol=1e-6, atol=1e-9)


def test_effect_and_t_are_those_of_the_linear_model_in_each_voxel():
    rng = np.random.default_rng(2)
    mask, n = block((4, 4, 4)), 14
    second = np.arange(n) < 6
    age = rng.uniform(50, 80, (n, 1))
    v = int(mask.sum())
    tissue = rng.uniform(0, 1, (n, v)) - 0.2 * second[:, None]
    values = 40 - 10 * tissue + 2 * second[:, None] + 0.1 * age + rng.standard_normal((n, v))
    tissue[:, 3] = 0.4  # the same in all: nothing to hold constant
    found = compare_voxels(values, second, age, mask, tissue=tissue, permutations=1)
    for voxel in (0, 5, 17):
        model = sm.OLS(values[:, voxel], np.column_stack([np.ones(n), age, tissue[:, voxel], second])).fit()
        assert_allclose([found.effect[voxel], found.t[voxel]], [model.params[-1], model.tvalues[-1]], rtol=1e-9)
    model = sm.OLS(values[:, 3], np.column_stack([np.ones(n), age, second])).fit()
    assert_allclose(found.effect[3], model.params[-1])


def test_atrophy_alone_vanishes_with_its_covariate_and_a_true_effect_stays():
    rng = np.random.default_rng(3)
    mask = np.ones((10, 10, 10), dtype=bool)
    n = 24
    second = np.arange(n) < 12
    tissue = 0.8 + 0.05 * smooth_noise(rng, n, mask)
    image = np.zeros((10, 10, 10), dtype=int)
    image[1:4, 2:8, 2:8], image[6:9, 2:8, 2:8] = 1, 2
    where = image[mask]
    tissue[:, where == 1] -= 0.15 * second[:, None] + 0.05 * rng.standard_normal((n, 1))  # atrophy
    values = 35 * tissue + 140 * (1 - tissue) + 2 * smooth_noise(rng, n, mask)
    values[:, where == 2] += 6.0 * second[:, None]
    how = {"permutations": 20, "seed": 1}
    plain = compare_voxels(values, second, np.zeros((n, 0)), mask, **how)
    held = compare_voxels(values, second, np.zeros((n, 0)), mask, tissue=tissue, **how)
    found = {name: [np.mean(test.p[where == part] < 0.05) for part in (1, 2, 0)] for name, test in
             (("plain", plain), ("held", held))}  # fmt: skip
    assert min(found["plain"][:2]) > 0.9
    assert found["held"][0] == 0.0
    assert found["held"][1] > 0.9
    assert found["held"][2] < 0.2  # TFCE lets an effect spill over its edge
    assert_allclose(held.effect[where == 2].mean(), 6.0, atol=0.8)
    assert abs(held.effect[where == 1].mean()) < 1.5 < plain.effect[where == 1].mean()


@pytest.mark.parametrize(("statistic", "tests"), [("tfce", 24), ("mass", 150)])
def test_family_wise_error_without_an_effect(statistic, tests):
    # With 19 permutations the smallest p of all voxels is uniform on 1/20, 2/20, ..., 1 where nothing differs.
    rng = np.random.default_rng(4)
    mask, n = np.ones((5, 5, 5), dtype=bool), 14
    least = []
    for seed in range(tests):
        second = np.arange(n) < 7
        age = rng.uniform(50, 80, (n, 1)) + 5 * second[:, None]
        tissue = 0.7 + 0.1 * smooth_noise(rng, n, mask) - 0.1 * second[:, None]
        values = 40 - 30 * tissue + 0.2 * age + 4 * smooth_noise(rng, n, mask)
        found = compare_voxels(
            values, second, age, mask, tissue=tissue, statistic=statistic, permutations=19, seed=seed, cluster_p=0.1
        )
        least.append(found.p.min())
    least = np.array(least)
    error = np.sqrt(1 / 12 / tests)
    assert abs(least.mean() - 0.525) < 3 * error
    assert np.mean(least <= 0.05 + 1e-9) < 0.05 + 3 * np.sqrt(0.05 * 0.95 / tests)
    assert np.mean(least <= 0.2 + 1e-9) > 0.2 - 3 * np.sqrt(0.2 * 0.8 / tests)


def test_seed_and_number_of_jobs():
    rng = np.random.default_rng(5)
    mask, n = np.ones((4, 4, 4), dtype=bool), 12
    second = np.arange(n) < 6
    values = rng.standard_normal((n, 64))

    def null(seed, jobs, tissue=None):
        with parallel_config(backend="threading"):
            return compare_voxels(
                values, second, np.zeros((n, 0)), mask, statistic="mass", permutations=60, seed=seed, n_jobs=jobs,
                tissue=tissue, cluster_p=0.2,
            ).null  # fmt: skip

    assert_array_equal(null(1, 1), null(1, 2))
    assert (null(1, 1) != null(2, 1)).any()
    tissue = rng.uniform(size=(n, 64))
    assert_array_equal(null(1, 1, tissue), null(1, 2, tissue))


def test_designs_that_cannot_tell_the_groups_apart_are_refused():
    rng = np.random.default_rng(6)
    mask = np.ones((2, 2, 2), dtype=bool)
    values, second = rng.standard_normal((12, 8)), np.arange(12) < 6
    with pytest.raises(InputError, match="tell the groups apart"):
        compare_voxels(values, second, second[:, None] * 3.0 + 1.0, mask)
    with pytest.raises(InputError, match="4 and 8 participants, fewer than 5"):
        compare_voxels(values, np.arange(12) >= 4, np.zeros((12, 0)), mask)
    with pytest.raises(InputError, match="leave 2 degrees of freedom"):
        compare_voxels(values, second, rng.standard_normal((12, 8)), mask)


def test_coverage_leaves_out_people_and_voxels_and_fills_nothing():
    values = np.random.default_rng(7).standard_normal((12, 100))
    groups = np.repeat(["a", "b"], 6)
    values[0, 30:] = np.nan  # lacks most of the brain
    values[7, 40:45] = np.nan  # lacks a little
    values[6:10, 90:95] = np.nan  # most of b lack them, so that they are not lost to one
    values[:, 80] = 41.0  # all the same
    found = cover(values, groups, least=0.8)
    assert_array_equal(found.participants, [False, *[True] * 11])
    expected = np.ones(100, dtype=bool)
    expected[[*range(40, 45), 80, *range(90, 95)]] = False
    assert_array_equal(found.voxels, expected)
    assert found.lost == 5
    nobody = cover(np.full((4, 3), np.nan), groups[:4])
    assert not nobody.participants.any()
    assert not nobody.voxels.any()


def test_clusters_have_their_region_side_and_size():
    atlas = load_atlas()
    affine = np.diag([4.0, 4.0, 4.0, 1.0])
    affine[:3, 3] = (-44.0, -44.0, -36.0)
    mask = np.ones((23, 16, 12), dtype=bool)
    world = np.argwhere(mask) @ affine[:3, :3].T + affine[:3, 3]
    middle = np.linalg.norm(world - (-28, -16, -20), axis=1) < 1
    left = np.linalg.norm(world - (-28, -16, -20), axis=1) < 6.5
    right = np.linalg.norm(world - (28, 4, 0), axis=1) < 4.5
    rng = np.random.default_rng(8)
    n = 20
    second = np.arange(n) < 10
    values = 40 + rng.standard_normal((n, mask.sum()))
    values[:, left] += 5.0 * second[:, None]
    values[:, middle] += 3.0 * second[:, None]
    values[:, right] -= 4.0 * second[:, None]
    test = compare_voxels(values, second, np.zeros((n, 0)), mask, statistic="mass", permutations=40)
    table = cluster_table(test, mask, affine, ("control", "AD"), atlas=atlas)
    assert list(table.columns) == list(CLUSTER_COLUMNS)
    assert list(table["higher_in"]) == ["AD", "control"]
    first, other = table.to_dict("records")
    assert first["peak_label"] == "Left-Hippocampus"
    assert (first["peak_x"], first["peak_y"], first["peak_z"]) == (-28, -16, -20)
    assert other["peak_x"] > 0
    assert "Left-Hippocampus" in first["labels"]
    assert other["peak_label"] == "Right-Putamen"
    assert_allclose(first["size_mm3"], left.sum() * 64)
    assert_allclose([first["mean_effect"], other["mean_effect"]], [5 + 3 / left.sum(), -4], atol=0.4)
    assert first["peak_t"] == test.t[middle]
    assert_allclose(first["p_fwe"], 1 / 41)
    assert cluster_table(test, mask, affine, ("control", "AD"), alpha=0.01).empty
