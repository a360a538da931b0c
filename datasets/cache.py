"""Arrays that take minutes to compute, kept on disk under a digest of everything they depend on."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import tempfile
import zipfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from .files import read_npz
from .types import DataError


def cache_folder() -> Path:
    """``$NOCOBENCH_CACHE`` (``off``: nothing is kept), else ``~/.cache/nocobench/derived``; may be deleted at any time."""
    if os.environ.get("NOCOBENCH_CACHE"):
        return Path(os.environ["NOCOBENCH_CACHE"]).expanduser()
    return Path.home() / ".cache" / "nocobench" / "derived"


def cache_file(name: str, depends_on: Mapping[str, Any]) -> Path:
    """Where the arrays lie that depend on this (anything JSON can say: digests of inputs, parameters, versions of libraries)."""
    key = hashlib.sha256(json.dumps(depends_on, sort_keys=True).encode()).hexdigest()[:20]
    return cache_folder() / f"{name}-{key}.npz"


def cached(
    name: str, depends_on: Mapping[str, Any], arrays: Sequence[str], compute: Callable[[], Mapping[str, np.ndarray]]
) -> dict[str, np.ndarray]:
    """The named arrays from the cache, or computed and then kept.

    A file is complete or absent, because it is renamed into place; one that was damaged later is computed again. Where the folder cannot be
    written, nothing is kept and the arrays are returned all the same.
    """
    if os.environ.get("NOCOBENCH_CACHE") == "off":
        return dict(compute())
    path = cache_file(name, depends_on)
    with contextlib.suppress(DataError):
        return read_npz(path, arrays)
    made = dict(compute())
    with contextlib.suppress(OSError):
        _write(path, made)
    return made


def _write(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=path.stem, suffix=".part")
    try:
        # Not np.savez: it dates the entries, which fails where the clock stands before 1980.
        with os.fdopen(handle, "wb") as stream, zipfile.ZipFile(stream, "w") as archive:
            for name, array in arrays.items():
                with archive.open(zipfile.ZipInfo(f"{name}.npy"), "w", force_zip64=True) as file:
                    np.lib.format.write_array(file, np.asarray(array), allow_pickle=False)
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise
    for left in path.parent.glob(
        f"{path.stem}*.part"
    ):  # of killed processes; one that writes the same now keeps nothing, that is all
        left.unlink(missing_ok=True)
