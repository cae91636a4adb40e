"""Steps that write results into the output data set."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from nipype.interfaces.base import File, InputMultiObject, TraitedSpec, traits

from sodium_prep.interfaces.base import Step, StepInputSpec, load_image, load_json, save_json

MANIFEST = "outputs.json"
"""File in a step's directory with the path and size of all that it wrote, so that lost outputs are noticed."""


class _SaveInputSpec(StepInputSpec):
    out_dir = traits.Directory(mandatory=True)
    bids_dir = traits.Directory(mandatory=True)
    participant = traits.Str(mandatory=True)
    session = traits.Str("", usedefault=True)
    sources = traits.List(traits.Str, desc="files that the results were made from")
    links = traits.Dict(desc="derivative data sets by name")


class _SaveOutputSpec(TraitedSpec):  # type: ignore[misc]
    out_files = traits.List(traits.Str)


class _Save(Step):
    """Writes derivatives with their sidecars, and remembers them."""

    output_spec = _SaveOutputSpec

    def _start(self) -> None:
        from sodium_prep.bids.outputs import OutputNames

        inputs = self.inputs
        self._written: list[Path] = []
        self.names = OutputNames(Path(inputs.out_dir), inputs.participant, inputs.session or None)

    def _uri(self, path: str | Path) -> str:
        from sodium_prep.bids.outputs import bids_uri

        roots = {"raw": Path(self.inputs.bids_dir), "": Path(self.inputs.out_dir)}
        roots |= {name: Path(root) for name, root in (self.inputs.links or {}).items()}
        try:
            return bids_uri(Path(path), roots)
        except ValueError:
            return Path(path).name

    def _sidecar(self, path: Path, description: str, **fields: Any) -> None:
        from sodium_prep.bids.outputs import derivative_sidecar, json_beside, write_json

        sources = [self._uri(source) for source in self.inputs.sources or []]
        content = derivative_sidecar(description=description, sources=sources, **fields)
        self._written.append(write_json(json_beside(path), content))

    def _image(self, path: Path, source: str, description: str, *, template: bool = False, **fields: Any) -> None:
        from sodium_prep.bids.outputs import SCANNER_SPACE, TEMPLATE_SPACE, write_nifti

        data, affine = load_image(source)
        self._written.append(write_nifti(path, data, affine, TEMPLATE_SPACE if template else SCANNER_SPACE))
        self._sidecar(path, description, **fields)

    def _copy(self, path: Path, source: str) -> None:
        from sodium_prep.bids.outputs import copy_file

        self._written.append(copy_file(Path(source), path))

    def _finish(self) -> None:
        self._results["out_files"] = [str(path) for path in self._written]
        save_json(Path.cwd() / MANIFEST, {"sizes": {str(path): path.stat().st_size for path in self._written}})


class SaveAnatomy(_Save):
    """The anatomical derivatives of a session."""

    class input_spec(_SaveInputSpec):
        contrast = traits.Str(mandatory=True)
        atlases = traits.List(traits.Str, mandatory=True)
        atlas_table = File(exists=True, mandatory=True)
        atlas_record = File(exists=True, mandatory=True)
        lesion = File(exists=True)
        t1w = File(exists=True, mandatory=True)
        brain_mask = File(exists=True, mandatory=True)
        gm = File(exists=True, mandatory=True)
        wm = File(exists=True, mandatory=True)
        csf = File(exists=True, mandatory=True)
        labels = File(exists=True, mandatory=True)
        to_template = File(exists=True)
        from_template = File(exists=True)
        spaces = traits.List(traits.Str, desc="names of further templates")
        to_spaces = InputMultiObject(File(exists=True), desc="transforms of the bundled template to these")
        from_spaces = InputMultiObject(File(exists=True), desc="and back")

    def _run_interface(self, runtime: Any) -> Any:
        import numpy as np

        from sodium_prep.atlas.bundled import TEMPLATE_NAME
        from sodium_prep.bids.outputs import json_beside, write_nifti

        self._start()
        names, inputs = self.names, self.inputs
        self._image(names.preproc_anat(inputs.contrast), inputs.t1w, "Bias-corrected image", skull_stripped=False)
        self._image(names.brain_mask(), inputs.brain_mask, "Brain mask", extra={"Type": "Brain"})
        for tissue in ("GM", "WM", "CSF"):
            self._image(names.probseg(tissue), getattr(inputs, tissue.lower()), f"Fraction of {tissue} in each voxel")
        fractions = [load_image(getattr(inputs, t))[0] for t in ("gm", "wm", "csf")]
        affine = load_image(inputs.gm)[1]
        largest = np.where(sum(fractions) > 0.5, np.argmax(fractions, axis=0) + 1, 0).astype(np.uint8)
        self._written.append(write_nifti(names.dseg(), largest, affine))
        self._sidecar(names.dseg(), "Tissue with the largest fraction: 1 GM, 2 WM, 3 CSF")
        labels = names.atlas_dseg(atlas_label(inputs.atlases))
        text = f"Labels of the atlas {' with '.join(Path(name).name for name in inputs.atlases)}"
        self._image(labels, inputs.labels, text, extra={"Atlases": load_json(inputs.atlas_record)["atlases"]})
        self._copy(json_beside(labels).with_suffix(".tsv"), inputs.atlas_table)
        if inputs.lesion:
            self._image(names.lesion_mask(), inputs.lesion, "Lesion mask", extra={"Type": "Lesion"})
        if inputs.to_template:
            self._copy(names.template_xfm("T1w", TEMPLATE_NAME), inputs.to_template)
        if inputs.from_template:
            self._copy(names.template_xfm(TEMPLATE_NAME, "T1w"), inputs.from_template)
        for space, there, back in zip(
            inputs.spaces or [], inputs.to_spaces or [], inputs.from_spaces or [], strict=True
        ):
            self._joined(names.template_xfm("T1w", space), [inputs.to_template, there])
            self._joined(names.template_xfm(space, "T1w"), [back, inputs.from_template])
        self._finish()
        return runtime

    def _joined(self, path: Path, chain: Sequence[str]) -> None:
        """Write one transform for several, in the order in which an image meets them."""
        from sodium_prep.anat.fields import join_transforms

        local = Path.cwd() / path.name
        join_transforms(local, [Path(step) for step in chain])
        self._copy(path, str(local))


class SaveScan(_Save):
    """The table, maps, calibration, figures and quality record of one sodium series."""

    class input_spec(_SaveInputSpec):
        acq = traits.Str("", usedefault=True)
        suffix = traits.Str("PDw", usedefault=True)
        rec = traits.Str(mandatory=True)
        contrast = traits.Str(mandatory=True)
        atlases = traits.List(traits.Str, mandatory=True)
        atlas_record = File(exists=True, mandatory=True)
        groups = traits.List(traits.Str, desc="presets of groups of regions")
        acquisition = traits.Dict(mandatory=True)
        sodium = File(exists=True, mandatory=True)
        noise = File(exists=True, mandatory=True)
        psf_files = traits.List(File(exists=True), desc="images of a point as the reconstruction measured them")
        psf_tissues = traits.List(traits.Str, desc="tissue of each of them")
        transform = File(exists=True, mandatory=True)
        table = File(exists=True, mandatory=True)
        calibration = File(exists=True, mandatory=True)
        tsc = File(exists=True)
        tsc_stderr = File(exists=True)
        tsc_t1w = File(exists=True)
        spaces = traits.List(traits.Str, desc="of the maps that follow")
        tsc_spaces = InputMultiObject(File(exists=True), desc="maps in template spaces; none without any reference")
        corrected = InputMultiObject(File(exists=True), desc="named <estimator>[_<tissue>].nii; native grid")
        corrected_t1w = InputMultiObject(File(exists=True), desc="the same on the anatomical grid")
        corrected_spaces = InputMultiObject(File(exists=True), desc="the same in each of the template spaces in turn")
        quality = File(exists=True, mandatory=True, desc="quality record with what the page needs")
        figures = traits.List(File(exists=True), desc="named <section>.svg")

    def _run_interface(self, runtime: Any) -> Any:
        from sodium_prep.atlas.groups import group_records, groups_of
        from sodium_prep.bids.outputs import json_beside, write_json, write_tsv
        from sodium_prep.regional.summary import CALIBRATION_COLUMNS
        from sodium_prep.regional.table import TABLE_COLUMNS

        self._start()
        names, inputs, acq = self.names, self.inputs, self.inputs.acq or None
        quality, calibration = load_json(inputs.quality), load_json(inputs.calibration)
        method = {
            "Acquisition": inputs.acquisition,
            "PointSpreadFunction": quality["report"]["psf"],
            "Relaxation": quality["report"]["relaxation"],
            "Reference": quality["report"]["primary"],
        }
        image = names.sodium_image(acq, None, inputs.rec, inputs.suffix)
        text = "Sodium image on its native grid, noise floor and receive profile removed where they are known"
        self._image(image, inputs.sodium, text, units="arbitrary", skull_stripped=False)
        self._noise(acq)
        self._copy(names.sodium_xfm(acq), inputs.transform)
        self._maps(acq, method)
        table = names.table(acq, None, atlas_label(inputs.atlases))
        self._copy(table, inputs.table)
        sources = {"Methods": method, "Atlases": load_json(inputs.atlas_record)["atlases"]}
        sources["Groups"] = group_records(groups_of(inputs.groups))
        self._written.append(write_json(json_beside(table), TABLE_COLUMNS | sources))
        lines = names.calibration(acq)
        self._written.append(write_tsv(lines, calibration["references"], list(CALIBRATION_COLUMNS)))
        self._written.append(write_json(json_beside(lines), CALIBRATION_COLUMNS | {"Lines": calibration["lines"]}))
        for figure in inputs.figures or []:
            self._copy(names.figure(Path(figure).stem, "figure", acq=acq), figure)
        self._written.append(write_json(names.path("qc", ".json", acq=acq), quality))
        self._finish()
        return runtime

    def _noise(self, acq: str | None) -> None:
        """Noise and, where it was measured, blur of the image."""
        from sodium_prep.bids.outputs import write_nifti
        from sodium_prep.interfaces.sodium import load_noise

        inputs = self.inputs
        path = self.names.sodium_image(acq, None, inputs.rec, inputs.suffix, stat="stderr")
        noise = load_noise(inputs.noise)
        self._written.append(write_nifti(path, noise.sd, load_image(inputs.sodium)[1]))
        self._sidecar(path, "Standard deviation of the noise of the sodium image", units="arbitrary")
        for tissue, point in zip(inputs.psf_tissues or [], inputs.psf_files or [], strict=True):
            path = self.names.path("psf", ".nii.gz", acq=acq, rec=inputs.rec, label=tissue)
            self._image(path, point, f"Mean image of points that decay like {tissue}, over their integral")

    def _maps(self, acq: str | None, method: dict[str, Any]) -> None:
        names, inputs = self.names, self.inputs
        text = "Total sodium concentration, not corrected for partial volume"
        if inputs.tsc:
            self._image(names.tsc_map(acq), inputs.tsc, text, units="mmol/L", extra=method)
        if inputs.tsc_stderr:
            path = names.tsc_map(acq, stat="stderr")
            self._image(path, inputs.tsc_stderr, f"Standard error: {text.lower()}", units="mmol/L", extra=method)
        if inputs.tsc_t1w:
            reference = self._uri(names.preproc_anat(inputs.contrast))
            path = names.tsc_map(acq, space="T1w")
            fields: dict[str, Any] = {"space": "T1w", "spatial_reference": reference, "extra": method}
            self._image(path, inputs.tsc_t1w, text, units="mmol/L", **fields)
        for space, path in zip(inputs.spaces or [], inputs.tsc_spaces or [], strict=False):
            fields = {"space": space, "extra": method}
            self._image(names.tsc_map(acq, space=space), path, text, template=True, units="mmol/L", **fields)
        self._corrected(acq, method)

    def _corrected(self, acq: str | None, method: dict[str, Any]) -> None:
        """Maps corrected for partial volume, in every space."""
        inputs, spaces = self.inputs, list(self.inputs.spaces or [])
        native, more = list(inputs.corrected or []), list(inputs.corrected_spaces or [])
        for path in native:
            self._corrected_map(acq, path, None, method)
        for path in inputs.corrected_t1w or []:
            self._corrected_map(acq, path, "T1w", method)
        for number, path in enumerate(more):
            self._corrected_map(acq, path, spaces[number // len(native)], method)

    def _corrected_map(self, acq: str | None, path: str, space: str | None, method: dict[str, Any]) -> None:
        from sodium_prep.regional.further import MAP_METHODS

        name, _, tissue = Path(path).stem.partition("_")
        what, citation = MAP_METHODS[name]
        shown = f"in {tissue} alone" if tissue else "as mixed in each voxel"
        fields: dict[str, Any] = {
            "space": space,
            "spatial_reference": self._uri(self.names.preproc_anat(self.inputs.contrast)) if space == "T1w" else None,
            "template": space not in (None, "T1w"),
            "extra": method | {"PartialVolumeCorrection": {"Name": name, "Method": what, "Citation": citation}},
        }
        text = f"Total sodium concentration {shown}, corrected for partial volume: {what}; NaN without a value"
        out = self.names.tsc_map(acq, space=space, label=tissue or None, desc=name)
        self._image(out, path, text, units="mmol/L", **fields)


def atlas_label(atlases: Sequence[str]) -> str:
    """The atlases as one BIDS label: their names, or those of their files, in letters and digits."""
    stems = [Path(name).name.removesuffix(".gz").removesuffix(".nii").title() for name in atlases]
    labels = ["".join(sign for sign in stem if sign.isalnum() and sign.isascii()) for stem in stems]
    return "+".join(label or "custom" for label in labels)
