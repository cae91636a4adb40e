"""``sodium-prep-tools tq``: signals of the density matrix of spin 3/2, as images and as k-space of two channels."""

import json
from dataclasses import replace

import nibabel as nib
import numpy as np
import pytest

from sodium_prep.bids.sidecar import load_sidecar
from sodium_prep.cli import tools
from sodium_prep.quant.triple_quantum import twelve_step_cycle
from sodium_prep.quant.vendor import real_part
from sodium_prep.recon.exchange import write_exchange
from tests.quant.spin import CLOSED_FORM, TAU_S, received
from tests.recon.analytic import Ellipsoid, complex_noise, raw_data, small_trajectory

CYCLE = twelve_step_cycle()
PULSES = [p for n in ("first", "second", "third") for p in (f"--{n}", *map(str, getattr(CYCLE, n)))]
N, VOXEL_MM, RESOLUTION_MM = 22, 6.0, 12.0
AFFINE = np.diag([VOXEL_MM, VOXEL_MM, VOXEL_MM, 1.0])
BALL = Ellipsoid(1.0, (36.0,) * 3).depth((N,) * 3, (VOXEL_MM,) * 3) < 1.0
OFF_HZ = np.linspace(-10.0, 45.0, N)
"""Along x; the usual sum of six steps has nothing left at 25 Hz."""
STEP_SD = CLOSED_FORM / 4.0
SCAN = {
    "ResonantNucleus": "23Na",
    "MagneticFieldStrength": 3.0,
    "EchoTime": 0.0005,
    "RepetitionTime": 0.15,
    "FlipAngle": 90,
    "Units": "arbitrary",
}


def _tool(*words):
    with pytest.raises(SystemExit) as end:
        tools.main(["tq", *map(str, words)])
    return end.value.code


def _values(path):
    return nib.load(path).get_fdata()


def _signals(off_hz):
    """(steps, off-resonances)"""
    return np.array([[received(phases, off) for off in off_hz] for phases in zip(*_lists(), strict=True)])


def _lists():
    return CYCLE.first, CYCLE.second, CYCLE.third


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """Magnitude and phase of a ball in every step."""
    root, rng = tmp_path_factory.mktemp("steps"), np.random.default_rng(0)
    (root / "step01.json").write_text(json.dumps(SCAN))
    for number, signal in enumerate(_signals(OFF_HZ), 1):
        step = np.exp(0.7j) * signal[:, None, None] * BALL + STEP_SD * complex_noise(rng, (N,) * 3)
        for name, part in (("step", np.abs(step)), ("phase", np.angle(step))):
            nib.Nifti1Image(part.astype(np.float32), AFFINE).to_filename(root / f"{name}{number:02d}.nii.gz")
    return root


def _given(root):
    return sorted(root.glob("step*.nii.gz")), ("--phase", *sorted(root.glob("phase*.nii.gz")))


def test_images_of_the_steps_give_the_filtered_image_as_the_app_takes_it(images, tmp_path, capsys):
    steps, phases = _given(images)
    out = tmp_path / "sub-01_acq-tq_part-mag_PDw.nii.gz"
    assert _tool(*steps, out, *PULSES, *phases, "--tau", TAU_S) == 0
    assert sorted(capsys.readouterr().out.split()) == sorted(map(str, tmp_path.iterdir()))
    magnitude, sd = _values(out), _values(tmp_path / "sub-01_acq-tq_part-mag_PDw_stat-stderr.nii.gz")
    np.testing.assert_allclose(sd, STEP_SD / np.sqrt(6.0), rtol=0.02)
    inside = [magnitude[x][BALL[x]] ** 2 - 2.0 * sd[x][BALL[x]] ** 2 for x in range(N) if BALL[x].sum() > 50]
    assert np.sqrt([values.mean() for values in inside]) == pytest.approx(CLOSED_FORM, rel=0.05)
    assert np.sqrt(np.concatenate(inside).mean()) == pytest.approx(CLOSED_FORM, rel=0.01)
    # As complex data it has no floor and no sign that turns over where off-resonance does.
    phase = tmp_path / "sub-01_acq-tq_part-phase_PDw.nii.gz"
    whole = (magnitude * np.exp(1j * _values(phase))).astype(np.complex64)
    real = real_part(whole, AFFINE, (VOXEL_MM,) * 3, "tq").image
    assert real[BALL].mean() == pytest.approx(CLOSED_FORM, rel=0.01)
    sidecar = load_sidecar(out)
    assert (sidecar.weighting, sidecar.echo_time_s) == ("TQ", 0.0005)
    assert json.loads((tmp_path / phase.name.replace(".nii.gz", ".json")).read_text())["Units"] == "rad"
    assert (
        "isolates the intracellular"
        in json.loads((tmp_path / out.name.replace(".nii.gz", ".json")).read_text())["Description"]
    )


HEAD = Ellipsoid(1000.0, (80.0, 76.0, 84.0), (4.0, -4.0, 3.0))
COILS = np.array([1.0, 0.5j])
SHIFTS_PER_MM = np.array([[0.0, 0.0, 0.0], [0.001, 0.0005, 0.0]])
"""Of the phase of either coil."""
MIXING = np.array([[1.0, 0.0], [0.6 - 0.3j, 0.4]])
"""Of independent noise into that of the coils."""


@pytest.fixture(scope="module")
def scans(tmp_path_factory):
    """K-space of two channels with correlated noise in every step, 25 Hz off resonance."""
    root, rng = tmp_path_factory.mktemp("scans"), np.random.default_rng(0)
    trajectory = small_trajectory(700, 200, resolution_mm=RESOLUTION_MM)
    sigma = 1000.0 * CLOSED_FORM / 4.0 / np.sqrt(700 * np.sum(trajectory.weights_mm3**2))
    seen = np.stack([c * HEAD.spectrum(trajectory.k_per_mm - s) for c, s in zip(COILS, SHIFTS_PER_MM, strict=True)])

    def noise(*shape):
        return sigma * np.tensordot(MIXING, complex_noise(rng, (2, *shape)), 1)

    scan = noise(20_000).astype(np.complex64)
    for number, signal in enumerate(_signals([25.0])[:, 0], 1):
        raw = raw_data(signal * seen + noise(*seen.shape[1:]), trajectory, 20, RESOLUTION_MM, noise=scan)
        write_exchange(root / f"step{number:02d}.npz", [replace(raw, echo_time_s=0.0005, field_strength_t=3.0)])
    return root


def test_raw_data_of_two_channels_are_combined_as_one(scans, tmp_path):
    out = tmp_path / "tq_part-mag_PDw.nii.gz"
    assert _tool(*sorted(scans.glob("*.npz")), out, *PULSES, "--tau", TAU_S, "--filter", "hamming") == 0
    image = _values(out) * np.exp(1j * _values(tmp_path / "tq_part-phase_PDw.nii.gz"))
    depth = HEAD.depth((20,) * 3, (RESOLUTION_MM,) * 3)
    deep = depth < 0.6
    places = RESOLUTION_MM * (np.argwhere(deep) - 10)
    coils = COILS[:, None] * np.exp(2j * np.pi * SHIFTS_PER_MM @ places.T)
    covariance = MIXING @ MIXING.conj().T
    power = np.sum(coils.conj() * np.linalg.solve(covariance, coils), axis=0).real
    truth = 1000.0 * CLOSED_FORM * np.sqrt(np.trace(covariance).real / 2.0 * power)
    assert np.ptp(truth) > 0.1 * truth.mean()
    assert image[deep].real.mean() == pytest.approx(truth.mean(), rel=0.01)
    np.testing.assert_allclose(image[deep].real, truth, atol=0.2 * truth.mean())
    assert abs(image[deep].imag.mean()) < 0.02 * truth.mean()
    sd = _values(tmp_path / "tq_part-mag_PDw_stat-stderr.nii.gz")
    assert np.std(image.real[depth > 1.35]) == pytest.approx(np.median(sd), rel=0.1)
    record = json.loads((tmp_path / "tq_part-mag_PDw.json").read_text())
    assert record["SodiumAcquisition"] == {
        "NominalResolution": pytest.approx([RESOLUTION_MM] * 3),
        "KSpaceFilter": "hamming",
        "Weighting": "TQ",
    }


def test_steps_that_do_not_belong_together_are_refused(images, scans, tmp_path, capsys):
    steps, phases = _given(images)
    out, tau = tmp_path / "tq.nii.gz", ("--tau", TAU_S)
    other = tmp_path / "other.nii.gz"
    nib.Nifti1Image(_values(steps[1]).astype(np.float32), AFFINE + np.eye(4, k=3)).to_filename(other)
    degrees = tmp_path / "degrees.nii.gz"
    nib.Nifti1Image(np.rad2deg(_values(phases[1])).astype(np.float32), AFFINE).to_filename(degrees)
    raw = sorted(scans.glob("*.npz"))
    moved = tmp_path / "moved.npz"
    with np.load(raw[1]) as file:
        np.savez(moved, **{**file, "k_per_m": -file["k_per_m"]})
    wrong = {
        "--first: has 12 phases for 11 steps": (*steps[:11], out, *PULSES, *phases[:12], *tau),
        "--phase: or --imaginary is needed": (*steps, out, *PULSES, *tau),
        "--phase: has 11 images for 12 steps": (*steps, out, *PULSES, *phases[:12], *tau),
        "is an image of a step": (*steps, phases[1], *PULSES, *phases, *tau),
        "--tau: is 10, outside": (*steps, out, *PULSES, *phases, "--tau", 10),
        "lies on another grid than step01.nii.gz": (steps[0], other, *steps[2:], out, *PULSES, *phases, *tau),
        "beyond 2 pi": (*steps, out, *PULSES, "--phase", degrees, *phases[2:], *tau),
        "does not separate": (*steps, out, *phases, "--first", 0, "--second", 90, "--third", 0, *tau),
        "are images and raw data": (steps[0], *raw[1:], out, *PULSES, *tau),
        "has other trajectory than": (raw[0], moved, *raw[2:], out, *PULSES, *tau),
        "--noise: has no meaning for raw data": (*raw, out, *PULSES, *tau, "--noise", 1),
    }
    for message, words in wrong.items():
        assert _tool(*words) in (2, 3)
        told = capsys.readouterr().err
        assert message in told
        assert told.count("\n") == 1
    assert not out.exists()
