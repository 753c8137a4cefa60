"""Tables of whole numbers in MATLAB files."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ..errors import SourceError


def load_integers(path: Path, key: str) -> np.ndarray:
    """The two-dimensional variable `key` of a .mat file, int64 (rows, columns).

    Raises:
        SourceError: the file is broken, or the variable is missing, empty or not made of whole numbers.
    """
    from scipy.io import loadmat

    try:
        content = loadmat(path)
    except Exception as error:  # scipy raises a dozen kinds on broken files
        raise SourceError(f"{path} cannot be read ({error})", "a MATLAB file", "copy it again") from error
    if key not in content:
        found = ", ".join(name for name in content if not name.startswith("__")) or "nothing"
        raise SourceError(f"{path} holds {found}", f"a variable {key}", "copy the file again")
    value = np.asarray(content[key])
    if value.ndim != 2 or not value.size or value.dtype.kind not in "iuf" or not np.array_equal(value, np.trunc(value)):
        raise SourceError(
            f"{key} in {path} is {value.dtype} of shape {value.shape}", "a table of whole numbers", "copy it again"
        )
    return value.astype(np.int64)
