"""The participants' pages, made of the records that the runs have left in the output folder."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sodium_prep.bids.outputs import write_text
from sodium_prep.bids.status import SessionStatus
from sodium_prep.report.methods import MethodsText, build_methods
from sodium_prep.report.page import ParticipantReport, SummaryItem, render_participant
from sodium_prep.report.scan import scan_report
from sodium_prep.settings import Settings

logger = logging.getLogger("sodium_prep.cli")


def write_pages(settings: Settings, participants: Sequence[str], statuses: Sequence[SessionStatus]) -> None:
    """Write ``sub-XX.html`` of the participants, with the errors of the steps that failed."""
    for participant in dict.fromkeys(participants):
        own = [status for status in statuses if status.participant == participant]
        errors = [f"{status.key}: {status.message}" for status in own if status.state != "done"]
        page, methods = _participant_page(settings, participant, errors)
        write_text(settings.output_dir / f"sub-{participant}.html", page)
        write_text(settings.output_dir / "logs" / "CITATION.md", methods.to_markdown())


def _participant_page(settings: Settings, participant: str, errors: Sequence[str]) -> tuple[str, MethodsText]:
    records = sorted((settings.output_dir / f"sub-{participant}").rglob("*_qc.json"))
    scans, methods = [], build_methods({"software": {"sodium_prep": settings.version}})
    ran: dict[str, Any] = {}
    for path in records:
        record = json.loads(path.read_text(encoding="utf-8"))
        if "report" not in record:
            continue
        scans.append(scan_report(record, _figures(settings.output_dir, participant, path)))
        own = record["report"]["ran"]
        # A weighted image adds a paragraph, and leaves those of concentrations as they are.
        ran = {**own, **ran} if own.get("weighted") else {**own, "weighted": ran.get("weighted")}
        methods = build_methods(ran)
    report = ParticipantReport(
        title=f"sub-{participant}",
        participant=participant,
        scans=scans,
        methods=methods,
        errors=errors,
        settings_toml=settings.to_toml(),
        versions=[SummaryItem("sodium_prep", settings.version)],
    )
    return render_participant(report), methods


def _figures(out_dir: Path, participant: str, record: Path) -> dict[str, str]:
    stem = record.name.removesuffix("_qc.json")
    folder = out_dir / f"sub-{participant}" / "figures"
    found = {}
    for path in sorted(folder.glob(f"{stem}_desc-*_figure.svg")):
        found[path.name.rpartition("_desc-")[2].removesuffix("_figure.svg")] = path.read_text(encoding="utf-8")
    return found
