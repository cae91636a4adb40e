"""The step that draws the figures of one sodium series and records its quality."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from nipype.interfaces.base import File, TraitedSpec, isdefined, traits

from sodium_prep.interfaces.base import Step, StepInputSpec, load_image, load_json, save_json


class ReportScan(Step):
    """Figures, quality metrics and everything else that the participant's page shows of a series."""

    class input_spec(StepInputSpec):
        label = traits.Str(mandatory=True, desc="heading on the page")
        contrast = traits.Str(mandatory=True)
        ran = traits.Dict(mandatory=True, desc="steps and parameters for the methods text")
        warnings = traits.List(traits.Str)
        field_strength_t = traits.Float(mandatory=True)
        t1w = File(exists=True, mandatory=True)
        brain_mask = File(exists=True, mandatory=True)
        gm = File(exists=True, mandatory=True)
        wm = File(exists=True, mandatory=True)
        csf = File(exists=True, mandatory=True)
        lesion = File(exists=True)
        labels = File(exists=True, mandatory=True)
        atlas_table = File(exists=True, mandatory=True)
        atlas_record = File(exists=True, mandatory=True)
        template_affine = File(exists=True, desc="template on the anatomical grid by the affine part")
        template_warped = File(exists=True, desc="the same by the whole transform")
        sodium = File(exists=True, mandatory=True)
        sodium_t1w = File(exists=True, mandatory=True, desc="sodium image on the anatomical grid")
        sodium_second = File(exists=True, desc="the same by the opinion that was not taken")
        tsc_t1w = File(exists=True)
        residual = File(exists=True, mandatory=True)
        table = File(exists=True, mandatory=True)
        calibration = File(exists=True, mandatory=True)
        reports = traits.List(File(exists=True), desc="JSON of the steps before")

    class output_spec(TraitedSpec):  # type: ignore[misc]
        quality = File()
        figures = traits.List(File())

    def _run_interface(self, runtime: Any) -> Any:
        from sodium_prep.report.scan import draw_figures, scan_record

        inputs = self.inputs
        facts: dict[str, Any] = {}
        for path in inputs.reports or []:
            facts |= load_json(path)
        atlas = load_json(inputs.atlas_record)
        facts |= {"atlas": _joined(atlas["atlases"]), "lost_regions": atlas["lost_regions"]}
        ran = {**inputs.ran, "atlas": facts["atlas"]}
        warnings = [*(inputs.warnings or []), *facts.get("reg_notes", []), *atlas["notes"]]
        images = {
            name: _ras(getattr(inputs, name))
            for name in ("t1w", "brain_mask", "gm", "wm", "csf", "labels", "sodium_t1w")
        }
        for name in ("tsc_t1w", "sodium_second", "lesion", "template_affine", "template_warped"):
            path = getattr(inputs, name)
            images[name] = _ras(path) if isdefined(path) else None
        images |= {"sodium": _ras(inputs.sodium), "residual": _ras(inputs.residual)}
        table, calibration = _read_table(inputs.table), load_json(inputs.calibration)
        figures = draw_figures(images, table, calibration, facts)
        paths = []
        for name, figure in figures.items():
            path = Path.cwd() / f"{name}.svg"
            path.write_text(figure.svg, encoding="utf-8")
            paths.append(str(path))
        self._results["figures"] = paths
        record = scan_record(
            inputs.label, figures, images, table, calibration, facts, ran, warnings,
            inputs.field_strength_t,
        )  # fmt: skip
        save_json(self.out_path("quality", "quality.json"), record)
        return runtime


def _joined(records: list[dict[str, Any]]) -> dict[str, str]:
    """What is known of the atlases, each fact as one text."""
    keys = {"name": "Name", "version": "Version", "licence": "License", "citation": "Citation", "space": "Space"}
    found = {key: [str(record[name]) for record in records if record.get(name)] for key, name in keys.items()}
    return {key: "; ".join(dict.fromkeys(texts)) for key, texts in found.items()}


def _ras(path: str) -> Any:
    from sodium_prep.anat.conform import to_ras

    data, affine = load_image(path)
    return to_ras(data.astype("float32"), affine)


def _read_table(path: str) -> list[dict[str, Any]]:
    import pandas as pd

    frame = pd.read_csv(path, sep="\t", na_values=["n/a"], keep_default_na=False, dtype={"name": str, "flag": str})
    return [{str(key): value for key, value in row.items()} for row in frame.to_dict("records")]
