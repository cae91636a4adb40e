"""One registration program in a process of its own: ``python -m sodium_prep.anat._worker JOB_DIR``.

antspyx holds the GIL through a whole call, ignores SIGINT, reads its thread count only once and tells the cause of a
failure only on the C-level stderr; all of this is harmless in a process that lives for one call. The job folder holds
``job.json`` (program, args) and gets ``result.json`` (exit code, CPU seconds, peak memory).
"""

from __future__ import annotations

import ctypes
import json
import os
import resource
import signal
import sys
from contextlib import suppress
from pathlib import Path

_PR_SET_PDEATHSIG = 1


def main(folder: Path) -> int:
    """Run the job in a folder, with the folder as working directory; return the program's exit code."""
    _die_with_parent()
    os.chdir(folder)
    job = json.loads(Path("job.json").read_text())
    exit_code = _run(job["program"], job["args"])
    usage = resource.getrusage(resource.RUSAGE_SELF)
    result = {
        "exit_code": exit_code,
        "cpu_s": usage.ru_utime + usage.ru_stime,
        "peak_memory_gb": _peak_memory_gb(),
    }
    Path("result.json").write_text(json.dumps(result))
    return exit_code


def _run(program: str, args: list[str]) -> int:
    if program == "greedy":
        from picsl_greedy import GreedyFloat3D

        GreedyFloat3D().execute(" ".join(args))
        return 0
    from ants.internal import get_lib_fn

    return int(get_lib_fn(program)(args) or 0)


def _die_with_parent() -> None:
    """Let the kernel kill this process when its parent is gone (Linux); ANTs itself would run on for minutes."""
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() == 1 and os.environ.get("SODIUM_PREP_PARENT") not in (None, "1"):
            os._exit(128 + signal.SIGTERM)


def _peak_memory_gb() -> float:
    # ru_maxrss starts at what the parent held when it forked; VmHWM starts anew at exec.
    with suppress(OSError, StopIteration):
        lines = Path("/proc/self/status").read_text().splitlines()
        return int(next(line for line in lines if line.startswith("VmHWM")).split()[1]) / 1024**2
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024**2


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
