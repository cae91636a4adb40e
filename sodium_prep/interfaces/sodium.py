"""Steps from images of the scanner, or of our own, to one corrected sodium image and its place in the head."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from nipype.interfaces.base import File, InputMultiObject, TraitedSpec, isdefined, traits

from sodium_prep.errors import InputError
from sodium_prep.interfaces.base import Step, StepInputSpec, load_image, load_mask, save_image, save_json


class ImageOutputSpec(TraitedSpec):  # type: ignore[misc]
    """What a step that makes an image leaves."""

    out_file = File(desc="sodium image")
    noise_file = File(desc="standard deviation (sd) and power spectrum (psd) of the noise")
    report_file = File(desc="what was done and found")


class FindWindow(Step):
    """The window on k-space told from the noise of the scanner's images, or the stated one checked by it."""

    class input_spec(StepInputSpec):
        in_files = traits.List(File(exists=True), mandatory=True, desc="runs as the scanner stored them")
        acquisition = traits.Dict(mandatory=True, desc="fields of Acquisition")
        psf_reason = traits.Str(mandatory=True, desc="of the PSF before the noise was asked")

    class output_spec(TraitedSpec):  # type: ignore[misc]
        acquisition = traits.Dict(desc="with the window, where it was found")
        psf_known = traits.Bool()
        psf_kind = traits.Str(desc="acquisition, or empty where the window stays unknown")
        psf_reason = traits.Str()
        psf_width_sd = traits.Float(desc="relative uncertainty of the width of the PSF")
        report_file = File()

    def _run_interface(self, runtime: Any) -> Any:
        from dataclasses import asdict

        from sodium_prep.bids.images import load_checked
        from sodium_prep.physics.readout import computed_reason
        from sodium_prep.pvc.window import read_window

        images, affines = zip(*(load_checked(Path(path)) for path in self.inputs.in_files), strict=True)
        given = acquisition_from(self.inputs.acquisition)
        found = read_window(images, affines[0], given)
        reason = self.inputs.psf_reason
        if found.acquisition is not None and given.kspace_filter == "unknown":
            reason = f"{computed_reason(found.acquisition)}; the window was told from the noise of the image"
        self._results |= {
            "acquisition": asdict(found.acquisition or given),
            "psf_known": found.acquisition is not None,
            "psf_kind": "acquisition" if found.acquisition is not None else "",
            "psf_reason": reason,
            "psf_width_sd": found.relative_width_sd,
        }
        report = {
            "window_notes": [found.statement] if found.statement else [],
            "window_misfits": found.misfits,
            "resolution_factor": found.resolution_factor,
        }
        save_json(self.out_path("report_file", "window.json"), report)
        return runtime


class TakeRealPart(Step):
    """The real part of a scanner's complex image without its smooth phase."""

    class input_spec(StepInputSpec):
        in_file = File(exists=True, mandatory=True, desc="magnitude or real part")
        phase = File(exists=True, desc="of the magnitude, in radians")
        imaginary = File(exists=True, desc="that belongs to the real part")
        resolution_mm = traits.Tuple(*[traits.Float()] * 3, mandatory=True, desc="nominal")

    class output_spec(TraitedSpec):  # type: ignore[misc]
        out_file = File()
        report_file = File()

    def _run_interface(self, runtime: Any) -> Any:
        import numpy as np

        from sodium_prep.bids.images import load_checked
        from sodium_prep.quant.references import clipped_voxels
        from sodium_prep.quant.vendor import real_part

        first, affine = load_checked(Path(self.inputs.in_file))
        clipped = clipped_voxels(first)
        if isdefined(self.inputs.phase):
            image = first * np.exp(1j * load_checked(Path(self.inputs.phase))[0])
        else:
            imaginary = load_checked(Path(self.inputs.imaginary))[0]
            clipped |= clipped_voxels(imaginary)
            image = first + 1j * imaginary
        found = real_part(image.astype(np.complex64), affine, self.inputs.resolution_mm, self.inputs.in_file)
        save_image(self.out_path("out_file", "real.nii"), found.image, affine)
        report = {"phase_left": found.phase_left, "clipped_fraction": float(clipped.mean())}
        save_json(self.out_path("report_file", "complex.json"), report)
        return runtime


class CleanVendorImage(Step):
    """A scanner's image with its noise measured in air, and a Rician floor removed where its law is known."""

    class input_spec(StepInputSpec):
        in_file = File(exists=True, mandatory=True, desc="sodium image of the scanner")
        acquisition = traits.Dict(mandatory=True, desc="fields of Acquisition")
        psf_known = traits.Bool(mandatory=True, desc="whether trajectory, readout, resolution and filter are known")
        n_channels = traits.Int(1, usedefault=True, desc="channels that the image is the sum of squares of")

    output_spec = ImageOutputSpec

    def _run_interface(self, runtime: Any) -> Any:
        from sodium_prep.bids.images import load_checked
        from sodium_prep.quant.references import clipped_voxels
        from sodium_prep.quant.vendor import clean_vendor_image

        image, affine = load_checked(Path(self.inputs.in_file))
        known = acquisition_from(self.inputs.acquisition) if self.inputs.psf_known else None
        cleaned = clean_vendor_image(image, affine, known, self.inputs.in_file, self.inputs.n_channels)
        save_image(self.out_path("out_file", "sodium.nii"), cleaned.image, affine)
        save_noise(self.out_path("noise_file", "noise.npz"), cleaned.noise_sd, cleaned.noise_psd, image.shape)
        report = {
            "method": "vendor",
            "noise_sd": cleaned.noise_sd,
            "floor": cleaned.floor.law if cleaned.floor else "not measured",
            "floor_mean": cleaned.floor.mean if cleaned.floor else None,
            "floor_corrected": cleaned.corrected,
            "clipped_fraction": float(clipped_voxels(image).mean()),
        }
        save_json(self.out_path("report_file", "image.json"), report)
        return runtime


class AverageRuns(Step):
    """Repeat scans registered to the first and averaged."""

    class input_spec(StepInputSpec):
        in_files = InputMultiObject(File(exists=True), mandatory=True)
        noise_files = InputMultiObject(File(exists=True), mandatory=True)
        transforms = traits.List(File(exists=True), desc="of every run to the first, where they are known")
        seed = traits.Int(42, usedefault=True)

    class output_spec(ImageOutputSpec):
        transforms = traits.List(File, desc="of every run to the first")

    def _run_interface(self, runtime: Any) -> Any:
        import numpy as np

        from sodium_prep.anat.coreg import register_runs
        from sodium_prep.anat.jobs import JobSettings
        from sodium_prep.anat.transforms import read_itk_affine, write_itk_affine
        from sodium_prep.recon.resample import average_runs

        images, affines = zip(*(load_image(path) for path in self.inputs.in_files), strict=True)
        noises = [load_noise(path) for path in self.inputs.noise_files]
        if self.inputs.transforms:
            matrices = [read_itk_affine(Path(path)) for path in self.inputs.transforms]
        else:
            matrices = register_runs(images, affines, settings=JobSettings(seed=self.inputs.seed))
        mean, sd = average_runs(images, affines, matrices, [noise.sd for noise in noises])
        save_image(self.out_path("out_file", "sodium.nii"), mean, affines[0])
        save_noise(self.out_path("noise_file", "noise.npz"), sd, noises[0].spectrum)
        self._results["transforms"] = []
        for number, matrix in enumerate(matrices, start=1):
            path = Path.cwd() / f"run{number}.txt"
            write_itk_affine(path, matrix)
            self._results["transforms"].append(str(path))
        shifts = [float(np.linalg.norm(matrix[:3, 3])) for matrix in matrices]
        save_json(self.out_path("report_file", "runs.json"), {"n_runs": len(images), "run_shift_mm": shifts})
        return runtime


class _ProfileOutputSpec(ImageOutputSpec):
    profile_file = File(desc="profile on the sodium grid")


class CorrectReceive(Step):
    """The receive profile of an array taken off, from the ratio of array to volume coil."""

    class input_spec(StepInputSpec):
        in_file = File(exists=True, mandatory=True)
        noise_file = File(exists=True, mandatory=True)
        body = File(exists=True, mandatory=True, desc="volume coil")
        head = File(exists=True, mandatory=True, desc="array coil")

    output_spec = _ProfileOutputSpec

    def _run_interface(self, runtime: Any) -> Any:
        from sodium_prep.bids.images import load_checked
        from sodium_prep.quant.receive import divide_profile, receive_profile, resample_profile

        image, affine = load_image(self.inputs.in_file)
        noise = load_noise(self.inputs.noise_file)
        head, pair_affine = load_checked(Path(self.inputs.head))
        body, _ = load_checked(Path(self.inputs.body))
        found = receive_profile(head, body, pair_affine, where=self.inputs.head)
        profile = resample_profile(found.values, found.affine, image.shape, affine)
        corrected, sd = divide_profile(image, noise.sd, profile)
        save_image(self.out_path("out_file", "sodium.nii"), corrected, affine)
        save_image(self.out_path("profile_file", "profile.nii"), profile, affine)
        save_noise(self.out_path("noise_file", "noise.npz"), sd, noise.spectrum)
        report = {
            "receive_method": "pair",
            "receive_pair": [Path(self.inputs.body).name, Path(self.inputs.head).name],
            "receive_range": [float(profile.min()), float(profile.max())],
            "receive_residual": found.relative_residual,
        }
        save_json(self.out_path("report_file", "receive.json"), report)
        return runtime


class TransmitInputSpec(StepInputSpec):
    """What a step reads the transmit field from."""

    b1_plus = File(exists=True, desc="transmit field relative to nominal, any grid")
    b1_units = traits.Str("", usedefault=True)
    b1_pair = traits.List(File(exists=True), desc="images at a flip angle and at twice it, in place of b1_plus")
    b1_pair_flip_deg = traits.Float(desc="the smaller of their flip angles")
    b1_pair_tr_s = traits.Float(desc="their repetition time")
    acquisition = traits.Dict(mandatory=True, desc="fields of Acquisition")


def transmit_field(inputs: Any) -> Any:
    """What was measured of the transmit field, on its own grid; None without a measurement."""
    from sodium_prep.bids.images import load_checked
    from sodium_prep.physics.relaxation import tissue_relaxation
    from sodium_prep.quant.b1 import double_angle_field, relative_b1_plus, smooth_transmit_field

    if inputs.b1_plus:
        data, affine = load_checked(Path(inputs.b1_plus))
        flip = inputs.acquisition["flip_angle_deg"]
        kappa = relative_b1_plus(data, inputs.b1_units, nominal_flip_deg=flip, where=inputs.b1_plus)
        return smooth_transmit_field(kappa, affine, where=inputs.b1_plus)
    if inputs.b1_pair:
        (single, affine), (double, other) = (load_checked(Path(path)) for path in inputs.b1_pair)
        if abs(affine - other).max() > 1e-3:
            raise InputError(inputs.b1_pair[1], "lies on another grid than its partner", "Give the pair on one grid")
        t1_s = tissue_relaxation("GM", inputs.acquisition["field_strength_t"]).t1_s
        facts = (inputs.b1_pair_flip_deg, inputs.b1_pair_tr_s, t1_s)
        return double_angle_field(single, double, affine, *facts, where=inputs.b1_pair[0])
    return None


class CorrectReceiveByTransmit(Step):
    """The receive profile of a birdcage that transmits and receives taken off: by reciprocity its transmit field."""

    class input_spec(TransmitInputSpec):
        in_file = File(exists=True, mandatory=True)
        noise_file = File(exists=True, mandatory=True)

    output_spec = _ProfileOutputSpec

    def _run_interface(self, runtime: Any) -> Any:
        from sodium_prep.quant.receive import divide_profile, resample_profile

        image, affine = load_image(self.inputs.in_file)
        noise, field = load_noise(self.inputs.noise_file), transmit_field(self.inputs)
        relative = field.values / float(field.values[field.support].mean())
        profile = resample_profile(relative, field.affine, image.shape, affine)
        corrected, sd = divide_profile(image, noise.sd, profile)
        save_image(self.out_path("out_file", "sodium.nii"), corrected, affine)
        save_image(self.out_path("profile_file", "profile.nii"), profile, affine)
        save_noise(self.out_path("noise_file", "noise.npz"), sd, noise.spectrum)
        found = {"receive_method": "reciprocity", "receive_range": [float(profile.min()), float(profile.max())]}
        save_json(self.out_path("report_file", "receive.json"), found)
        return runtime


class RegisterSodium(Step):
    """Rigid registration of the sodium image to the anatomical image, by two programs and a third measure."""

    class input_spec(StepInputSpec):
        in_file = File(exists=True, mandatory=True)
        t1w = File(exists=True, mandatory=True)
        brain_mask = File(exists=True, mandatory=True)
        gm = File(exists=True, mandatory=True)
        wm = File(exists=True, mandatory=True)
        csf = File(exists=True, mandatory=True)
        proton = File(exists=True, desc="proton image of the sodium coil")
        source = traits.Str(mandatory=True, desc="name to give in messages")
        ignore_sides = traits.Bool(False, usedefault=True, desc="note a swap of left and right and go on")
        seed = traits.Int(42, usedefault=True)
        n_threads = traits.Int(1, usedefault=True)

    class output_spec(TraitedSpec):  # type: ignore[misc]
        out_file = File(desc="ITK transform that resamples sodium onto the anatomical image")
        second_file = File(desc="the same by the opinion that was not taken")
        motion_sd_mm = traits.Float(desc="standard deviation of each of its motions")
        report_file = File()

    def _run_interface(self, runtime: Any) -> Any:
        from sodium_prep.anat.coreg import register_sodium
        from sodium_prep.anat.jobs import JobSettings, Volume
        from sodium_prep.anat.transforms import write_itk_affine
        from sodium_prep.bids.images import load_checked

        sodium, sodium_affine = load_image(self.inputs.in_file)
        t1w, affine = load_image(self.inputs.t1w)
        proton = Volume(*load_checked(Path(self.inputs.proton))) if isdefined(self.inputs.proton) else None
        found = register_sodium(
            sodium,
            sodium_affine,
            t1w,
            affine,
            load_mask(self.inputs.brain_mask),
            fractions=tuple(load_image(getattr(self.inputs, tissue))[0] for tissue in ("gm", "wm", "csf")),
            proton=proton,
            settings=JobSettings(n_threads=self.inputs.n_threads, seed=self.inputs.seed),
        )
        if found.mirrored and not self.inputs.ignore_sides:
            raise InputError(
                self.inputs.source,
                "seems to have left and right swapped with respect to the anatomical image: the other way round, "
                f"it leaves {100 * -math.expm1(found.mirror_margin):.0f} % less of the variance unexplained",
                "Check both headers; if they are right, go on with --ignore sides",
            )
        write_itk_affine(self.out_path("out_file", "sodium_to_t1w.txt"), found.sodium_to_t1w)
        others = [one.matrix for one in found.opinions if one.name != found.chosen and one.matrix is not None]
        if others:
            write_itk_affine(self.out_path("second_file", "second.txt"), others[0])
        self._results["motion_sd_mm"] = found.motion_sd_mm
        save_json(self.out_path("report_file", "registration.json"), self._report(found, proton is not None))
        return runtime

    @staticmethod
    def _report(found: Any, coil_proton: bool) -> dict[str, Any]:
        opinions = [
            {
                "name": one.name,
                "matrix": one.matrix,
                "score": one.score,
                "shift_mm": one.shift_mm,
                "turn_deg": one.turn_deg,
                "chosen": one.name == found.chosen,
            }
            for one in found.opinions
        ]
        return {
            "reg_opinions": opinions,
            "reg_disagreement_mm": found.disagreement_mm,
            "reg_sd_mm": found.sd_mm,
            "reg_flagged": found.flagged,
            "reg_notes": list(found.notes),
            "reg_nmi": found.nmi,
            "reg_nmi_header": found.nmi_header,
            "reg_shift_mm": found.shift_mm,
            "reg_rotation_deg": found.turn_deg,
            "reg_starts": found.n_starts,
            "coil_proton": coil_proton,
        }


def acquisition_from(fields: dict[str, Any]) -> Any:
    """An Acquisition from the plain values that a node can hold."""
    from sodium_prep.physics.acquisition import Acquisition

    return Acquisition(**{**fields, "nominal_resolution_mm": tuple(fields["nominal_resolution_mm"])})


def save_noise(path: Path, sd: Any, spectrum: Any, shape: Any = None) -> None:
    """Write a noise model; a single standard deviation is spread over the shape."""
    import numpy as np

    values = np.broadcast_to(np.asarray(sd, dtype=np.float32), np.shape(sd) if shape is None else shape)
    np.savez(path, sd=values, psd=np.asarray(spectrum, dtype=np.float32))


def load_noise(path: str) -> Any:
    """Read a noise model."""
    import numpy as np

    from sodium_prep.pvc.noise import Noise

    with np.load(path, allow_pickle=False) as data:
        return Noise(data["sd"], data["psd"])
