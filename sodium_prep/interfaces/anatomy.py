"""Steps from a proton image to masks, fractions, labels and transforms."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from nipype.interfaces.base import File, InputMultiObject, TraitedSpec, isdefined, traits

from sodium_prep.interfaces.base import (
    Step,
    StepInputSpec,
    load_image,
    load_json,
    load_mask,
    save_image,
    save_json,
)


class ConformAnatomical(Step):
    """The anatomical image read with all checks, its axes in RAS order; no voxel is resampled."""

    class input_spec(StepInputSpec):
        in_file = File(exists=True, mandatory=True)

    class output_spec(TraitedSpec):  # type: ignore[misc]
        out_file = File()

    def _run_interface(self, runtime: Any) -> Any:
        from sodium_prep.anat.conform import to_ras
        from sodium_prep.bids.images import load_checked

        data, affine = to_ras(*load_checked(Path(self.inputs.in_file)))
        save_image(self.out_path("out_file", "anat.nii"), data, affine)
        return runtime


class ConformGiven(Step):
    """Given masks and fractions, their axes in RAS order like those of the anatomical image."""

    class input_spec(StepInputSpec):
        brain_mask = File(exists=True)
        lesion = File(exists=True)
        gm = File(exists=True)
        wm = File(exists=True)
        csf = File(exists=True)

    class output_spec(TraitedSpec):  # type: ignore[misc]
        brain_mask = File()
        lesion = File()
        gm = File()
        wm = File()
        csf = File()

    def _run_interface(self, runtime: Any) -> Any:
        from sodium_prep.anat.conform import to_ras
        from sodium_prep.bids.images import load_checked

        for name in ("brain_mask", "lesion", "gm", "wm", "csf"):
            path = getattr(self.inputs, name)
            if isdefined(path):
                data, affine = to_ras(*load_checked(Path(path)))
                is_mask = name in ("brain_mask", "lesion")
                save_image(self.out_path(name, f"{name}.nii"), data > 0.5 if is_mask else data, affine)
        return runtime


class _ProgramInputSpec(StepInputSpec):
    seed = traits.Int(42, usedefault=True)
    n_threads = traits.Int(1, usedefault=True)
    sloppy = traits.Bool(False, usedefault=True, desc="coarse, for tests only")


def _settings(inputs: Any) -> Any:
    """How registration programs are run."""
    from sodium_prep.anat.jobs import JobSettings

    return JobSettings(n_threads=inputs.n_threads, seed=inputs.seed)


def _work_mm(inputs: Any) -> float:
    """Voxel size of registrations."""
    return 3.0 if inputs.sloppy else 2.0


class ExtractBrain(Step):
    """The brain mask and the affine way to the template."""

    class input_spec(_ProgramInputSpec):
        in_file = File(exists=True, mandatory=True)
        source = traits.Str(mandatory=True, desc="the image as the user knows it, for messages")
        contrast = traits.Str("T1w", usedefault=True)
        ignore_sides = traits.Bool(False, usedefault=True, desc="note a swap of left and right and go on")
        lesion = File(exists=True)

    class output_spec(TraitedSpec):  # type: ignore[misc]
        brain_mask = File()
        affine = File(desc="to the template, JSON")
        report_file = File()

    def _run_interface(self, runtime: Any) -> Any:
        from sodium_prep.anat.brain import extract_brain
        from sodium_prep.anat.conform import coverage_notes
        from sodium_prep.atlas.bundled import load_template

        data, affine = load_image(self.inputs.in_file)
        template = load_template()
        found = extract_brain(
            data,
            affine,
            template,
            lesion=load_mask(self.inputs.lesion),
            work_mm=_work_mm(self.inputs),
            settings=_settings(self.inputs),
        )
        coverage = coverage_notes(self.inputs.source, data.shape, affine)
        notes = [*coverage, *found.notes, *self._sides(data, affine, found, template)]
        save_image(self.out_path("brain_mask", "brain_mask.nii"), found.brain_mask, affine)
        save_json(self.out_path("affine", "affine.json"), {"t1w_to_template": found.t1w_to_template})
        save_json(self.out_path("report_file", "brain.json"), {"brain_notes": notes})
        return runtime

    def _sides(self, data: Any, affine: Any, found: Any, template: Any) -> list[str]:
        """What the asymmetry of the brain says of left and right; a T1w that is swapped is refused."""
        if self.inputs.contrast != "T1w":
            return []
        from sodium_prep.anat.mirror import check_handedness
        from sodium_prep.errors import InputError

        sides = check_handedness(
            data,
            affine,
            found.brain_mask,
            template,
            t1w_to_template=found.t1w_to_template,
            settings=_settings(self.inputs),
        )
        if not sides.mirrored:
            return []
        if self.inputs.ignore_sides:
            return [f"left and right seem to be swapped: {sides.evidence}"]
        raise InputError(
            self.inputs.source,
            f"left and right seem to be swapped: {sides.evidence}",
            "Check the header; if it is right, go on with --ignore sides",
        )


class SegmentedBrain(Step):
    """The brain mask that comes with a segmentation of another program, on the anatomical grid."""

    class input_spec(StepInputSpec):
        in_file = File(exists=True, mandatory=True, desc="anatomical image")
        segmentation = File(exists=True, mandatory=True, desc="labels on any grid")
        mask = File(exists=True, desc="mask of the same program; made of the labels if not given")

    class output_spec(TraitedSpec):  # type: ignore[misc]
        brain_mask = File()

    def _run_interface(self, runtime: Any) -> Any:
        from sodium_prep.anat.segmentation import brain_mask_of_labels, labels_on_grid
        from sodium_prep.bids.freesurfer import load_segmentation, load_segmentation_mask

        grid, affine = load_image(self.inputs.in_file)
        if isdefined(self.inputs.mask):
            source, source_affine = load_segmentation_mask(Path(self.inputs.mask))
        else:
            labels, source_affine = load_segmentation(Path(self.inputs.segmentation))
            source = brain_mask_of_labels(labels, source_affine)
        mask = labels_on_grid(source, source_affine, grid.shape, affine) > 0
        save_image(self.out_path("brain_mask", "brain_mask.nii"), mask, affine)
        return runtime


class _BrainInputSpec(StepInputSpec):
    in_file = File(exists=True, mandatory=True)
    brain_mask = File(exists=True, mandatory=True)


class HeadMask(Step):
    """Everything within the skin."""

    input_spec = _BrainInputSpec

    class output_spec(TraitedSpec):  # type: ignore[misc]
        head_mask = File()

    def _run_interface(self, runtime: Any) -> Any:
        from sodium_prep.anat.brain import head_mask

        data, affine = load_image(self.inputs.in_file)
        brain = load_mask(self.inputs.brain_mask)
        save_image(self.out_path("head_mask", "head_mask.nii"), head_mask(data, affine, brain), affine)
        return runtime


class CorrectBias(Step):
    """N4 bias correction within the brain, for registration; fractions estimate the bias themselves."""

    class input_spec(_ProgramInputSpec):
        in_file = File(exists=True, mandatory=True)
        brain_mask = File(exists=True, mandatory=True)

    class output_spec(TraitedSpec):  # type: ignore[misc]
        unbiased = File()

    def _run_interface(self, runtime: Any) -> Any:
        from sodium_prep.anat.bias_n4 import registration_bias

        data, affine = load_image(self.inputs.in_file)
        brain = load_mask(self.inputs.brain_mask)
        bias = registration_bias(data, affine, brain, rough=self.inputs.sloppy, settings=_settings(self.inputs))
        save_image(self.out_path("unbiased", "unbiased.nii"), data / bias, affine)
        return runtime


class RegisterToTemplate(Step):
    """Affine and deformable registration of the brain to the bundled template."""

    class input_spec(_ProgramInputSpec):
        in_file = File(exists=True, mandatory=True)
        brain_mask = File(exists=True, mandatory=True)
        lesion = File(exists=True)
        initial = File(exists=True, desc="affine, JSON; found from the brain masks if not given")
        contrast = traits.Str("T1w", usedefault=True)
        method = traits.Enum("ants", "greedy", usedefault=True)
        fast = traits.Bool(False, usedefault=True)

    class output_spec(TraitedSpec):  # type: ignore[misc]
        to_template = File()
        from_template = File()
        affine = File(desc="affine part, JSON")
        report_file = File()

    def _run_interface(self, runtime: Any) -> Any:
        import numpy as np

        from sodium_prep.anat.conform import mask_to_template
        from sodium_prep.anat.register import register_to_template
        from sodium_prep.atlas.bundled import load_template

        data, affine = load_image(self.inputs.in_file)
        brain = load_mask(self.inputs.brain_mask)
        template = load_template()
        if self.inputs.initial:
            initial = np.asarray(load_json(self.inputs.initial)["t1w_to_template"])
        else:
            initial = mask_to_template(brain, affine, template)
        result = register_to_template(
            data,
            affine,
            brain,
            template,
            Path.cwd(),
            initial=initial,
            lesion=load_mask(self.inputs.lesion),
            method=self.inputs.method,
            fast=self.inputs.fast or self.inputs.sloppy,
            same_contrast=self.inputs.contrast == "T1w",
            work_mm=_work_mm(self.inputs),
            settings=_settings(self.inputs),
        )
        self._results["to_template"] = str(result.forward)
        self._results["from_template"] = str(result.inverse)
        save_json(self.out_path("affine", "affine.json"), {"t1w_to_template": result.affine})
        report = {
            "template_similarity": result.similarity,
            "template_similarity_affine": result.similarity_affine,
            "template_method": result.method,
            "template_attempts": list(result.attempts),
        }
        save_json(self.out_path("report_file", "template.json"), report)
        return runtime


class RegisterTemplates(Step):
    """The warp between the bundled template and another one."""

    class input_spec(_ProgramInputSpec):
        template = traits.Str(mandatory=True, desc="name or file of the other template")

    class output_spec(TraitedSpec):  # type: ignore[misc]
        to_other = File(desc="resamples the bundled template onto the other")
        from_other = File(desc="resamples the other template onto the bundled one")

    def _run_interface(self, runtime: Any) -> Any:
        from sodium_prep.anat.register import register_templates
        from sodium_prep.atlas.bundled import load_template
        from sodium_prep.atlas.templates import find_template

        other = find_template(self.inputs.template)
        found = register_templates(
            load_template(), other, Path.cwd(), _settings(self.inputs), work_mm=_work_mm(self.inputs)
        )
        self._results["to_other"], self._results["from_other"] = str(found.forward), str(found.inverse)
        return runtime


class MakeMidspace(Step):
    """The sessions of one participant laid on each other, none before the others, and their average."""

    class input_spec(_ProgramInputSpec):
        in_files = InputMultiObject(File(exists=True), mandatory=True)
        brain_masks = InputMultiObject(File(exists=True), mandatory=True)
        affines = InputMultiObject(File(exists=True), mandatory=True, desc="to the template, JSON")
        names = traits.List(traits.Str, mandatory=True, desc="of the sessions, for messages")

    class output_spec(TraitedSpec):  # type: ignore[misc]
        out_file = File(desc="average image")
        brain_mask = File()
        affine = File(desc="to the template, JSON")
        matrices = File(desc="of each session to the average, JSON")

    def _run_interface(self, runtime: Any) -> Any:
        import numpy as np

        from sodium_prep.anat.midspace import check_sessions, within_subject_template

        images, affines = zip(*(load_image(path) for path in self.inputs.in_files), strict=True)
        masks = [load_mask(path) for path in self.inputs.brain_masks]
        settings, work_mm = _settings(self.inputs), _work_mm(self.inputs)
        found = within_subject_template(images, affines, masks, work_mm=work_mm, settings=settings)
        check_sessions(found, self.inputs.names)
        to_template = [np.asarray(load_json(path)["t1w_to_template"]) for path in self.inputs.affines]
        save_image(self.out_path("out_file", "midspace.nii"), found.template, found.affine)
        save_image(self.out_path("brain_mask", "brain_mask.nii"), found.brain_mask, found.affine)
        # The sessions' affines differ by little, so that their mean is an affine of them all.
        start = np.mean([a @ np.linalg.inv(m) for a, m in zip(to_template, found.matrices, strict=True)], axis=0)
        save_json(self.out_path("affine", "affine.json"), {"t1w_to_template": start})
        save_json(self.out_path("matrices", "matrices.json"), {"to_midspace": np.asarray(found.matrices)})
        return runtime


class JoinSession(Step):
    """The way of one session to the template and back, through the participant's average, in one file each."""

    class input_spec(StepInputSpec):
        number = traits.Int(mandatory=True, desc="of the session, from 1")
        matrices = File(exists=True, mandatory=True)
        to_template = File(exists=True, mandatory=True, desc="of the average")
        from_template = File(exists=True, mandatory=True)

    class output_spec(TraitedSpec):  # type: ignore[misc]
        to_template = File()
        from_template = File()

    def _run_interface(self, runtime: Any) -> Any:
        import numpy as np

        from sodium_prep.anat.fields import join_transforms

        matrix = np.asarray(load_json(self.inputs.matrices)["to_midspace"][self.inputs.number - 1])
        join_transforms(self.out_path("to_template", "to_template.h5"), [matrix, Path(self.inputs.to_template)])
        path = self.out_path("from_template", "from_template.h5")
        join_transforms(path, [Path(self.inputs.from_template), np.linalg.inv(matrix)])
        return runtime


class TemplateOnAnatomical(Step):
    """The template on the anatomical grid, by the affine part alone and by the whole transform, to be looked at."""

    class input_spec(StepInputSpec):
        reference = File(exists=True, mandatory=True)
        from_template = File(exists=True, mandatory=True)
        affine = File(exists=True, desc="T1w to template, JSON")

    class output_spec(TraitedSpec):  # type: ignore[misc]
        template_affine = File()
        template_warped = File()

    def _run_interface(self, runtime: Any) -> Any:
        import numpy as np

        from sodium_prep.anat.ants import apply_transforms
        from sodium_prep.atlas.bundled import load_template

        grid, affine = load_image(self.inputs.reference)
        template = load_template()
        ways: dict[str, Any] = {"template_warped": Path(self.inputs.from_template)}
        if isdefined(self.inputs.affine):
            ways["template_affine"] = np.linalg.inv(load_json(self.inputs.affine)["t1w_to_template"])
        for name, way in ways.items():
            image = apply_transforms(template.t1w, template.affine, grid.shape, affine, [way])
            save_image(self.out_path(name, f"{name}.nii"), image, affine)
        return runtime


class LabelsToAnatomical(Step):
    """Atlas labels on the anatomical grid, by the way from the template or from a segmentation, and their table."""

    class input_spec(StepInputSpec):
        brain_mask = File(exists=True, mandatory=True)
        from_template = File(exists=True, desc="transform of the bundled template; not needed with a segmentation")
        segmentation = File(exists=True, desc="FreeSurfer labels on any grid, in place of the first atlas")
        atlases = traits.List(traits.Str, mandatory=True, desc="the first covers the brain, others are laid over it")
        via = traits.List(traits.Str, desc="names of the other templates that an atlas lies in")
        from_spaces = InputMultiObject(File(exists=True), desc="transforms of these to the bundled template")

    class output_spec(TraitedSpec):  # type: ignore[misc]
        labels = File()
        atlas_table = File(desc="what each label is, TSV")
        atlas_record = File(desc="where the atlases come from, JSON")

    def _run_interface(self, runtime: Any) -> Any:
        from sodium_prep.atlas.overlay import merge_atlases
        from sodium_prep.atlas.provide import atlas_record, find_atlas, lost_note, lost_regions
        from sodium_prep.atlas.tables import table_text

        grid, affine = load_image(self.inputs.brain_mask)
        layers: list[Any] = []
        tables: list[Any] = []
        records: list[dict[str, Any]] = []
        for spec in self.inputs.atlases:
            if not layers and isdefined(self.inputs.segmentation):
                labels, table = self._segmentation(grid.shape, affine)
                record: dict[str, Any] = {"Name": "FreeSurfer segmentation", "Space": "T1w"}
            else:
                atlas = find_atlas(spec)
                labels, table, record = self._warped(atlas, grid.shape, affine), atlas.table, atlas_record(atlas)
            layers.append(labels)
            tables.append(table)
            records.append(record)
        merged, table = merge_atlases(layers, tables)
        lost = lost_regions(table, merged)
        save_image(self.out_path("labels", "labels.nii"), merged, affine)
        self.out_path("atlas_table", "labels.tsv").write_text(table_text(table), encoding="utf-8")
        found = {"atlases": records, "lost_regions": lost, "notes": [lost_note(lost)] if lost else []}
        save_json(self.out_path("atlas_record", "atlas.json"), found)
        return runtime

    def _warped(self, atlas: Any, shape: Any, affine: Any) -> Any:
        from sodium_prep.anat.register import warp_labels_to_t1w
        from sodium_prep.atlas.bundled import TEMPLATE_NAME
        from sodium_prep.atlas.provide import space_label

        chain = [Path(self.inputs.from_template)]
        if atlas.space != TEMPLATE_NAME:
            chain.insert(0, Path(self.inputs.from_spaces[self.inputs.via.index(space_label(atlas.space))]))
        return warp_labels_to_t1w(atlas, shape, affine, chain)

    def _segmentation(self, shape: Any, affine: Any) -> Any:
        from sodium_prep.anat.segmentation import freesurfer_table, labels_on_grid
        from sodium_prep.bids.freesurfer import load_segmentation

        source, source_affine = load_segmentation(Path(self.inputs.segmentation))
        labels = labels_on_grid(source, source_affine, shape, affine)
        return labels, freesurfer_table(labels.ravel())


class TissueFractions(Step):
    """Fractions of grey matter, white matter and CSF, from intensities or, without T1w contrast, from the template."""

    class input_spec(StepInputSpec):
        in_file = File(exists=True, mandatory=True)
        brain_mask = File(exists=True, mandatory=True)
        labels = File(exists=True, mandatory=True)
        atlas_table = File(exists=True, mandatory=True)
        lesion = File(exists=True)
        from_template = File(exists=True, desc="transform; needed where the image is not T1-weighted")
        contrast = traits.Str("T1w", usedefault=True)

    class output_spec(TraitedSpec):  # type: ignore[misc]
        t1w = File(desc="bias-corrected image")
        gm = File()
        wm = File()
        csf = File()
        report_file = File()

    def _run_interface(self, runtime: Any) -> Any:
        import numpy as np

        from sodium_prep.anat.fractions import tissue_fractions, ventricle_walls
        from sodium_prep.atlas.tables import read_table

        data, affine = load_image(self.inputs.in_file)
        mask = load_mask(self.inputs.brain_mask)
        labels = load_image(self.inputs.labels)[0]
        table = read_table(Path(self.inputs.atlas_table))
        deep = table.loc[table["structure"] == "deep_gm", "index"].to_numpy()
        found = tissue_fractions(
            data,
            mask,
            affine,
            deep_grey=np.where(np.isin(labels, deep), labels, 0).astype(np.int32),
            walls=ventricle_walls(labels, table, affine),
            lesion=load_mask(self.inputs.lesion),
            priors=None if self.inputs.contrast == "T1w" else self._priors(data.shape, affine),
        )
        save_image(self.out_path("t1w", "anat_corrected.nii"), data / found.bias, affine)
        for tissue in ("gm", "wm", "csf"):
            save_image(self.out_path(tissue, f"{tissue}.nii"), getattr(found, tissue), affine)
        voxel_ml = abs(float(np.linalg.det(affine[:3, :3]))) / 1000.0
        report = {
            "prior_driven": found.prior_driven,
            "contrast": found.contrast,
            "class_means": found.means,
            "volumes_ml": {t: float(getattr(found, t).sum(dtype=float)) * voxel_ml for t in ("gm", "wm", "csf")},
        }
        save_json(self.out_path("report_file", "fractions.json"), report)
        return runtime

    def _priors(self, shape: Any, affine: Any) -> Any:
        """Tissue of the bundled template on the anatomical grid."""
        from sodium_prep.anat.register import template_priors, warp_priors_to_t1w
        from sodium_prep.atlas.bundled import load_atlas, load_template

        template = load_template()
        priors = template_priors(template, load_atlas())
        return warp_priors_to_t1w(priors, template.affine, shape, affine, Path(self.inputs.from_template))
