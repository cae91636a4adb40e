"""Running a workflow: a process of its own for every step, and an account of what happened to each.

The parallel plugin of nipype (up to 1.12) keeps one pool of workers. When the kernel kills one of them, for want of
memory as a rule, the pool breaks: every step running beside it is lost too, and the plugin waits for ever for the
results. Here every step gets its own process, forked from a server that has done the imports. A kill costs that step
and those that depend on it, the exit status says what happened, and memory goes back to the system after every step.
"""

from __future__ import annotations

import gc
import logging
import os
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from traceback import format_exception
from typing import Any

os.environ["NIPYPE_NO_ET"] = "1"  # nipype must not ask the network for its newest version

from nipype.pipeline.engine import Workflow
from nipype.pipeline.plugins.multiproc import MultiProcPlugin

from sodium_prep.workflows.process import StepProcess, start_server

logger = logging.getLogger("sodium_prep.run")

POLL_S = 0.03
"""Pause between two looks at the running steps, seconds."""

_OUT_OF_RESOURCES = re.compile(
    r"\b(ResourceError|MemoryError)\b|No space left on device|Disk quota exceeded|File too large"
)
_ERROR_LINE = re.compile(r"\s*(?:[A-Za-z_]\w*\.)*(?P<name>[A-Z]\w*)(?:: (?P<text>.*))?$")


@dataclass(frozen=True)
class StepUsage:
    """What one step took: wall time in seconds, and the peak memory of it and of its largest child in GB."""

    elapsed_s: float
    peak_gb: float


@dataclass
class RunResult:
    """What became of every step of a workflow, by its full name (``workflow.subworkflow.step``).

    Attributes
    ----------
    executed, cached
        Steps that really ran, and steps whose earlier result was still up to date.
    failed
        Message of each step that raised an error or whose process died.
    out_of_resources
        Those of ``failed`` that ran out of memory or disk, or were killed.
    not_run
        Steps left out because one that they need had failed.
    crash_files
        Traceback and inputs of each failed step.
    usage
        Time and memory of the executed steps.
    """

    executed: list[str] = field(default_factory=list)
    cached: list[str] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)
    out_of_resources: list[str] = field(default_factory=list)
    not_run: list[str] = field(default_factory=list)
    crash_files: dict[str, Path] = field(default_factory=dict)
    usage: dict[str, StepUsage] = field(default_factory=dict)

    @property
    def ok(self) -> bool:
        """Whether nothing failed."""
        return not self.failed


class SodiumMultiProcPlugin(MultiProcPlugin):  # type: ignore[misc]
    """Nipype's scheduler with a process per step instead of a pool.

    Parameters
    ----------
    plugin_args : dict
        As of ``MultiProcPlugin``: ``n_procs``, ``memory_gb``, ``raise_insufficient``, ``scheduler``.
    log_dir : Path
        Folder for what each step prints.
    changed : callable
        Called with the :class:`RunResult` so far, the names of the running steps and the number of all steps whenever
        one of them changes.
    """

    def __init__(
        self,
        plugin_args: dict[str, Any] | None = None,
        *,
        log_dir: Path,
        changed: Callable[[RunResult, Sequence[str], int], None] | None = None,
    ) -> None:
        super().__init__(plugin_args=plugin_args)
        self.pool.shutdown(wait=False)  # never used; no worker has been started yet
        self.outcome = RunResult()
        self._log_dir = log_dir
        self._changed = changed or (lambda *_: None)
        self._n_steps = 0

    def run(self, graph: Any, config: Any, updatehash: bool = False) -> None:
        """Execute the graph; whatever happens, no process of it is left behind."""
        self._log_dir.mkdir(parents=True, exist_ok=True)
        names = [node.itername for node in graph.nodes()]
        self._n_steps = len(names)
        try:
            super().run(graph, config, updatehash=updatehash)
        finally:
            for step in self._task_obj.values():
                step.end()
            told = {*self.outcome.executed, *self.outcome.cached, *self.outcome.failed}
            self.outcome.not_run = [name for name in names if name not in told]

    def _submit_job(self, node: Any, updatehash: bool = False) -> int:
        self._taskid += 1
        taskid: int = self._taskid
        try:
            log_file = self._log_dir / f"{node.itername}.log"
            self._task_obj[taskid] = StepProcess.start(node, updatehash=updatehash, log_file=log_file)
        except Exception:
            self._taskresult[taskid] = _task_result(format_exception(*sys.exc_info()))
        self._tell()
        return taskid

    def _get_result(self, taskid: int) -> dict[str, Any] | None:
        if taskid in self._taskresult:
            unstarted: dict[str, Any] = self._taskresult.pop(taskid)
            return unstarted
        step: StepProcess = self._task_obj[taskid]
        report = step.report()
        if report is None:
            return None
        if report.traceback is None:
            self.outcome.usage[step.name] = StepUsage(report.elapsed_s, report.peak_gb)
        return _task_result(report.traceback)

    def _clear_task(self, taskid: int) -> None:
        self._task_obj.pop(taskid, None)

    def _local_hash_check(self, jobid: int, graph: Any) -> bool:
        # A damaged result of an earlier step must cost this step, not the whole run.
        try:
            self.procs[jobid].is_cached()
        except Exception:
            self._clean_queue(jobid, graph)
            self.proc_pending[jobid] = False
            return True
        return bool(super()._local_hash_check(jobid, graph))

    def _task_finished_cb(self, jobid: int, cached: bool = False) -> None:
        super()._task_finished_cb(jobid, cached=cached)
        name = self.procs[jobid].itername
        if jobid in self.mapnodesubids or name in self.outcome.failed:
            return
        (self.outcome.cached if cached else self.outcome.executed).append(name)
        logger.info("%s %s (%s)", "unchanged" if cached else "done", name, self._count())
        self._tell()

    def _clean_queue(self, jobid: int, graph: Any, result: dict[str, Any] | None = None) -> Any:
        # nipype's own default is a string here, to which its crash report cannot append
        result = result or _task_result(format_exception(*sys.exc_info()))
        traceback = "".join(result["traceback"])
        name = self.procs[self.mapnodesubids.get(jobid, jobid)].itername  # a part of a map node counts as the whole
        self.outcome.failed[name] = _message(traceback)
        if _OUT_OF_RESOURCES.search(traceback.rstrip().rpartition("\n")[2]):
            self.outcome.out_of_resources.append(name)
        logger.info("failed %s (%s): %s", name, self._count(), self.outcome.failed[name])
        self._tell()
        return super()._clean_queue(jobid, graph, result=result)

    def _report_crash(self, node: Any, result: dict[str, Any] | None = None) -> str:
        try:
            file = super()._report_crash(node, result=result)
        except OSError as error:  # a full disk must not turn a failed step into a failed run
            logger.warning("no crash file for %s: %s", node.itername, error)
            return ""
        self.outcome.crash_files[node.itername] = Path(file)
        return str(file)

    def _count(self) -> str:
        done = len(self.outcome.executed) + len(self.outcome.cached) + len(self.outcome.failed)
        return f"{done}/{self._n_steps}"

    def _tell(self) -> None:
        running = [step.name for step in self._task_obj.values() if step.process.is_alive()]
        self._changed(self.outcome, running, self._n_steps)


def run_workflow(
    workflow: Workflow,
    *,
    nprocs: int,
    mem_gb: float,
    stop_on_first_crash: bool = False,
    progress: bool | None = None,
    crash_dir: Path | None = None,
    log_dir: Path | None = None,
    outcome: RunResult | None = None,
) -> RunResult:
    """Execute a workflow and say what became of each step. A failing step does not raise.

    Parameters
    ----------
    workflow
        With its ``base_dir`` set; results of an earlier run found there are used where inputs are unchanged.
    nprocs
        Processors that all steps together may use.
    mem_gb
        Memory that all steps together may use, by their own estimates.
    stop_on_first_crash
        End the whole run at the first failure instead of going on with the steps that do not depend on it.
    progress
        Show a progress bar on standard error; by default if that is a terminal.
    crash_dir, log_dir
        Folders for the tracebacks of failed steps and for what the steps print (default: in ``base_dir``).
    outcome
        Account to fill in and return, for a caller who wants it of an interrupted run too.
    """
    base_dir = Path(workflow.base_dir)
    crash_dir, log_dir = crash_dir or base_dir / "crash", log_dir or base_dir / "log"
    workflow.config["execution"] = {
        **workflow.config.get("execution", {}),
        "crashdump_dir": str(crash_dir),
        "crashfile_format": "txt",
        "create_report": "false",
        "hash_method": "content",
        "poll_sleep_duration": str(POLL_S),
        # True would make the outputs that others use a part of a step's hash: another option downstream would then
        # run the registration again.
        "remove_unnecessary_outputs": "false",
        "stop_on_first_crash": str(stop_on_first_crash).lower(),
    }
    plugin_args = {"n_procs": nprocs, "memory_gb": mem_gb, "raise_insufficient": False}
    show = sys.stderr.isatty() if progress is None else progress
    start_server()
    with _quiet_nipype(), _frozen_heap(), _progress_bar(show) as changed:
        plugin = SodiumMultiProcPlugin(plugin_args, log_dir=log_dir, changed=changed)
        if outcome is not None:
            plugin.outcome = outcome
        try:
            workflow.run(plugin=plugin)
        except Exception:
            if plugin.outcome.ok:
                raise
    return plugin.outcome


def _task_result(traceback: list[str] | None) -> dict[str, Any]:
    return {"result": None, "traceback": traceback}


def _message(traceback: str) -> str:
    """The message of the error that a traceback ends with; the class name is kept unless the error is one of ours."""
    lines = traceback.rstrip().splitlines()
    for start in range(len(lines) - 1, -1, -1):
        match = _ERROR_LINE.match(lines[start])
        if match:
            text = " ".join([match["text"] or "", *(line.strip() for line in lines[start + 1 :])]).strip()
            ours = lines[start].strip().startswith("sodium_prep.errors.")
            return text if ours else ": ".join(part for part in (match["name"], text) if part)
    return lines[-1].strip() if lines else "unknown error"


class _ToOurLog(logging.Handler):
    """Turns what nipype says into debug messages of ours; what the steps say is in their log files."""

    def emit(self, record: logging.LogRecord) -> None:
        logger.getChild("nipype").debug("%s: %s", record.levelname, record.getMessage())


@contextmanager
def _quiet_nipype() -> Iterator[None]:
    """Keep nipype's log lines, errors with their tracebacks too, from the terminal."""
    theirs = logging.getLogger("nipype")
    handlers, propagate = theirs.handlers, theirs.propagate
    theirs.handlers, theirs.propagate = [_ToOurLog()], False
    try:
        yield
    finally:
        theirs.handlers, theirs.propagate = handlers, propagate


@contextmanager
def _frozen_heap() -> Iterator[None]:
    """Take what is in memory out of the garbage collections that nipype does at every turn (tenfold per step)."""
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


@contextmanager
def _progress_bar(show: bool) -> Iterator[Callable[[RunResult, Sequence[str], int], None]]:
    if not show:
        yield lambda *_: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (MofNCompleteColumn(), BarColumn(), TimeElapsedColumn(), TextColumn("{task.description}", markup=False))
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("", total=None)

        def changed(outcome: RunResult, running: Sequence[str], n_steps: int) -> None:
            done = len(outcome.executed) + len(outcome.cached) + len(outcome.failed)
            steps = ", ".join(name.partition(".")[2] or name for name in running)
            bar.update(task, completed=done, total=n_steps, description=steps)

        yield changed
