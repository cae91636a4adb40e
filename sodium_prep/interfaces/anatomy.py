"""Steps from a proton image to masks, fractions, labels and transforms."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from nipype.interfaces.base import File, TraitedSpec, traits

from sodium_prep.interfaces.base import (
    Step,
    StepInputSpec,
    load_image,
    load_json,
    save_image,
    save_json,
)


class _ConformInputSpec(StepInputSpec):
    in_file = File(exists=True, mandatory=True)


class _FileOutputSpec(TraitedSpec):  # type: ignore[misc]
    out_file = File()


class ConformAnatomical(Step):
    """The anatomical image read with all checks, its axes in RAS order; no voxel is resampled."""

    input_spec = _ConformInputSpec
    output_spec = _FileOutputSpec

    def _run_interface(self, runtime: Any) -> Any:
        from sodium_prep.anat.conform import to_ras
        from sodium_prep.bids.images import load_checked

        data, affine = to_ras(*load_checked(Path(self.inputs.in_file)))
        save_image(self.out_path("out_file", "anat.nii"), data, affine)
        return runtime


class _AntsInputSpec(StepInputSpec):
    in_file = File(exists=True, mandatory=True)
    seed = traits.Int(42, usedefault=True)
    n_threads = traits.Int(1, usedefault=True)
    sloppy = traits.Bool(False, usedefault=True, desc="coarse, for tests only")

    @staticmethod
    def settings(inputs: Any) -> Any:
        """How ANTs is run."""
        from sodium_prep.anat.jobs import JobSettings

        return JobSettings(n_threads=inputs.n_threads, seed=inputs.seed)


class _BrainOutputSpec(TraitedSpec):  # type: ignore[misc]
    brain_mask = File()
    to_template = File(desc="affine, JSON")


class ExtractBrain(Step):
    """The brain mask and the affine way to the template."""

    input_spec = _AntsInputSpec
    output_spec = _BrainOutputSpec

    def _run_interface(self, runtime: Any) -> Any:
        from sodium_prep.anat.brain import extract_brain
        from sodium_prep.atlas.bundled import load_template

        data, affine = load_image(self.inputs.in_file)
        work_mm = 3.0 if self.inputs.sloppy else 2.0
        settings = _AntsInputSpec.settings(self.inputs)
        found = extract_brain(data, affine, load_template(), work_mm=work_mm, settings=settings)
        save_image(self.out_path("brain_mask", "brain_mask.nii"), found.brain_mask, affine)
        save_json(self.out_path("to_template", "affine.json"), {"t1w_to_template": found.t1w_to_template})
        return runtime


class _HeadInputSpec(StepInputSpec):
    in_file = File(exists=True, mandatory=True)
    brain_mask = File(exists=True, mandatory=True)


class HeadMask(Step):
    """Everything within the skin."""

    input_spec = _HeadInputSpec
    output_spec = _FileOutputSpec

    def _run_interface(self, runtime: Any) -> Any:
        from sodium_prep.anat.brain import head_mask

        data, affine = load_image(self.inputs.in_file)
        brain = load_image(self.inputs.brain_mask)[0] > 0
        save_image(self.out_path("out_file", "head_mask.nii"), head_mask(data, affine, brain), affine)
        return runtime


class CorrectBias(Step):
    """N4 bias correction within the brain, for registration; fractions estimate the bias themselves."""

    class input_spec(_AntsInputSpec):
        brain_mask = File(exists=True, mandatory=True)

    output_spec = _FileOutputSpec

    def _run_interface(self, runtime: Any) -> Any:
        from sodium_prep.anat.ants import n4

        data, affine = load_image(self.inputs.in_file)
        brain = load_image(self.inputs.brain_mask)[0] > 0
        corrected, _ = n4(data, affine, brain, settings=_AntsInputSpec.settings(self.inputs))
        save_image(self.out_path("out_file", "n4.nii"), corrected, affine)
        return runtime


class RegisterToTemplate(Step):
    """Affine and diffeomorphic registration of the brain to the bundled template."""

    class input_spec(_AntsInputSpec):
        brain_mask = File(exists=True, mandatory=True)
        initial = File(exists=True, desc="affine, JSON; found from the brain masks if not given")
        contrast = traits.Str("T1w", usedefault=True)

    class output_spec(TraitedSpec):  # type: ignore[misc]
        to_template = File()
        from_template = File()

    def _run_interface(self, runtime: Any) -> Any:
        import numpy as np

        from sodium_prep.anat.conform import mask_to_template
        from sodium_prep.anat.register import register_to_template
        from sodium_prep.atlas.bundled import load_template

        data, affine = load_image(self.inputs.in_file)
        brain = load_image(self.inputs.brain_mask)[0] > 0
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
            work_mm=3.0 if self.inputs.sloppy else 2.0,
            fast=self.inputs.sloppy,
            same_contrast=self.inputs.contrast == "T1w",
            settings=_AntsInputSpec.settings(self.inputs),
        )
        self._results["to_template"] = str(result.forward)
        self._results["from_template"] = str(result.inverse)
        return runtime


class LabelsToAnatomical(Step):
    """Atlas labels on the anatomical grid, grown to fill the brain."""

    class input_spec(StepInputSpec):
        brain_mask = File(exists=True, mandatory=True)
        from_template = File(exists=True, desc="transform; not needed if labels are given")
        labels = File(exists=True, desc="FreeSurfer labels on the anatomical grid")
        atlas = traits.Str("desikan-killiany", usedefault=True)

    output_spec = _FileOutputSpec

    def _run_interface(self, runtime: Any) -> Any:
        from sodium_prep.anat.register import warp_labels_to_t1w
        from sodium_prep.atlas.user import find_atlas

        mask, affine = load_image(self.inputs.brain_mask)
        if self.inputs.labels:
            labels = load_image(self.inputs.labels)[0].astype("int32")
        else:
            atlas = find_atlas(self.inputs.atlas)
            labels = warp_labels_to_t1w(atlas, mask.shape, affine, Path(self.inputs.from_template))
        save_image(self.out_path("out_file", "labels.nii"), labels, affine)
        return runtime


class TissueFractions(Step):
    """Fractions of grey matter, white matter and CSF, from intensities or, without T1w contrast, from the template."""

    class input_spec(StepInputSpec):
        in_file = File(exists=True, mandatory=True)
        brain_mask = File(exists=True, mandatory=True)
        labels = File(exists=True, mandatory=True)
        from_template = File(exists=True, desc="transform; needed where the image is not T1-weighted")
        contrast = traits.Str("T1w", usedefault=True)
        atlas = traits.Str("desikan-killiany", usedefault=True)

    class output_spec(TraitedSpec):  # type: ignore[misc]
        out_file = File(desc="bias-corrected image")
        gm = File()
        wm = File()
        csf = File()
        report_file = File()

    def _run_interface(self, runtime: Any) -> Any:
        import numpy as np

        from sodium_prep.anat.fractions import tissue_fractions
        from sodium_prep.anat.register import template_priors, warp_priors_to_t1w
        from sodium_prep.atlas.bundled import load_template
        from sodium_prep.atlas.user import find_atlas

        data, affine = load_image(self.inputs.in_file)
        mask = load_image(self.inputs.brain_mask)[0] > 0
        labels = load_image(self.inputs.labels)[0]
        atlas = find_atlas(self.inputs.atlas)
        deep = atlas.table.loc[atlas.table["structure"] == "deep_gm", "index"].to_numpy()
        priors = None
        if self.inputs.contrast != "T1w":
            template = load_template()
            priors = warp_priors_to_t1w(
                template_priors(template, find_atlas("desikan-killiany")),
                template.affine,
                data.shape,
                affine,
                Path(self.inputs.from_template),
            )
        found = tissue_fractions(
            data, mask, affine, deep_grey=np.where(np.isin(labels, deep), labels, 0).astype(np.int32), priors=priors
        )
        save_image(self.out_path("out_file", "anat_corrected.nii"), data / found.bias, affine)
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
