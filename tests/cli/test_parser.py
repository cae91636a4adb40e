"""What the command line accepts and what it makes of it."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest

from sodium_prep.cli.parser import parse_args
from sodium_prep.errors import UsageError

BASE = ["in", "out", "participant"]


def test_labels_lose_their_prefixes() -> None:
    settings, _ = parse_args([*BASE, "--participant-label", "sub-01", "02", "--session-label", "ses-a"])
    assert settings.participant_label == ("01", "02")
    assert settings.session_label == ("a",)


@pytest.mark.parametrize("label", ["../../etc", "a/b", "a*", "sub-", "a b"])
def test_labels_that_are_no_labels_are_refused(label: str) -> None:
    with pytest.raises(UsageError, match="not a BIDS label"):
        parse_args([*BASE, "--participant-label", label])


@pytest.mark.parametrize(("text", "gb"), [("2048", 2.0), ("16G", 16.0), ("512MB", 0.5), ("1T", 1024.0)])
def test_memory_without_a_unit_is_megabytes(text: str, gb: float) -> None:
    assert parse_args([*BASE, "--mem", text])[0].mem_gb == pytest.approx(gb)


@pytest.mark.parametrize(
    "extra",
    [
        ["--mem", "much"],
        ["--psf", "wide"],
        ["--psf", "-3"],
        ["--psf", "5", "6"],
        ["--psf", "GM=a.nii", "b.nii"],
        ["--psf", "GM=a.nii", "bone=b.nii"],
        ["--nprocs", "0"],
        ["-d", "a=/x", "a=/y"],
        ["--config-file", "absent.toml"],
    ],
)
def test_values_that_cannot_be_used_are_named(extra: list[str]) -> None:
    with pytest.raises(UsageError) as caught:
        parse_args([*BASE, *extra])
    assert caught.value.exit_code == 2


def test_an_earlier_run_can_be_started_from_and_overruled(tmp_path: Path) -> None:
    first, _ = parse_args([*BASE, "--pvc", "gtm", "--psf", "5", "--random-seed", "7", "-d", "fmriprep=/deriv"])
    config = tmp_path / "settings.toml"
    config.write_text(first.to_toml())
    second, _ = parse_args(["in2", "out2", "participant", "--config-file", str(config), "--random-seed", "8"])
    assert second.bids_dir.name == "in2"
    assert second.pvc == ("gtm",)
    assert second.psf_fwhm_mm == 5.0
    assert second.random_seed == 8
    assert second.derivatives == {"fmriprep": Path("/deriv")}


def test_images_of_a_point_by_tissue_or_for_all(tmp_path: Path) -> None:
    one, _ = parse_args([*BASE, "--psf", "psf.nii.gz"])
    assert one.psf_files == {"all": Path("psf.nii.gz").absolute()}
    two, _ = parse_args([*BASE, "--psf", "GM=a.nii", "CSF=/b.nii"])
    assert two.psf_files == {"GM": Path("a.nii").absolute(), "CSF": Path("/b.nii")}
    config = tmp_path / "settings.toml"
    config.write_text(two.to_toml())
    again, _ = parse_args([*BASE, "--config-file", str(config)])
    assert again.psf_files == two.psf_files
    changed, _ = parse_args([*BASE, "--config-file", str(config), "--psf", "6"])
    assert (changed.psf_fwhm_mm, changed.psf_files) == (6.0, {})


def test_an_unknown_setting_in_a_file_is_refused(tmp_path: Path) -> None:
    config = tmp_path / "settings.toml"
    config.write_text("no_such = 1\n")
    with pytest.raises(UsageError, match="no_such"):
        parse_args([*BASE, "--config-file", str(config)])


@pytest.mark.parametrize("module", ["sodium_prep.cli.main", "sodium_prep.cli.tools"])
def test_help_answers_without_the_heavy_libraries(module: str) -> None:
    code = (
        f"import sys; sys.argv = ['x', '--help']\nfrom {module} import main\ntry:\n    main()\nexcept SystemExit:\n"
        "    pass\nheavy = {'ants', 'nipype', 'nilearn', 'bids', 'matplotlib', 'pandas', 'scipy', 'finufft'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)"
    )
    start = time.process_time()
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert "usage:" in result.stdout
    assert time.process_time() - start < 1.0
