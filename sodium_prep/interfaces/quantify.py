"""Steps from the corrected sodium image to concentrations: calibration, regions, maps."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from nipype.interfaces.base import File, InputMultiObject, TraitedSpec, isdefined, traits

from sodium_prep.interfaces.base import Step, StepInputSpec, load_image, load_mask, save_image, save_json
from sodium_prep.interfaces.kspace import KspaceInputSpec, read_echoes
from sodium_prep.interfaces.sodium import TransmitInputSpec, acquisition_from, load_noise, transmit_field


class Quantify(Step):
    """Calibration by every reference, regional signals through the acquisition, table and maps."""

    class input_spec(TransmitInputSpec, KspaceInputSpec):
        in_file = File(exists=True, mandatory=True, desc="sodium image, native grid")
        noise_file = File(exists=True, mandatory=True)
        kspace_file = File(exists=True, desc="raw data of the image, for estimates from k-space")
        profile_file = File(exists=True, desc="receive profile that was taken off the image")
        stored_files = traits.List(File(exists=True), desc="images as the scanner stored them, for clipping")
        transform = File(exists=True, mandatory=True, desc="sodium to anatomy")
        t1w = File(exists=True, mandatory=True)
        brain_mask = File(exists=True, mandatory=True)
        head_mask = File(exists=True, mandatory=True)
        gm = File(exists=True, mandatory=True)
        wm = File(exists=True, mandatory=True)
        csf = File(exists=True, mandatory=True)
        lesion = File(exists=True)
        labels = File(exists=True, mandatory=True)
        atlas_table = File(exists=True, mandatory=True)
        groups = traits.List(traits.Str, desc="presets of regions that are estimated as one")
        relaxation = traits.Dict(desc="fields of Relaxation that replace the literature's, by tissue")
        psf_kind = traits.Str(mandatory=True, desc="of PsfModel; empty if it is not known")
        psf_reason = traits.Str("", usedefault=True)
        psf_width_sd = traits.Float(desc="relative uncertainty of its width; a usual value if not given")
        psf_files = traits.List(File(exists=True), desc="images of a point")
        psf_tissues = traits.List(traits.Str, desc="tissue of each of them")
        psf_own = traits.Bool(False, usedefault=True, desc="they were measured at the voxels of this very image")
        registration_sd_mm = traits.Float(desc="what the registration leaves; a usual value if not given")
        refine = traits.Bool(True, usedefault=True, desc="let the regional model refine the registration")
        fit_receive = traits.Bool(False, usedefault=True, desc="fit the receive profile with whole structures")
        air_point = traits.Bool(False, usedefault=True, desc="air is a reference without sodium")
        weighting = traits.Enum("SQ", "IR", "TQ", usedefault=True, desc="without concentrations unless SQ")
        psf_fwhm_mm = traits.Float(desc="of a Gaussian PSF")
        vials = traits.List(traits.Dict, mandatory=True, desc="fields of ReferenceGeometry")
        vials_placed = traits.Bool(mandatory=True)
        references = traits.List(traits.Str, mandatory=True)
        estimators = traits.List(traits.Str, mandatory=True)

    class output_spec(TraitedSpec):  # type: ignore[misc]
        table = File()
        relative = File(desc="table of a weighted image")
        calibration = File(desc="references and lines, JSON")
        tsc = File(desc="mM, native grid; absent without any reference")
        tsc_stderr = File()
        corrected = traits.List(File, desc="corrected maps, mM, native grid: <estimator>[_<tissue>].nii")
        residual = File(desc="image minus model over the expected noise, native grid")
        transform = File(desc="sodium to anatomy, as used")
        acquisition = traits.Dict(desc="as used")
        report_file = File()

    def _run_interface(self, runtime: Any) -> Any:
        import numpy as np

        from sodium_prep.atlas.groups import groups_of
        from sodium_prep.atlas.tables import read_table
        from sodium_prep.physics.relaxation import TISSUES, tissue_relaxation
        from sodium_prep.regional.scan import quantify_scan

        table = read_table(Path(self.inputs.atlas_table))
        labels, affine = load_image(self.inputs.labels)
        compartments, notes = self._compartments(labels, affine, table)
        scan = self._scan(affine)
        eyes = _eyes(labels, affine, table)
        to_sodium = np.linalg.inv(scan.sodium_to_t1w)
        given = self.inputs.relaxation or {}
        field_t = scan.acquisition.field_strength_t
        relaxations = {tissue: tissue_relaxation(tissue, field_t, given.get(tissue)) for tissue in TISSUES}
        result = quantify_scan(
            scan,
            compartments,
            relaxations,
            vials=[_geometry(fields) for fields in self.inputs.vials],
            vials_placed=self.inputs.vials_placed,
            eyes_mm=[to_sodium[:3, :3] @ eye + to_sodium[:3, 3] for eye in eyes],
            references=self.inputs.references,
            estimators=self.inputs.estimators,
            refine=self.inputs.refine,
            fit_receive=self.inputs.fit_receive,
            air_point=self.inputs.air_point,
            weighted=self.inputs.weighting != "SQ",
            groups=groups_of(list(self.inputs.groups or [])),
            **({"registration_sd_mm": sd} if isdefined(sd := self.inputs.registration_sd_mm) else {}),
        )
        self._write(replace(result, notes=(*notes, *result.notes)), scan, relaxations)
        self._results["acquisition"] = dict(self.inputs.acquisition)
        return runtime

    def _compartments(self, labels: Any, affine: Any, table: Any) -> Any:
        from sodium_prep.anat.homologue import fit_mirror
        from sodium_prep.pvc.compartments import build_compartments
        from sodium_prep.regional.lesion import around_lesion

        lesion = load_mask(self.inputs.lesion)
        gm, wm, csf = (load_image(getattr(self.inputs, t))[0].astype("float32") for t in ("gm", "wm", "csf"))
        compartments = build_compartments(
            gm,
            wm,
            csf,
            load_image(self.inputs.brain_mask)[0] > 0,
            load_image(self.inputs.head_mask)[0] > 0,
            load_image(self.inputs.t1w)[0].astype("float32"),
            labels.astype("int32"),
            table,
            affine,
            lesion=lesion,
        )
        if lesion is None or not lesion.any():
            return compartments, []
        return around_lesion(compartments, lesion, fit_mirror(labels.astype("int32"), affine, table, avoid=lesion))

    def _scan(self, t1w_affine: Any) -> Any:
        import numpy as np

        from sodium_prep.anat.transforms import read_itk_affine
        from sodium_prep.quant.b1 import field_on_grid
        from sodium_prep.quant.references import clipped_voxels
        from sodium_prep.regional.inputs import Scan, mask_on_grid

        image, affine = load_image(self.inputs.in_file)
        acquisition = acquisition_from(self.inputs.acquisition)
        clipped = np.zeros(image.shape, dtype=bool)
        for path in self.inputs.stored_files or []:
            stored = load_image(path)[0]
            if stored.shape == image.shape:
                clipped |= clipped_voxels(stored)
        transmit, matrix = transmit_field(self.inputs), read_itk_affine(Path(self.inputs.transform))
        head = mask_on_grid(load_image(self.inputs.head_mask)[0] > 0, t1w_affine, matrix, image.shape, affine)
        return Scan(
            image,
            affine,
            matrix,
            load_noise(self.inputs.noise_file),
            acquisition,
            self._psf(acquisition),
            head,
            clipped,
            None if transmit is None else field_on_grid(transmit, head, affine, where=Path(self.inputs.in_file).name),
            0.0 if transmit is None else transmit.relative_sd,
            Path(self.inputs.in_file).name,
            self._spokes() if self.inputs.kspace_file else None,
        )

    def _spokes(self) -> Any:
        from sodium_prep.pvc.kspace import Spokes
        from sodium_prep.recon.channels import whitened
        from sodium_prep.recon.reconstruct import reconstruct

        raw = read_echoes(self.inputs.kspace_file, self.inputs.described)[0]
        channels = whitened(raw)
        maps = reconstruct(raw).sensitivities
        spokes = Spokes(channels.together(), channels.sigma, raw.trajectory, maps, raw.affine)
        return spokes.without_profile(load_image(self.inputs.profile_file)[0]) if self.inputs.profile_file else spokes

    def _psf(self, acquisition: Any) -> Any:
        from sodium_prep.bids.points import load_points
        from sodium_prep.pvc.psf import PsfModel

        inputs = self.inputs
        if not inputs.psf_kind:
            return None
        files = dict(zip(inputs.psf_tissues or [], map(Path, inputs.psf_files or []), strict=True))
        return PsfModel(
            inputs.psf_kind,
            acquisition if inputs.psf_kind == "acquisition" else None,
            inputs.psf_fwhm_mm if isdefined(inputs.psf_fwhm_mm) else None,
            load_points(files, acquisition.field_strength_t, own=inputs.psf_own),
            **({"relative_width_sd": sd} if isdefined(sd := inputs.psf_width_sd) else {}),
            reason=inputs.psf_reason,
        )

    def _write(self, result: Any, scan: Any, relaxations: Any) -> None:
        import numpy as np

        from sodium_prep.anat.transforms import write_itk_affine
        from sodium_prep.bids.writers import write_tsv
        from sodium_prep.regional.relative import RELATIVE_COLUMNS, relative_table
        from sodium_prep.regional.summary import calibration_record, scan_metrics
        from sodium_prep.regional.table import TABLE_COLUMNS

        metrics = scan_metrics(result, scan, relaxations)
        if self.inputs.weighting != "SQ":
            rows = relative_table(result.signals, self.inputs.weighting)
            write_tsv(self.out_path("relative", "relative.tsv"), rows, list(RELATIVE_COLUMNS))
            metrics |= {"weighting": self.inputs.weighting, "relative": [row for row in rows if row["index"] is None]}
        write_tsv(self.out_path("table", "tsc.tsv"), result.table, list(TABLE_COLUMNS))
        save_json(self.out_path("calibration", "calibration.json"), calibration_record(result, scan))
        if result.tsc is not None:
            save_image(self.out_path("tsc", "tsc.nii"), result.tsc, scan.affine)
            save_image(self.out_path("tsc_stderr", "tsc_stderr.nii"), result.tsc_stderr, scan.affine)
        self._results["corrected"] = []
        for (name, tissue), image in result.corrected.items():
            path = Path.cwd() / f"{'_'.join(filter(None, (name, tissue)))}.nii"
            save_image(path, image, scan.affine)
            self._results["corrected"].append(str(path))
        write_itk_affine(self.out_path("transform", "sodium_to_t1w.txt"), result.sodium_to_t1w)
        noise = np.where(scan.noise.sd > 0, scan.noise.sd, np.nan)
        save_image(self.out_path("residual", "residual.nii"), result.signals.residual / noise, scan.affine)
        save_json(self.out_path("report_file", "quantify.json"), metrics)


def _eyes(labels: Any, affine: Any, table: Any) -> Any:
    """Where the eyes should be, by the labels that mean what they mean in the bundled atlas."""
    import numpy as np

    from sodium_prep.atlas.bundled import load_atlas
    from sodium_prep.regional.references import expected_eyes

    bundled = load_atlas()
    common = table.merge(bundled.table, on=["index", "name"])["index"].to_numpy()
    return expected_eyes(np.where(np.isin(labels, common), labels, 0), affine, bundled.labels, bundled.affine)


class ResampleMap(Step):
    """A native map in another space, through all transforms with one interpolation."""

    class input_spec(StepInputSpec):
        in_file = File(exists=True, desc="without it (no reference, so no map) there is no output")
        more_files = InputMultiObject(File(exists=True), desc="maps with gaps on the same grid")
        reference = File(exists=True, desc="image whose grid is wanted; the template's if not given")
        template = traits.Str("", usedefault=True, desc="name or file; the bundled one if empty")
        transforms = traits.List(
            File(exists=True), desc="from the image on, in the order they are met; no output without"
        )

    class output_spec(TraitedSpec):  # type: ignore[misc]
        out_file = File()
        more_out = traits.List(File, desc="of the further maps, in their order")

    def _run_interface(self, runtime: Any) -> Any:
        import numpy as np

        self._results["more_out"] = []
        if not isdefined(self.inputs.in_file) or not self.inputs.transforms:
            return runtime
        from sodium_prep.anat.ants import apply_transforms
        from sodium_prep.atlas.bundled import TEMPLATE_NAME
        from sodium_prep.atlas.templates import find_template

        data, affine = load_image(self.inputs.in_file)
        if self.inputs.reference:
            grid, grid_affine = load_image(self.inputs.reference)
            shape = grid.shape
        else:
            template = find_template(self.inputs.template or TEMPLATE_NAME)
            shape, grid_affine = template.t1w.shape, template.affine
        paths = [Path(path) for path in self.inputs.transforms]

        def moved(image: Any) -> Any:
            known = np.nan_to_num(image.astype(np.float32))
            return apply_transforms(known, affine, shape, grid_affine, paths, interpolation="Linear")

        save_image(self.out_path("out_file", "resampled.nii"), moved(data), grid_affine)
        for path in self.inputs.more_files or []:
            image = load_image(path)[0]
            # A gap is no zero: voxels without a value do not count in the interpolation.
            share = moved(np.isfinite(image))
            whole = share > 0.5
            out = np.where(whole, moved(image) / np.where(whole, share, 1.0), np.nan)
            save_image(Path.cwd() / Path(path).name, out, grid_affine)
            self._results["more_out"].append(str(Path.cwd() / Path(path).name))
        return runtime


def _geometry(fields: dict[str, Any]) -> Any:
    """A ReferenceGeometry from the plain values that a node can hold."""
    from sodium_prep.physics.relaxation import Relaxation
    from sodium_prep.quant.geometry import ReferenceGeometry

    relaxation = Relaxation(**fields["relaxation"]) if fields.get("relaxation") else None
    centre, axis = tuple(fields["centre_mm"]), tuple(fields["axis"])
    return ReferenceGeometry(**{**fields, "centre_mm": centre, "axis": axis, "relaxation": relaxation})
