"""Labels, and the filter file that says which of several files is meant (``--bids-filter-file``).

The file is fMRIPrep's: ``{"t1w": {"acquisition": "mprage"}, "sodium": {"run": 1, "part": null}}``. A value may be a
text, a number or a list of them; ``null`` wants the entity to be absent, ``"*"`` wants it to be there.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, Literal, get_args

from sodium_prep.errors import UsageError

Query = Literal["t1w", "sodium", "receive", "kspace"]
Filters = Mapping[str, Mapping[str, Any]]

_QUERIES: Final[tuple[str, ...]] = get_args(Query)
_FMRIPREP_QUERIES: Final = ("bold", "sbref", "fmap", "flair", "t2w", "roi", "asl", "dwi")
_LABEL: Final = re.compile(r"[A-Za-z0-9]+\Z")


def check_label(label: str, option: str = "--participant-label") -> str:
    """Return a label without its ``sub-`` or ``ses-`` prefix, or refuse it.

    A label becomes part of file names, so nothing but letters and digits may be in it.
    """
    prefix = "ses-" if "session" in option else "sub-"
    bare = label.removeprefix(prefix)
    if not _LABEL.match(bare):
        raise UsageError(option, f"{label!r} is not a BIDS label", "Use letters and digits only, as in sub-01")
    return bare


def load_filters(path: Path) -> dict[str, dict[str, Any]]:
    """Read a filter file; queries that only other BIDS Apps know are left out."""
    option = f"--bids-filter-file {path}"
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(option, f"cannot be read ({error.strerror})", "Check the path") from None
    except (ValueError, RecursionError) as error:
        raise UsageError(option, f"is not valid JSON ({error})", "Correct the file") from None
    if not isinstance(content, dict) or not all(isinstance(query, dict) for query in content.values()):
        raise UsageError(option, "is not of the form {query: {entity: value}}", "See fMRIPrep's documentation")
    entities = entity_names()
    for query, wanted in content.items():
        if query not in (*_QUERIES, *_FMRIPREP_QUERIES):
            raise UsageError(option, f"{query!r} is not a query", f"Known queries: {', '.join(_QUERIES)}")
        for entity, value in wanted.items():
            if query in _QUERIES and entity not in entities:
                raise UsageError(option, f"{entity!r} is not an entity", f"Known entities: {', '.join(entities)}")
            values = value if isinstance(value, list) else [value]
            if not all(one is None or isinstance(one, str | int) for one in values):
                raise UsageError(option, f"{entity!r} has the value {value!r}", "Give a text, a number, null or a list")
    return {query: wanted for query, wanted in content.items() if query in _QUERIES}


def matches(entities: Mapping[str, str], wanted: Mapping[str, Any]) -> bool:
    """Whether the entities of a file satisfy one query of a filter file."""
    return all(_satisfies(entities.get(name), value) for name, value in wanted.items())


def _satisfies(found: str | None, value: Any) -> bool:
    if isinstance(value, list):
        return any(_satisfies(found, one) for one in value)
    if value is None:
        return found is None
    if found is None:
        return False
    text = str(value)
    if found.isdigit() and text.isdigit():
        return int(found) == int(text)
    return text == "*" or found == text


def entity_names() -> tuple[str, ...]:
    """Entity names of pybids (``acquisition``, ``run``, ``suffix``, ...), which filter files use."""
    from bids.layout.models import Config

    return tuple(name for config in ("bids", "derivatives") for name in Config.load(config).entities)


def parse_entities(path: Path, root: Path) -> dict[str, str]:
    """Entities of a file by pybids' own patterns; the path above ``root`` plays no part."""
    from bids.layout import parse_file_entities

    found = parse_file_entities(f"/{path.relative_to(root).as_posix()}")
    return {name: str(value) for name, value in found.items()}
