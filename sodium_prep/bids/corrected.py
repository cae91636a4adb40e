"""Signs that another program has taken a field off an image before it came here."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

_IMAGE_TYPE_KEYS: Final = ("ImageType", "ImageTypeText")
_IMAGE_TYPES: Final = ("NORM", "PURE", "SCIC", "CLEAR")
"""What the converters pass on from the scanner: Siemens' normalisations (prescan and image-based), GE's PURE and SCIC,
Philips' CLEAR."""
_WORDS: Final = re.compile(r"\bn[34]\b|bias|inhomogen|prescan|unbiased|intensity.?norm|homogeni[sz]", re.IGNORECASE)
_LABEL: Final = re.compile(
    r"(desc|rec)-(norm|[a-z]*n4[a-z]*|bias[a-z]*|[a-z]*biascorr[a-z]*|pure|scic)_", re.IGNORECASE
)
_OWN_KEYS: Final = ("BiasFieldCorrection", "BiasFieldCorrected", "PrescanNormalize", "NormalizationFilter")
_STEP_KEYS: Final = ("Preprocessing", "PostprocessingSteps")
_NO: Final = ("no", "none", "off", "false", "n/a")


def intensity_correction(path: Path, metadata: Mapping[str, Any]) -> str | None:
    """What says that an image was corrected for intensity; None if nothing does.

    Parameters
    ----------
    path
        The image; its name may say so (``rec-norm``, ``desc-N4``).
    metadata
        Its sidecar.
    """
    for key in _IMAGE_TYPE_KEYS:
        value = metadata.get(key)
        for word in value if isinstance(value, list) else [value]:
            if str(word).upper() in _IMAGE_TYPES:
                return f"{key} holds {word}"
    for key in _OWN_KEYS:
        value = metadata.get(key)
        if value and str(value).strip().lower() not in _NO:
            return f"{key} is {value}"
    for key in _STEP_KEYS:
        if found := _WORDS.search(str(metadata.get(key) or "")):
            return f"{key} names {found[0]}"
    label = _LABEL.search(path.name)
    return f"its name has {label[0].rstrip('_')}" if label else None
