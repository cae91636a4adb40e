"""The participant level: find, check, plan, run, report."""

from __future__ import annotations

import logging
import shutil
import signal
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sodium_prep.bids.filters import load_filters
from sodium_prep.bids.images import check_image
from sodium_prep.bids.inputs import collect, find_participants, find_sessions, table_warnings
from sodium_prep.bids.layout import check_directories
from sodium_prep.bids.outputs import dataset_description, write_text
from sodium_prep.bids.points import load_points
from sodium_prep.bids.records import SessionInputs
from sodium_prep.bids.series import SourceChoice
from sodium_prep.bids.sidecar import load_protocol
from sodium_prep.bids.status import SessionStatus, now, read_status, write_status
from sodium_prep.cli.logs import start_logging
from sodium_prep.cli.plan import describe_session
from sodium_prep.errors import ExitCode, InputError, SodiumPrepError, UsageError
from sodium_prep.settings import Settings

if TYPE_CHECKING:
    from sodium_prep.workflows.engine import RunResult

_SOURCES: dict[str, SourceChoice] = {"auto": "auto", "vendor": "image"}

logger = logging.getLogger("sodium_prep.cli")


@dataclass(frozen=True)
class Collected:
    """Sessions that can be processed, and the status of those that were refused."""

    accepted: tuple[SessionInputs, ...]
    refused: tuple[SessionStatus, ...]


def run_participants(settings: Settings, verbosity: int) -> int:
    """Process all participants asked for; returns the exit code.

    Raises
    ------
    SodiumPrepError
        If nothing can be begun at all.
    """
    folders = settings.bids_dir, settings.output_dir, settings.work_dir
    if settings.dry_run:
        start_logging(verbosity, None)
        check_directories(*folders, make=False)
        _check_options(settings)
        return _dry_run(settings)
    check_directories(*folders)
    if settings.reports_only:
        return _reports_only(settings)
    log_file = start_logging(verbosity, settings.output_dir / "logs")
    logger.info("sodium-prep %s, log in %s", settings.version, log_file)
    try:
        return _run(settings)
    except SodiumPrepError as error:
        write_status(settings.output_dir, (), settings=_record(settings), exit_code=int(error.exit_code))
        raise


def _run(settings: Settings) -> int:
    from sodium_prep.cli.pages import write_pages

    _check_options(settings)
    _validate(settings)
    collected = collect_sessions(settings)
    for status in collected.refused:
        print(f"sodium-prep: {status.key}: {status.message}", file=sys.stderr)
    if not collected.accepted:
        write_status(settings.output_dir, collected.refused, settings=_record(settings), exit_code=3)
        return ExitCode.INPUT_REFUSED
    dataset_description(settings.output_dir, settings.bids_dir, settings.derivatives)
    write_text(settings.output_dir / "logs" / "settings.toml", settings.to_toml())
    statuses, result = _process(settings, collected.accepted, collected.refused)
    code = _exit_code([*collected.refused, *statuses])
    _say_what_happened(statuses, result)
    write_pages(settings, [status.participant for status in statuses], statuses)
    counted = [_finished(settings, status) for status in statuses]
    write_status(settings.output_dir, [*collected.refused, *counted], settings=_record(settings), exit_code=code)
    for participant in dict.fromkeys(status.participant for status in statuses):
        print(f"  {settings.output_dir / f'sub-{participant}.html'}")
    if settings.clean_workdir and code == ExitCode.DONE:
        from sodium_prep.workflows.participant import WORKFLOW_NAME

        for name in (WORKFLOW_NAME, "log"):
            shutil.rmtree(settings.work_dir / name, ignore_errors=True)
    return code


def _reports_only(settings: Settings) -> int:
    """Write the pages of earlier results anew."""
    from sodium_prep.cli.pages import write_pages

    done = [path.parent.name.removeprefix("sub-") for path in sorted(settings.output_dir.glob("sub-*/figures"))]
    chosen = [label for label in done if not settings.participant_label or label in settings.participant_label]
    if not chosen:
        raise InputError(settings.output_dir, "holds no results to report", "Run without --reports-only first")
    write_pages(settings, chosen, list(read_status(settings.output_dir).values()))
    for participant in chosen:
        print(f"  {settings.output_dir / f'sub-{participant}.html'}")
    return ExitCode.DONE


def _check_options(settings: Settings) -> None:
    """Refuse options that name something which is not there, before any work begins."""
    for name, path in settings.derivatives.items():
        if not path.is_dir():
            option, mend = f"--derivatives {name}={path}", "Give NAME=PATH of a derivative data set"
            raise UsageError(option, "is not a folder", mend)
    from sodium_prep.workflows.participant import find_spaces

    for name in settings.atlas:
        if name.endswith((".nii", ".nii.gz")):
            check_image(Path(name))
    load_points(settings.psf_files)
    find_spaces(settings)


def collect_sessions(settings: Settings) -> Collected:
    """Find and check the inputs of every session; a faulty one is refused and leaves the others alone."""
    filters = load_filters(settings.bids_filter_file) if settings.bids_filter_file else None
    protocol = load_protocol(settings.protocol) if settings.protocol else None
    accepted: list[SessionInputs] = []
    refused: list[SessionStatus] = []
    participants = find_participants(settings.bids_dir, settings.participant_label or None)
    for warning in table_warnings(settings.bids_dir, participants):
        logger.warning("%s", warning)
    for participant in participants:
        for session in _sessions(settings, participant, refused):
            started = now()
            try:
                inputs = collect(
                    settings.bids_dir,
                    participant,
                    session,
                    filters=filters,
                    derivatives=settings.derivatives,
                    protocol=protocol,
                    anat_contrast=settings.anat_contrast,
                    source=_SOURCES.get(settings.recon, "kspace"),
                )
            except InputError as error:
                refused.append(_refusal(participant, session, error, started))
            else:
                accepted.append(inputs)
    return Collected(tuple(accepted), tuple(refused))


def _sessions(settings: Settings, participant: str, refused: list[SessionStatus]) -> list[str | None]:
    try:
        return find_sessions(settings.bids_dir, participant, settings.session_label or None)
    except InputError as error:
        refused.append(_refusal(participant, None, error, now()))
        return []


def _refusal(participant: str, session: str | None, error: InputError, started: str) -> SessionStatus:
    return SessionStatus(participant, session, "refused", int(error.exit_code), str(error), 0, started, now())


def _dry_run(settings: Settings) -> int:
    collected = collect_sessions(settings)
    for inputs in collected.accepted:
        print(describe_session(inputs, settings))
    for status in collected.refused:
        print(f"{status.key}\n  refused: {status.message}")
    print(f"{len(collected.accepted)} session(s) would be processed, {len(collected.refused)} refused.")
    return ExitCode.DONE if collected.accepted else ExitCode.INPUT_REFUSED


def _process(
    settings: Settings, sessions: tuple[SessionInputs, ...], refused: tuple[SessionStatus, ...]
) -> tuple[list[SessionStatus], RunResult]:
    from sodium_prep.workflows.engine import RunResult, run_workflow
    from sodium_prep.workflows.participant import init_participants_wf
    from sodium_prep.workflows.resume import forget_lost_outputs, remove_temporaries

    started, result = now(), RunResult()
    workflow = init_participants_wf(settings=settings, sessions=sessions)
    if settings.write_graph:
        _write_graph(workflow, settings.output_dir / "logs" / "graph.dot")
    forget_lost_outputs(workflow)
    try:
        run_workflow(
            workflow,
            nprocs=settings.nprocs,
            mem_gb=settings.mem_gb,
            stop_on_first_crash=settings.stop_on_first_crash,
            crash_dir=settings.output_dir / "logs" / "crash",
            outcome=result,
        )
    except (KeyboardInterrupt, SystemExit) as end:
        code = 128 + signal.SIGINT if isinstance(end, KeyboardInterrupt) else int(end.code or 0)
        statuses = [_session_status(inputs, result, started, stopped_by=code) for inputs in sessions]
        write_status(settings.output_dir, [*refused, *statuses], settings=_record(settings), exit_code=code)
        raise
    finally:
        for inputs in sessions:
            remove_temporaries(settings.output_dir, inputs.participant, inputs.session)
    return [_session_status(inputs, result, started) for inputs in sessions], result


def _write_graph(workflow: Any, path: Path) -> None:
    try:
        workflow.write_graph(str(path), graph2use="colored", format="svg")
    except OSError as error:  # nipype has written the .dot file by then
        logger.warning("--write-graph: %s; install Graphviz for the picture, %s can be drawn later", error, path)


def _finished(settings: Settings, status: SessionStatus) -> SessionStatus:
    folder = settings.output_dir / f"sub-{status.participant}" / (f"ses-{status.session}" if status.session else "")
    files = sum(1 for path in folder.rglob("*") if path.is_file())
    return replace(status, outputs=files, finished=now())


def _session_status(
    inputs: SessionInputs, result: RunResult, started: str, stopped_by: int | None = None
) -> SessionStatus:
    """How a session ended; ``stopped_by`` is the exit code of a run that a signal has ended."""
    from sodium_prep.workflows.participant import concerns

    failed = {name: text for name, text in result.failed.items() if concerns(name, inputs)}
    begun = any(concerns(name, inputs) for name in (*result.executed, *result.cached))
    unfinished = failed or not begun or any(concerns(name, inputs) for name in result.not_run)
    resources = any(name in result.out_of_resources for name in failed)
    code = ExitCode.RESOURCES if resources else ExitCode.SOME_FAILED
    message = "; ".join(f"{name.rpartition('.')[2]}: {text}" for name, text in failed.items())
    if resources and not message.endswith("."):  # no error of ours, which would say how to mend it
        message += ". Make room on the disk, or give the run more memory, and run again."
    if unfinished and not failed:
        message = "stopped before it was done; the same command goes on from there"
    return SessionStatus(
        inputs.participant,
        inputs.session,
        "failed" if unfinished else "done",
        int(code if failed or stopped_by is None else stopped_by) if unfinished else 0,
        message,
        started=started,
        warnings=inputs.warnings,
    )


def _exit_code(statuses: list[SessionStatus]) -> ExitCode:
    codes = {status.exit_code for status in statuses}
    if codes <= {0}:
        return ExitCode.DONE
    return ExitCode.RESOURCES if int(ExitCode.RESOURCES) in codes else ExitCode.SOME_FAILED


def _say_what_happened(statuses: list[SessionStatus], result: RunResult) -> None:
    if result.usage:
        step, usage = max(result.usage.items(), key=lambda item: item[1].peak_gb)
        logger.info("peak memory %.2f GB (%s)", usage.peak_gb, step)
    done = [status for status in statuses if status.state == "done"]
    for status in statuses:
        if status.state != "done":
            print(f"sodium-prep: {status.key}: {status.message}", file=sys.stderr)
    counts = f"{len(result.executed)} steps done, {len(result.cached)} were up to date, {len(result.failed)} failed"
    idle = not result.executed and not result.failed
    work = f"nothing to do: all {len(result.cached)} steps are up to date" if idle else counts
    print(f"{len(done)} of {len(statuses)} session(s) finished ({work}).")


def _record(settings: Settings) -> dict[str, object]:
    return settings.model_dump(mode="json", exclude_none=True)


def _validate(settings: Settings) -> None:
    """Run the BIDS validator where it is installed, and refuse a data set with errors."""
    if settings.skip_bids_validation:
        return
    beside = Path(sys.executable).with_name("bids-validator-deno")
    program = str(beside) if beside.exists() else shutil.which("bids-validator-deno")
    if program is None:
        logger.info("bids-validator-deno is not installed; only the files that are used are checked")
        return
    try:
        outcome = subprocess.run(
            [program, str(settings.bids_dir), "--ignoreWarnings"],
            capture_output=True,
            text=True,
            timeout=600,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        logger.warning("bids-validator-deno did not end (%s); only the files that are used are checked", error)
        return
    if outcome.returncode == 16:
        logger.debug("bids-validator-deno:\n%s", outcome.stdout)
        errors = [line.strip() for line in outcome.stdout.splitlines() if "[ERROR]" in line][:3]
        raise InputError(
            settings.bids_dir,
            f"is not a valid BIDS data set: {'; '.join(errors) or 'see the log'}",
            "Mend it, or use --skip-bids-validation if the files that matter here are right",
        )
