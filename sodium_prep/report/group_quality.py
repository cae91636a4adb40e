"""The quality of the cohort's scans: what stands out, what raters said, and whom to look at again."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from sodium_prep.cohort.qc import MIN_PEERS, OUTLIER_Z, SCAN
from sodium_prep.report.group_overview import scan_name
from sodium_prep.report.group_results import GroupResults
from sodium_prep.report.group_tables import MAX_ROWS, number, words
from sodium_prep.report.page import Block, Cell, DataTable, GroupSection, Paragraph, TextList

if TYPE_CHECKING:
    import pandas as pd

_SEVERITY: Final = {"fail": 0, "warn": 1, "pass": 2, "info": 3}


def quality(results: GroupResults) -> GroupSection | None:
    """Section of the quality control; None where no scan has metrics or ratings."""
    table, verdicts = results.qc, results.verdicts
    rated = verdicts is not None and bool((verdicts["rated"] != "").any())
    if table is None or (table.empty and not rated):
        return None
    odd = table[(table["outlier"] == "yes") | (table["verdict"] == "fail")]
    blocks: list[Block] = []
    if lines := recheck(results):
        caption = (
            "One line for each scan that fails or has a metric far from its peers, with the reason. To overrule the "
            "metrics, write your verdict into group/qc.tsv and run the group level again."
        )
        blocks.append(TextList("To be looked at again", caption, "recheck.txt", lines))
    elif table["z"].notna().any():
        blocks.append(Paragraph("No scan fails, and no metric lies far from those of its peers."))
    elif len(table):
        blocks.append(Paragraph(f"No scan fails; fewer than {MIN_PEERS} scans cannot be compared with one another."))
    if len(odd):
        blocks.append(_stand_out(odd, results))
    if verdicts is not None and rated:
        blocks.append(_rated(verdicts))
    if len(table):
        blocks.append(_metrics(table))
    return GroupSection("quality", "Quality of the scans", blocks, "Quality")


def recheck(results: GroupResults) -> list[str]:
    """One line for each scan that fails finally or has an outlying metric."""
    reasons: dict[tuple[str, ...], list[str]] = {}
    if results.verdicts is not None:
        for row in results.verdicts[results.verdicts["final"] == "fail"].to_dict("records"):
            by = f"rated by {row['raters']}" if row["raters"] else "rated" if row["rated"] else "metrics"
            reasons[_key(row)] = [f"fail ({by}: {row['reason']})"]
    if results.qc is not None:
        for row in results.qc[results.qc["outlier"] == "yes"].to_dict("records"):
            reasons.setdefault(_key(row), []).append(f"{row['label']} {row['value']:.4g} (z = {row['z']:+.1f})")
    return [
        " ".join(("sub-" + key[0] + " " + scan_name(dict(zip(SCAN, key, strict=True)))).split()) + ": " + "; ".join(why)
        for key, why in sorted(reasons.items())
    ]


def _key(row: Mapping[Any, Any]) -> tuple[str, ...]:
    return tuple(str(row[name]) for name in SCAN)


def _stand_out(odd: pd.DataFrame, results: GroupResults) -> DataTable:
    order = odd.assign(s=odd["verdict"].map(_SEVERITY), far=-odd["z"].abs().fillna(0.0)).sort_values(["s", "far"])
    rows = [
        [
            Cell(row["participant_id"], page=row["participant_id"] if row["participant_id"] in results.pages else ""),
            Cell(scan_name(row)), words(row["label"]), _value(row), Cell("", verdict=row["verdict"]),
            words(row["threshold"]), number(row["z"], 1, sign=True),
            Cell(f"{'all' if row['peers'] == 'all' else 'site ' + row['peers']}, n = {row['n_peers']}"),
        ]
        for row in order.head(MAX_ROWS).to_dict("records")
    ]  # fmt: skip
    caption = (
        f"Metrics that fail, or that lie more than {OUTLIER_Z} robust standard deviations from the median of the peers."
    )
    if len(odd) > MAX_ROWS:
        caption += f" The first {MAX_ROWS} of {len(odd)}; group/group_qc.tsv holds all."
    names = ["Participant", "Scan", "Metric", "Value", "Verdict", "Limits", "z", "Peers"]
    return DataTable(caption, names, rows, "Metrics that stand out")


def _value(row: Mapping[Any, Any]) -> Cell:
    value = float(row["value"])
    return Cell(f"{value:.4g} {row['unit']}".strip(), value) if np.isfinite(value) else Cell("n/a")


def _rated(verdicts: pd.DataFrame) -> DataTable:
    rated = verdicts[verdicts["rated"] != ""]
    rows = [
        [
            Cell(row["participant_id"]), Cell(scan_name(row)), Cell("", verdict=row["automatic"]),
            Cell("", verdict=row["rated"]), words(row["raters"]), words(row["reason"]),
        ]
        for row in rated.head(MAX_ROWS).to_dict("records")
    ]  # fmt: skip
    caption = "Verdicts of raters, which go before those of the metrics."
    if len(rated) > MAX_ROWS:
        caption += f" The first {MAX_ROWS} of {len(rated)}."
    return DataTable(caption, ["Participant", "Scan", "Metrics", "Rater", "Who", "Comment"], rows, "Rated scans")


def _metrics(table: pd.DataFrame) -> DataTable:
    rows = []
    for _, part in table.groupby(["metric", "acquisition", "reconstruction"], sort=False):
        first = part.iloc[0]
        values = part["value"].to_numpy(dtype=float)
        values = values[np.isfinite(values)]
        if not values.size:
            continue
        low, middle, high = np.percentile(values, (5, 50, 95))
        scan = " ".join(filter(None, (first["acquisition"], first["reconstruction"])))
        counts = [int((part[name] == label).sum()) for name, label in
                  (("verdict", "warn"), ("verdict", "fail"), ("outlier", "yes"))]  # fmt: skip
        rows.append([
            words(first["label"]), words(scan), Cell(str(values.size), float(values.size)),
            Cell(f"{middle:.4g} {first['unit']}".strip(), float(middle)), Cell(f"{low:.4g} to {high:.4g}", float(low)),
            *(Cell(str(n), float(n)) for n in counts),
        ])  # fmt: skip
    names = ["Metric", "Scan", "n", "Median", "5th to 95th percentile", "Warnings", "Failures", "Outliers"]
    return DataTable("All metrics of all scans; group/group_qc.tsv holds each value.", names, rows, "Metrics")
