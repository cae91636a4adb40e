"""The group level: tables of all participants gathered, analysed and shown on one page."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import IO, Final

from sodium_prep.bids.layout import check_directories
from sodium_prep.bids.writers import write_bytes, write_json, write_text
from sodium_prep.cli.group_maps import compare_maps
from sodium_prep.cli.group_page import group_page
from sodium_prep.cli.logs import start_logging
from sodium_prep.cohort.analysis import Analysis, analyse
from sodium_prep.cohort.model import GroupModel, read_model
from sodium_prep.cohort.outputs import Table, combat_record, gathered_tables, result_tables
from sodium_prep.cohort.qc import Quality, assess_quality, without_scans
from sodium_prep.cohort.tables import Cohort, data_dictionary, gather
from sodium_prep.cohort.tsv import tsv_chunks
from sodium_prep.errors import ExitCode, InputError
from sodium_prep.settings import Settings

logger = logging.getLogger("sodium_prep.cli")

PAGE: Final = "group.html"


def run_group_level(settings: Settings, verbosity: int) -> int:
    """Gather, analyse and report; returns the exit code.

    Raises
    ------
    SodiumPrepError
        If no participant has a table yet, the model cannot be used, or groups cannot be told from sites; the tables and
        the page are there in that case.
    """
    if settings.dry_run:
        return _dry_run(settings)
    check_directories(settings.bids_dir, settings.output_dir)
    start_logging(verbosity, settings.output_dir / "logs")
    if not any(settings.output_dir.glob("sub-*/**/*_tsc.tsv")):
        raise InputError(settings.output_dir, "holds no regional table", "Run the participant level first")
    model = read_model(settings.model) if settings.model else GroupModel(seed=settings.random_seed)
    cohort = gather(settings.output_dir, settings.bids_dir)
    quality = assess_quality(cohort, settings.output_dir, model.exclude_qc)
    written = _write_tables(settings.output_dir, gathered_tables(cohort, quality))
    logger.info("gathered %d participants", len(cohort.participants))
    analysed = replace(cohort, tsc=without_scans(cohort.tsc, quality.excluded), notes=(*cohort.notes, *quality.notes))
    analysis = analyse(analysed, model)
    written |= _write_results(settings.output_dir, analysis)
    _remove_old(settings.output_dir / "group", written)
    maps = compare_maps(settings, analysis) if analysis.model.voxelwise else None
    page = group_page(settings.output_dir, analysed, quality, analysis, maps)
    path = write_text(settings.output_dir / PAGE, page)
    return _say(path, analysed, quality, analysis)


def _dry_run(settings: Settings) -> int:
    if settings.model:
        read_model(settings.model)
    tables = sorted(settings.output_dir.glob("sub-*/**/*_tsc.tsv"))
    print(f"{len(tables)} table(s) would be gathered into {settings.output_dir / 'group'}:")
    for path in tables:
        print(f"  {path.relative_to(settings.output_dir)}")
    return ExitCode.DONE


def _write_tables(out_dir: Path, tables: Mapping[str, Table]) -> set[Path]:
    """Write tables with their dictionaries; returns the files."""
    written = set()
    for name, table in tables.items():
        path = out_dir / "group" / f"group_{name}.tsv"
        write_bytes(path, lambda stream, frame=table.frame: _stream(stream, tsv_chunks(frame)))  # type: ignore[misc]
        text = data_dictionary(table.frame, table.columns)
        written |= {path, write_text(path.with_suffix(".json"), text)}
    return written


def _stream(stream: IO[bytes], chunks: Iterable[str]) -> None:
    for chunk in chunks:
        stream.write(chunk.encode("utf-8"))


def _write_results(out_dir: Path, analysis: Analysis) -> set[Path]:
    written = _write_tables(out_dir, result_tables(analysis))
    written.add(write_text(out_dir / "group" / "group_model.toml", analysis.model.to_toml()))
    if record := combat_record(analysis):
        written.add(write_json(out_dir / "group" / "group_combat.json", record))
    return written


def _remove_old(folder: Path, written: set[Path]) -> None:
    """Remove what an earlier run with another model left, which would pass for this one's."""
    for path in folder.glob("group_*.*"):
        if path not in written and path.suffix in (".tsv", ".json", ".toml"):
            path.unlink()


def _say(page: Path, cohort: Cohort, quality: Quality, analysis: Analysis) -> int:
    """Tell what happened; returns the exit code, or refuses a design that could not be analysed."""
    people = cohort.participants
    failed = int((people["state"] == "failed").sum())
    for note in cohort.notes:
        print(f"sodium-prep: {note}")
    if len(quality.excluded):
        print(f"sodium-prep: {len(quality.excluded)} scan(s) left out by quality control: see group_scans.tsv.")
    n = int((people["state"] == "done").sum())
    print(f"{n} of {len(people)} participant(s) gathered.\n  {page}")
    if analysis.checks.stops:
        print(analysis.checks.group_site.to_string(), file=sys.stderr)
        analysis.checks.refuse()
    return ExitCode.SOME_FAILED if failed else ExitCode.DONE
