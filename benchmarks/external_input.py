"""Arrays that others bring in a file, checked: every mistake is one sentence."""

from __future__ import annotations

import math
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

Arrays = Mapping[str, np.ndarray]
PARTS = ("train", "val", "test")
TRAINING_KEYS = (
    *(f"{kind}_{part}" for kind in ("img", "txt", "lab") for part in PARTS),
    *("bits", "epochs", "batch", "lr", "noise", "warmup"),
)


class BadInput(ValueError):
    """The file or the command line cannot be used; one sentence."""


def read(path: Path, keys: Sequence[str], optional: Sequence[str] = ()) -> dict[str, np.ndarray]:
    """The named arrays of a file, those of ``optional`` where they are.

    Raises:
        BadInput: no such file, no .npz, a missing key, or an array that is not made of numbers.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            if not hasattr(file, "files"):
                raise BadInput("the file is a single array; save the arrays with numpy.savez")
            missing = [key for key in keys if key not in file.files]
            if missing:
                raise BadInput(
                    f"the file has no array {missing[0]!r}; the case needs {', '.join(keys)} the file has {', '.join(file.files) or 'none'}"
                )
            found = {key: file[key] for key in (*keys, *optional) if key in file.files}
    except BadInput:
        raise
    except FileNotFoundError as error:
        raise BadInput("the file does not exist") from error
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise BadInput(f"the file cannot be read as .npz: {' '.join(str(error).split())}") from error
    for key, array in found.items():
        if array.dtype.kind not in "biuf":
            raise BadInput(f"array {key!r} is {array.dtype} instead of numbers")
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            raise BadInput(f"array {key!r} holds NaN or inf")
    return found


def table(arrays: Arrays, key: str) -> np.ndarray:
    """An array of rows, C-contiguous.

    Raises:
        BadInput: another shape, or no rows.
    """
    array = arrays[key]
    if array.ndim != 2 or 0 in array.shape:
        raise BadInput(f"array {key!r} has shape {array.shape}; expected [items, dimensions]")
    return np.ascontiguousarray(array)


def number(arrays: Arrays, key: str, least: float, whole: bool = False) -> float:
    """A single number.

    Raises:
        BadInput: an array, a fraction where a whole number is needed, or a number that is too small.
    """
    array = arrays[key]
    value = float(array.reshape(-1)[0]) if array.size == 1 else math.nan
    if not value >= least or (whole and value != int(value)):
        kind = "whole number" if whole else "number"
        raise BadInput(
            f"{key!r} is {array.tolist() if array.size < 5 else array.shape}; expected one {kind} from {least:g} on"
        )
    return value


def label_rows(tables: Sequence[np.ndarray], keys: Sequence[str]) -> list[np.ndarray]:
    """Labels of several parts as rows of 0 and 1 of one width; class numbers may be any integers.

    Raises:
        BadInput: shapes that are neither, or differ.
    """
    tables = [x[:, 0] if x.ndim == 2 and x.shape[1] == 1 else x for x in tables]
    if all(x.ndim == 1 for x in tables):
        for key, x in zip(keys, tables, strict=True):
            if (x != np.floor(x)).any():
                raise BadInput(f"labels {key!r} are one number per item, but not whole class numbers")
        classes, ids = np.unique(np.concatenate(tables), return_inverse=True)
        rows = np.eye(len(classes), dtype=np.float32)[ids]
        return np.split(rows, np.cumsum([len(x) for x in tables])[:-1])
    if all(x.ndim == 2 and x.shape[1] == tables[0].shape[1] for x in tables):
        for key, x in zip(keys, tables, strict=True):
            if ((x != 0) & (x != 1)).any():
                raise BadInput(f"labels {key!r} are rows of other numbers than 0 and 1")
        return [x.astype(np.float32) for x in tables]
    shapes = ", ".join(f"{key} {x.shape}" for key, x in zip(keys, tables, strict=True))
    raise BadInput(f"labels of shapes {shapes}; expected class numbers [n] or rows of 0 and 1 [n, classes] in all")
