"""Arrays that take minutes to compute, kept on disk under a digest of everything they depend on."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from .files import read_npz
from .types import DataError


def cache_folder() -> Path:
    """``$NOCOBENCH_CACHE``, else ``~/.cache/nocobench/derived``; may be deleted at any time."""
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
        with os.fdopen(handle, "wb") as stream:
            np.savez(stream, **arrays)  # type: ignore[arg-type]
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise
