"""One step in a process of its own: started from a server that has the imports done, followed, and ended whole."""

from __future__ import annotations

import multiprocessing
import os
import resource
import signal
import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing import forkserver
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from traceback import format_exception, format_exception_only
from typing import Any

from nipype.pipeline.plugins.multiproc import run_node

from sodium_prep.errors import ResourceError, SodiumPrepError

PRELOAD = ("sodium_prep.workflows.engine", "nibabel", "scipy.fft", "scipy.ndimage", "scipy.optimize", "finufft")
"""Modules that the server imports once, so that a step does not."""

_THREAD_VARIABLES = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS",
)
_KILLED = {signal.SIGKILL, signal.SIGBUS, signal.SIGXCPU}


def start_server() -> None:
    """Start the process that forks the steps; its libraries see one thread, whatever the caller's environment says."""
    multiprocessing.get_context("forkserver").set_forkserver_preload(list(PRELOAD))
    before = {name: os.environ.get(name) for name in _THREAD_VARIABLES}
    os.environ.update(_environment(1))
    try:
        forkserver.ensure_running()
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


@dataclass(frozen=True)
class StepReport:
    """How a step ended: its traceback (None if it went well), wall time in seconds and peak memory in GB."""

    traceback: list[str] | None
    elapsed_s: float
    peak_gb: float


@dataclass
class StepProcess:
    """A running step."""

    name: str
    process: BaseProcess
    inbox: Connection
    log_file: Path
    started_s: float

    @classmethod
    def start(cls, node: Any, *, updatehash: bool, log_file: Path) -> StepProcess:
        """Start a nipype node; what it prints goes to ``log_file``."""
        context = multiprocessing.get_context("forkserver")
        inbox, outbox = context.Pipe(duplex=False)
        arguments = (node, updatehash, outbox, log_file, _environment(node.n_procs))
        process = context.Process(target=_run_step, args=arguments, name=node.fullname)
        with outbox:
            process.start()
        return cls(node.itername, process, inbox, log_file, time.monotonic())

    def report(self) -> StepReport | None:
        """How the step ended; None while it runs."""
        # Asked before looking into the pipe, so that a report sent in between is not taken for a death.
        ended = not self.process.is_alive()
        if self.inbox.poll():
            with suppress(EOFError):
                traceback, peak_gb = self.inbox.recv()
                self.process.join(timeout=1.0)
                self.end()
                return StepReport(traceback, time.monotonic() - self.started_s, peak_gb)
            self.process.join()
            ended = True
        if not ended:
            return None
        self.end()
        return StepReport(self._obituary(), time.monotonic() - self.started_s, 0.0)

    def end(self) -> None:
        """End the process and all that it started."""
        assert self.process.pid, "a step is made by start() only"
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.kill()
        self.process.join()
        self.inbox.close()

    def _obituary(self) -> list[str]:
        """Last lines that the step printed, and an error that names its death."""
        code = self.process.exitcode or 0
        died_of = signal.Signals(-code) if code < 0 else None
        error: SodiumPrepError
        if died_of in _KILLED:
            problem = f"worker running {self.name} was killed by {died_of.name} (out of memory?)"
            error = ResourceError(self.name, problem, "Give the run more memory, or run fewer steps at once (--nprocs)")
        else:
            how = f"died of {died_of.name}" if died_of else f"ended with code {code} without a result"
            error = SodiumPrepError(self.name, f"worker running {self.name} {how}", f"See {self.log_file}")
        last_words: list[str] = []
        with suppress(OSError):
            last_words = self.log_file.read_text(errors="replace").splitlines(keepends=True)[-20:]
        return [*last_words, "\n", *format_exception_only(error)]


def _run_step(node: Any, updatehash: bool, outbox: Connection, log_file: Path, environment: dict[str, str]) -> None:
    """Run one node in this process and send back its traceback and peak memory in GB."""
    os.setpgid(0, 0)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
        descriptor = os.open(log_file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
    except OSError:  # a full disk; the step itself says so better
        descriptor = os.open(os.devnull, os.O_WRONLY)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    os.environ.update(environment)
    try:
        traceback = run_node(node, updatehash, 0)["traceback"]
    except Exception as error:
        # After an error nipype looks for a file with the result; where there is none, that hides the error itself.
        traceback = format_exception(error.__context__ or error)
    peak_kb = sum(resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    outbox.send((traceback, peak_kb / 1024**2))


def _end_with_parent() -> None:
    """End this process and its children when the run that started it is gone, so that none writes on unseen."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os.killpg(0, signal.SIGKILL)


def _environment(n_threads: int) -> dict[str, str]:
    return {"NIPYPE_NO_ET": "1", "MPLBACKEND": "Agg", **dict.fromkeys(_THREAD_VARIABLES, str(n_threads))}
