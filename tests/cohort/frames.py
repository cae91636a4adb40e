"""Values frames for tests."""

import numpy as np
import pandas as pd

FIXED = {
    "session_id": "", "acquisition": "sodium", "reconstruction": "", "atlas": "dk", "index": "", "region": "Cortex",
    "hemisphere": "both", "tissue": "GM", "estimator": "labbe", "reference": "vials",
}  # fmt: skip


def values_frame(people, **columns):
    """Rows of the values frame; ``people`` are numbers, everything else as given or as in FIXED."""
    frame = pd.DataFrame({"participant_id": [f"{i:03d}" for i in people]})
    return frame.assign(
        **{name: np.asarray(column) if np.ndim(column) else column for name, column in (FIXED | columns).items()}
    )
