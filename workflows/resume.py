"""Going on from an earlier run: what its steps wrote into the output folder may be gone by now."""

from __future__ import annotations

import json
import logging
import shutil
from pathlib import Path
from typing import Any

from sodium_prep.interfaces.outputs import MANIFEST

logger = logging.getLogger("sodium_prep.run")


def forget_lost_outputs(workflow: Any) -> list[str]:
    """Forget every step whose outputs are no longer there, or have another size, so that it runs again.

    Nipype looks at the inputs of a step only; what a step has written outside its own directory it does not know of.

    Parameters
    ----------
    workflow
        A nipype workflow with its ``base_dir`` set, before it runs.

    Returns
    -------
    Names of the steps that are forgotten.
    """
    root = Path(workflow.base_dir, workflow.name)
    forgotten = []
    for name in workflow.list_node_names():
        directory = root.joinpath(*name.split("."))
        manifest = directory / MANIFEST
        if manifest.is_file() and not _is_whole(manifest):
            logger.info("outputs of %s are gone; they are written again", name)
            shutil.rmtree(directory)
            forgotten.append(name)
    return forgotten


def remove_temporaries(out_dir: Path, participant: str, session: str | None) -> None:
    """Remove what the killed steps of a session left half-written beside the outputs."""
    folder = out_dir / f"sub-{participant}"
    stem = folder.name + (f"_ses-{session}" if session else "")
    for path in folder.rglob(f".{stem}_*.tmp"):
        path.unlink(missing_ok=True)


def _is_whole(manifest: Path) -> bool:
    try:
        sizes: dict[str, int] = json.loads(manifest.read_text(encoding="utf-8"))["sizes"]
        return all(Path(path).stat().st_size == size for path, size in sizes.items())
    except (OSError, ValueError, KeyError):
        return False
