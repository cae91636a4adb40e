"""The step that makes T2* maps and a relaxation-weighted difference of the echoes of one run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from nipype.interfaces.base import File, TraitedSpec, isdefined, traits

from sodium_prep.errors import InputError
from sodium_prep.interfaces.base import Step, StepInputSpec, load_image, save_image, save_json
from sodium_prep.interfaces.sodium import load_noise

_STATS = {"values": "value", "stderr": "stderr", "low": "cilow", "high": "cihigh"}
_NAMES = {
    ("mono", "t2star"): "all_T2starmap",
    ("biexponential", "t2star_fast"): "fast_T2starmap",
    ("biexponential", "t2star_slow"): "slow_T2starmap",
    ("biexponential", "fraction_fast"): "fast_fractionmap",
}

_ECHO_MAPS = {
    "all": ("T2* by one exponential", "s"),
    "fast": ("T2* of the fast of two components", "s"),
    "slow": ("T2* of the slow of two components", "s"),
}
_ECHO_STATS = {
    "value": "",
    "stderr": ", standard error from the observed information",
    "cilow": ", lower end of the 95 % interval by profile likelihood",
    "cihigh": ", upper end of the 95 % interval by profile likelihood; infinite where the data leave it open",
}
_JOINT_STATS = {"value": "", "stderr": ", standard error by noise"}


class FitEchoes(Step):
    """Maps of the echoes of a run on their native grid."""

    class input_spec(StepInputSpec):
        in_files = traits.List(
            File(exists=True), mandatory=True, desc="echoes: magnitudes or real parts, floor and all"
        )
        imaginary_files = traits.List(File(exists=True), desc="parts that belong to the real ones")
        noise_files = traits.List(File(exists=True), desc="noise of real images of our own; measured in air without")
        profile_file = File(exists=True, desc="receive profile to take off the difference")
        echo_times_s = traits.List(traits.Float, mandatory=True)
        field_strength_t = traits.Float(mandatory=True)
        relaxation = traits.Dict(desc="fields of Relaxation that replace the literature's, by tissue")
        n_channels = traits.Int(1, usedefault=True, desc="channels that the images are the sum of squares of")

    class output_spec(TraitedSpec):  # type: ignore[misc]
        maps = traits.List(File, desc="named <which>_<suffix>_<statistic>.nii; none where the noise has no known law")
        report_file = File()

    def _run_interface(self, runtime: Any) -> Any:
        from sodium_prep.physics.relaxation import tissue_relaxation
        from sodium_prep.quant.echoes import make_echo_maps

        inputs = self.inputs
        images, affine = self._images()
        self._results["maps"] = []
        report: dict[str, Any] = {"echo_times_s": inputs.echo_times_s}
        try:
            noise = self._noise(images, affine)
        except InputError as error:
            notes = [f"There are no T2* maps: {error.problem}."]
        else:
            fluid = tissue_relaxation("CSF", inputs.field_strength_t, (inputs.relaxation or {}).get("CSF"))
            made = make_echo_maps(images, inputs.echo_times_s, noise, fluid, Path(inputs.in_files[0]).name)
            self._write(made, affine)
            notes = list(made.notes)
            report |= _facts(made, noise)
        save_json(self.out_path("report_file", "echoes.json"), {"echoes": report, "echo_notes": notes})
        return runtime

    def _images(self) -> tuple[list[Any], Any]:
        import numpy as np

        from sodium_prep.bids.images import load_checked

        loaded = [load_checked(Path(path)) for path in self.inputs.in_files]
        images = [image for image, _ in loaded]
        for i, path in enumerate(self.inputs.imaginary_files or []):
            images[i] = np.hypot(images[i], load_checked(Path(path))[0])
        return images, loaded[0][1]

    def _noise(self, images: list[Any], affine: Any) -> Any:
        import numpy as np

        from sodium_prep.quant.echoes import EchoNoise, measure_echo_noise

        if self.inputs.noise_files:
            return EchoNoise("gaussian", np.stack([load_noise(path).sd for path in self.inputs.noise_files], axis=-1))
        return measure_echo_noise(images, affine, self.inputs.n_channels, Path(self.inputs.in_files[0]).name)

    def _write(self, made: Any, affine: Any) -> None:
        import numpy as np

        from sodium_prep.quant.receive import divide_profile

        found: dict[str, Any] = {}
        for model, fit in made.fits.items():
            for name, stem in ((n, stem) for (m, n), stem in _NAMES.items() if m == model):
                found |= {f"{stem}_{label}": getattr(fit, stat)[name] for stat, label in _STATS.items()}
            found[f"{model}_fitflags_value"] = fit.flags
        if made.difference is not None:
            difference = made.difference, made.difference_sd
            if isdefined(self.inputs.profile_file):
                difference = divide_profile(*difference, load_image(self.inputs.profile_file)[0])
            found |= {f"difference_T2starw_{s}": d for s, d in zip(("value", "stderr"), difference, strict=True)}
        for name, image in found.items():
            path = Path.cwd() / f"{name}.nii"
            with np.errstate(over="ignore"):  # an end of an interval that is as good as open
                save_image(path, image, affine)
            self._results["maps"].append(str(path))


def _facts(made: Any, noise: Any) -> dict[str, Any]:
    """What the sidecars and the page tell."""
    from sodium_prep.quant.t2star import MINIMUM_SNR, Flag

    counts = {
        model: {flag.name: int((fit.flags & flag > 0).sum()) for flag in Flag} for model, fit in made.fits.items()
    }
    fitted = {
        model: int((fit.flags & (Flag.BELOW_NOISE | Flag.NOT_CONVERGED) == 0).sum()) for model, fit in made.fits.items()
    }
    return {
        "law": noise.law,
        "n_channels": noise.n_channels,
        "minimum_snr": MINIMUM_SNR,
        "noise_sd": [float(sd) for sd in noise.sd.reshape(-1, noise.sd.shape[-1]).mean(axis=0)],
        "flags": counts,
        "fitted_voxels": fitted,
        "difference_echoes": [made.pair.first + 1, made.pair.second + 1] if made.pair else None,
        "difference_weight": made.pair.weight if made.pair else None,
    }


def describe_echo_map(which: str, suffix: str, stat: str, facts: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """Description and further fields of the sidecar of a map of the echoes."""
    from sodium_prep.quant.t2star import Flag
    from sodium_prep.quant.weighted import CAUTION

    if suffix == "T2starw":
        first, second = facts["difference_echoes"]
        text = f"Echo {first} minus {facts['difference_weight']:.4g} times echo {second}, by which fluid vanishes"
        extra = {"EchoTimes": facts["echo_times_s"], "Weight": facts["difference_weight"], "Caution": CAUTION,
                 "Citation": "Mueller et al., Ther Adv Chronic Dis 2022;13, for the echo times"}  # fmt: skip
        text += _ECHO_STATS["stderr"].partition(" from")[0] if stat == "stderr" else ""
        return text, {"units": "arbitrary", "skull_stripped": False, "extra": extra}
    if which == "joint":
        text = "T2* by one exponential, found together with the image (agrdm)" + _JOINT_STATS[stat]
        extra = {"EchoTimes": facts["echo_times_s"], "Citation": "Schramm et al., Magn Reson Med 2024;91:1404"}
        return f"{text}; NaN without a value", {"units": "s", "skull_stripped": False, "extra": extra}
    one = which in ("all", "mono")
    model = "mono" if one else "biexponential"
    extra = {
        "Model": "A exp(-t / T2*)" if one else "A [f exp(-t / T2*fast) + (1 - f) exp(-t / T2*slow)]",
        "EchoTimes": facts["echo_times_s"],
        "NoiseLaw": facts["law"] + (f" of {facts['n_channels']} channels" if facts["n_channels"] > 1 else ""),
        "NoiseStandardDeviation": facts["noise_sd"],
        "MinimumSNR": facts["minimum_snr"],
        "FittedVoxels": facts["fitted_voxels"][model],
        "Flags": facts["flags"][model],
        "Citation": "Sijbers et al., IEEE Trans Med Imaging 1998;17:357, for the likelihood of magnitudes",
    }
    if suffix == "fitflags":
        levels = {str(int(flag)): str(flag.name).lower().replace("_", " ") for flag in Flag}
        return "What is to be known of each fit, as a sum of the levels", {"extra": extra | {"Levels": levels}}
    text, units = ("Share of the signal that decays fast", "1") if suffix == "fractionmap" else _ECHO_MAPS[which]
    return f"{text}{_ECHO_STATS[stat]}; NaN without a value", {"units": units, "skull_stripped": False, "extra": extra}
