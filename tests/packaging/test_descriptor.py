"""The Boutiques descriptor knows every option of the command line, and none besides."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from sodium_prep import __version__
from sodium_prep.cli.parser import build_parser

ROOT = Path(__file__).resolve().parents[2]
DESCRIPTOR = ROOT / "boutiques.json"


@pytest.fixture(scope="module")
def descriptor():
    return json.loads(DESCRIPTOR.read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def actions():
    return {action.dest: action for action in build_parser()._actions if action.dest not in ("help", "version")}


def test_every_option_and_none_besides(descriptor, actions):
    assert [item["id"] for item in descriptor["inputs"]] == list(actions)


def test_each_option_is_described_as_it_is(descriptor, actions):
    for item in descriptor["inputs"]:
        action = actions[item["id"]]
        assert item.get("list", False) == (action.nargs == "+"), item["id"]
        assert item.get("value-choices") == (list(action.choices) if action.choices else None), item["id"]
        assert (item["type"] == "Flag") == (action.nargs == 0), item["id"]
        assert item.get("optional", False) == bool(action.option_strings), item["id"]
        if action.option_strings:
            assert item["command-line-flag"] in action.option_strings
        assert item["description"].lower() == action.help.lower()


def test_version(descriptor):
    assert descriptor["tool-version"] == __version__
    assert descriptor["container-image"]["image"].endswith(f":{__version__}")


def test_command_line_is_one_that_the_parser_takes(descriptor, tmp_path):
    pytest.importorskip("boutiques")
    invocation = {
        "bids_dir": "/data",
        "output_dir": "/out",
        "analysis_level": "participant",
        "participant_label": ["01", "02"],
        "reference": ["vials", "CSF"],
        "psf": ["auto"],
        "nprocs": 2,
        "dry_run": True,
    }
    file = tmp_path / "invocation.json"
    file.write_text(json.dumps(invocation))
    bosh = [str(Path(sys.executable).parent / "bosh")]
    assert (
        "OK" in subprocess.run([*bosh, "validate", str(DESCRIPTOR)], capture_output=True, text=True, check=True).stdout
    )
    simulate = [*bosh, "exec", "simulate", str(DESCRIPTOR), "-i", str(file)]
    shown = subprocess.run(simulate, capture_output=True, text=True, check=True, cwd=tmp_path).stdout
    line = next(line for line in shown.splitlines() if line.startswith("sodium-prep "))
    given = vars(build_parser().parse_args(shlex.split(line)[1:]))
    assert {key: value for key, value in given.items() if key not in ("bids_dir", "output_dir")} == {
        key: value for key, value in invocation.items() if key not in ("bids_dir", "output_dir")
    }
