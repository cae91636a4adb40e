from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import numpy as np
import pytest

from sodium_prep.anat.ants import Stage, register
from sodium_prep.anat.jobs import JobSettings, Volume, job_folder, run_job, write_volume
from sodium_prep.errors import InputError, ResourceError
from tests.anat.heads import make_head

AFFINE = np.diag([3.0, 3.0, 3.0, 1.0])
ENDLESS = Stage("SyN[0.1,3,0]", "CC[{images},1,4]", (100000,), (1,), (0,))


def noise_volume(seed, n=64):
    return Volume(np.random.default_rng(seed).uniform(1, 2, (n, n, n)).astype(np.float32), AFFINE)


def test_failure_names_the_step_and_the_cause():
    program, args = "antsApplyTransforms", ["-d", "3", "-i", "nowhere.nii", "-r", "x.nii", "-o", "y.nii"]
    with job_folder() as folder, pytest.raises(ResourceError, match=rf"a step: {program} (was killed|ended).*nowhere"):
        run_job("a step", program, args, folder)


def test_time_limit_ends_the_worker():
    start = time.monotonic()
    with job_folder() as folder, pytest.raises(ResourceError, match="did not end within 5 s"):
        register("slow", noise_volume(0), noise_volume(1), [ENDLESS], folder, settings=JobSettings(timeout_s=5))
    assert time.monotonic() - start < 30
    assert not processes_of(folder)


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="needs /proc")
def test_worker_dies_with_the_program(tmp_path):
    code = """
    import numpy as np
    from pathlib import Path
    from tests.anat.test_ants import ENDLESS, noise_volume
    from sodium_prep.anat.ants import register
    register("slow", noise_volume(0), noise_volume(1), [ENDLESS], Path({folder!r}))
    """
    text = textwrap.dedent(code).format(folder=str(tmp_path))
    program = subprocess.Popen([sys.executable, "-c", text], env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)})
    try:
        wait_for(lambda: processes_of(tmp_path))
        program.send_signal(signal.SIGKILL)
        program.wait()
        wait_for(lambda: not processes_of(tmp_path))
    finally:
        program.kill()


def processes_of(folder):
    """Workers that run in a job folder."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            command = (entry / "cmdline").read_bytes().split(b"\0")
            zombie = (entry / "stat").read_text().rpartition(")")[2].split()[0] == "Z"
        except OSError:
            continue
        if b"sodium_prep.anat._worker" in command and str(folder).encode() in command and not zombie:
            found.append(entry.name)
    return found


def wait_for(condition, seconds=60):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.2)


@pytest.mark.parametrize(
    ("data", "affine", "message"),
    [
        (np.full((4, 4, 4), np.nan), AFFINE, "NaN or infinite"),
        (np.full((4, 4, 4), np.inf), AFFINE, "NaN or infinite"),
        (np.ones((4, 4, 4)), np.full((4, 4), np.nan), "not finite"),
        (np.ones((4, 4, 4)), np.array([[2, 1, 0, 0], [0, 2, 0, 0], [0, 0, 2, 0], [0, 0, 0, 1.0]]), "sheared"),
        (np.ones((4, 4)), AFFINE, "shape"),
    ],
)
def test_what_ants_would_misread_is_refused_before(tmp_path, data, affine, message):
    with pytest.raises(InputError, match=message):
        write_volume(tmp_path / "x.nii.gz", Volume(data, affine))


def test_syn_gives_the_same_bytes_twice():
    fixed, moving = make_head(3.0), make_head(3.0, turn_deg=4, bias=0.2, noise=0.03, seed=1)
    stages = [
        Stage("Affine[0.1]", "MI[{images},1,32,Regular,0.25]", (20,), (4,), (1,)),
        Stage("SyN[0.2,3,0]", "MI[{images},1,32]", (5,), (2,), (1,)),
    ]
    results = []
    for _ in range(2):
        with job_folder() as folder:
            cost = register("syn", Volume(fixed.t1w, fixed.affine), Volume(moving.t1w, moving.affine), stages, folder)
            names = ("out0GenericAffine.mat", "out1Warp.nii.gz", "out1InverseWarp.nii.gz")
            results.append([(folder / name).read_bytes() for name in names])
    assert results[0] == results[1]
    assert 0.05 < cost.peak_memory_gb < 2
    assert cost.cpu_s > 0
