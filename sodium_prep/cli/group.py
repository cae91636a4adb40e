"""The group level: tables of all participants gathered, compared and shown on one page."""

from __future__ import annotations

import logging

from sodium_prep.bids.layout import check_directories
from sodium_prep.bids.outputs import write_text
from sodium_prep.cli.logs import start_logging
from sodium_prep.errors import ExitCode, InputError
from sodium_prep.report.group import group_outputs
from sodium_prep.settings import Settings

logger = logging.getLogger("sodium_prep.cli")


def run_group_level(settings: Settings, verbosity: int) -> int:
    """Gather, compare and report; returns the exit code.

    Raises
    ------
    InputError
        If no participant has a table yet.
    """
    if settings.dry_run:
        tables = sorted(settings.output_dir.glob("sub-*/**/*_tsc.tsv"))
        print(f"{len(tables)} table(s) would be gathered into {settings.output_dir / 'group'}:")
        for path in tables:
            print(f"  {path.relative_to(settings.output_dir)}")
        return ExitCode.DONE
    check_directories(settings.bids_dir, settings.output_dir)
    start_logging(verbosity, settings.output_dir / "logs")
    if not any(settings.output_dir.glob("sub-*/**/*_tsc.tsv")):
        raise InputError(settings.output_dir, "holds no regional table", "Run the participant level first")
    outputs = group_outputs(settings.bids_dir, settings.output_dir)
    for relative, text in outputs.files.items():
        write_text(settings.output_dir / relative, text)
    for note in [*outputs.cohort.notes, *outputs.comparisons.refusals]:
        print(f"sodium-prep: {note}")
    people = outputs.cohort.participants
    print(
        f"{len(people)} participant{'' if len(people) == 1 else 's'} gathered.\n  {settings.output_dir / 'group.html'}"
    )
    return ExitCode.DONE
