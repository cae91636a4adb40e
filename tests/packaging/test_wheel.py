"""What a user installs: the wheel holds all of the package and nothing else, and it runs."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

from sodium_prep import __version__

ROOT = Path(__file__).resolve().parents[2]
BUILT_FROM = ("sodium_prep", "workflows", "docs", "benchmarks", "tests")
FILES = ("pyproject.toml", "README.md", "LICENSE", "CHANGELOG.md", "CITATION.cff", "boutiques.json")


@pytest.fixture(scope="module")
def distributions(tmp_path_factory):
    """Paths of the source distribution and of the wheel made from it."""
    tree = tmp_path_factory.mktemp("tree")
    ignore = shutil.ignore_patterns("__pycache__", "_build", ".*")
    for folder in BUILT_FROM:
        if (ROOT / folder).exists():
            shutil.copytree(ROOT / folder, tree / folder, symlinks=True, ignore=ignore)
    for file in FILES:
        shutil.copy(ROOT / file, tree)
    out = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(out), str(tree)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return next(out.glob("*.tar.gz")), next(out.glob("*.whl"))


@pytest.fixture(scope="module")
def wheel_names(distributions):
    with zipfile.ZipFile(distributions[1]) as wheel:
        return wheel.namelist()


def test_wheel_holds_every_file_of_the_package(wheel_names):
    ours = [path for path in (ROOT / "sodium_prep").rglob("*") if path.is_file() and "__pycache__" not in path.parts]
    ours += [path for path in (ROOT / "workflows").rglob("*.py")]
    expected = set()
    for path in ours:
        relative = path.relative_to(ROOT)
        expected.add(str(relative if relative.parts[0] == "sodium_prep" else Path("sodium_prep") / relative))
    assert expected <= set(wheel_names)
    assert {"sodium_prep/py.typed", "sodium_prep/workflows/engine.py"} <= expected
    assert any(name.startswith("sodium_prep/") and name.endswith((".html", ".j2", ".jinja")) for name in wheel_names)


def test_wheel_holds_one_package(wheel_names):
    tops = {name.split("/")[0] for name in wheel_names}
    assert tops == {"sodium_prep", f"sodium_prep-{__version__}.dist-info"}
    assert not [name for name in wheel_names if "__pycache__" in name or "/tests/" in name]


def test_source_distribution_has_the_workflows_as_files(distributions):
    with tarfile.open(distributions[0]) as sdist:
        members = {member.name.partition("/")[2]: member for member in sdist.getmembers()}
    assert members["sodium_prep/workflows/engine.py"].isfile()
    assert {"LICENSE", "boutiques.json", "tests/packaging/test_wheel.py"} <= set(members)


def test_installed_wheel_answers(distributions, tmp_path):
    """Unpacked beside nothing else of ours, with the dependencies of this environment."""
    site = tmp_path / "site"
    with zipfile.ZipFile(distributions[1]) as wheel:
        wheel.extractall(site)
    code = "import sodium_prep.workflows.engine, sodium_prep.cli.main as m; print(m.__file__); m.main(['--help'])"
    environment = {**os.environ, "PYTHONPATH": str(site)}
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(str(site))
    assert "participant" in done.stdout


def test_console_scripts_exist(distributions):
    with zipfile.ZipFile(distributions[1]) as wheel:
        text = wheel.read(f"sodium_prep-{__version__}.dist-info/entry_points.txt").decode()
        for module in re.findall(r"= (sodium_prep[\w.]*):main", text):
            assert f"{module.replace('.', '/')}.py" in wheel.namelist(), module
    assert {"sodium-prep", "sodium-prep-tools"} <= set(re.findall(r"^([\w-]+) =", text, re.MULTILINE))


def test_version_is_the_same_everywhere():
    assert re.search(rf'^version: "?{re.escape(__version__)}"?$', (ROOT / "CITATION.cff").read_text(), re.MULTILINE)
    assert re.search(rf"^## \[{re.escape(__version__)}\]", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert f"sodium_prep:{__version__}" in (ROOT / "README.md").read_text()
