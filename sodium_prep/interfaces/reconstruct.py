"""Steps from raw data to an image with its noise and its point spread functions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from nipype.interfaces.base import File, InputMultiObject, isdefined, traits

from sodium_prep.interfaces.base import Step, StepInputSpec, load_image, save_image, save_json
from sodium_prep.interfaces.kspace import KspaceInputSpec, read_echoes
from sodium_prep.interfaces.sodium import ImageOutputSpec, acquisition_from, save_noise
from sodium_prep.physics.relaxation import Tissue
from sodium_prep.settings import JOINT_METHOD, KSPACE_METHODS


class _ReconstructionInputSpec(StepInputSpec):
    strength = traits.Float(desc="of the prior, in standard deviations of the noise")
    acquisition = traits.Dict(mandatory=True, desc="fields of Acquisition")
    points = traits.Bool(False, usedefault=True, desc="measure point spread functions")
    relaxation = traits.Dict(desc="fields of Relaxation that replace the literature's, by tissue")
    guide = File(exists=True, desc="anatomical image")
    transforms = InputMultiObject(File(exists=True), desc="sodium to the guide, the first applied first")
    seed = traits.Int(42, usedefault=True)
    n_threads = traits.Int(1, usedefault=True)


class _ReconstructionOutputSpec(ImageOutputSpec):
    psf_files = traits.List(File, desc="images of a point")
    psf_tissues = traits.List(traits.Str, desc="tissue of each of them")


class _Reconstruct(Step):
    def _options(self, raw: Any, **more: Any) -> Any:
        from sodium_prep.physics.relaxation import tissue_relaxation
        from sodium_prep.recon.options import Options

        inputs, acquisition = self.inputs, acquisition_from(self.inputs.acquisition)
        given, field_t = inputs.relaxation or {}, acquisition.field_strength_t
        tissues: tuple[Tissue, ...] = ("GM", "WM", "CSF") if inputs.points else ()
        return Options(
            strength=inputs.strength if isdefined(inputs.strength) else None,
            guide=self._guide(raw) if inputs.guide else None,
            relaxations={tissue: tissue_relaxation(tissue, field_t, given.get(tissue)) for tissue in tissues},
            echo_time_s=acquisition.echo_time_s,
            seed=inputs.seed,
            workers=inputs.n_threads,
            **more,
        )

    def _guide(self, raw: Any) -> Any:
        from sodium_prep.anat.transforms import compose, read_itk_affine
        from sodium_prep.recon.resample import guide_on_grid

        image, affine = load_image(self.inputs.guide)
        matrix = compose(*(read_itk_affine(Path(path)) for path in self.inputs.transforms))
        return guide_on_grid(image, affine, matrix, raw.shape, raw.affine)

    def _write(self, result: Any, **more: Any) -> None:
        """Image, noise and points of a Reconstruction, and what is to be told of it."""
        save_image(self.out_path("out_file", "sodium.nii"), result.image, result.affine)
        save_noise(self.out_path("noise_file", "noise.npz"), result.noise_sd, result.noise_psd)
        self._results |= {"psf_files": [], "psf_tissues": list(result.psf)}
        for tissue, point in result.psf.items():
            path = Path.cwd() / f"psf_{tissue}.nii"
            save_image(path, point.astype("float32"), result.psf_affine)
            self._results["psf_files"].append(str(path))
        report = {
            "method": result.method,
            "steps": result.steps,
            "strength": result.strength,
            "kspace_filter": result.kspace_filter,
            "n_coils": result.n_coils,
            "noise_from_scan": result.noise_from_scan,
            "noise_sd": float(result.noise_sd.mean()),
            "floor": "zero-mean",
            "floor_corrected": False,
            "clipped_fraction": 0.0,
        }
        save_json(self.out_path("report_file", "image.json"), report | more)


class ReconstructKspace(_Reconstruct):
    """An image of one echo of a k-space file, with its noise and, but for gridding, its point spread functions."""

    class input_spec(_ReconstructionInputSpec, KspaceInputSpec):
        in_file = File(exists=True, mandatory=True, desc="raw data")
        echo = traits.Int(0, usedefault=True, desc="which echo of the file")
        method = traits.Enum(*(name for name in KSPACE_METHODS if name != JOINT_METHOD), usedefault=True)
        kspace_filter = traits.Enum("none", "hamming", usedefault=True, desc="of gridding")
        motion_blocks = traits.Int(0, usedefault=True, desc="blocks of readouts whose motion is taken out; 0 for none")

    output_spec = _ReconstructionOutputSpec

    def _run_interface(self, runtime: Any) -> Any:
        from sodium_prep.recon.reconstruct import reconstruct

        inputs = self.inputs
        echoes = read_echoes(inputs.in_file, inputs.described, average=not inputs.motion_blocks)
        raw, notes, moved_mm = echoes[inputs.echo], [], None
        if len(echoes) > max(1, len(inputs.described.get("echo_times_s", ()))):
            notes.append(
                f"{Path(inputs.in_file).name} holds {len(echoes)} echoes, but its sidecar the EchoTime of the first, "
                "which is used. List all of them there for maps of T2*."
            )
        if inputs.motion_blocks:
            from sodium_prep.recon.motion import correct_motion

            raw, motion = correct_motion(raw, inputs.motion_blocks)
            notes, moved_mm = [*notes, *motion.notes], motion.largest_mm
        options = self._options(raw, method=inputs.method, kspace_filter=inputs.kspace_filter)
        self._write(reconstruct(raw, options), motion_mm=moved_mm, kspace_notes=notes)
        return runtime


class ReconstructDecay(_Reconstruct):
    """One image without decay, and a T2* map, of all echoes of a run."""

    class input_spec(_ReconstructionInputSpec):
        in_files = traits.List(File(exists=True), mandatory=True, desc="raw data, one file for each echo or for all")
        described = traits.List(traits.Dict, mandatory=True, desc="fields of RawDescription for each file")

    class output_spec(_ReconstructionOutputSpec):
        maps = traits.List(File, desc="T2* and its standard error: joint_T2starmap_<statistic>.nii")

    def _run_interface(self, runtime: Any) -> Any:
        from sodium_prep.recon.decay import reconstruct_decay

        echoes: list[Any] = []
        for path, described in zip(self.inputs.in_files, self.inputs.described, strict=True):
            found = read_echoes(path, described)
            echoes += found[: len(described["echo_times_s"])]
        result = reconstruct_decay(echoes, self._options(echoes[0], method=JOINT_METHOD))
        self._write(result.scan)
        self._results["maps"] = []
        for stat, values in (("value", result.t2star_s), ("stderr", result.t2star_sd_s)):
            path = Path.cwd() / f"joint_T2starmap_{stat}.nii"
            save_image(path, values, result.scan.affine)
            self._results["maps"].append(str(path))
        return runtime
