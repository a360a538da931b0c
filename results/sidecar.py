"""Arrays beside a record: per-query ranks, histograms of weights. Compressed ``.npz`` with the same bytes for the same content.

Names of the arrays (``<s>`` is a signal: weight, clean_probability, loss; ``<n>`` a network; E epochs were kept):

- ``i2t_better``, ``i2t_tied``, ``i2t_own_tied`` and the same for ``t2i``: uint32 per query of the test split as one gallery, after the
  selected epoch: wrong items above the best own item, wrong items equal to it, own items equal to it;
- of label-based retrieval instead: ``i2t_average_precision`` float32 per test query (NaN without a relevant item), and the curve
  ``i2t_cutoffs`` uint32, ``i2t_precision``, ``i2t_recall`` float64, means over queries among so many first items; the same for ``t2i``;
- ``signal_epochs`` [E]; ``histogram/<s>/<n>/clean`` and ``.../noisy`` [E, 256] uint32; ``edges/<s>/<n>`` [257] float32; pairs that are in
  no bin: ``excluded/<s>/<n>/clean`` and ``.../noisy`` [E] (weight 0 by a partition), ``not_visited/<s>/<n>/...`` [E];
- ``similarity/clean``, ``similarity/noisy`` [256] and ``edges/similarity`` [257].
"""

from __future__ import annotations

import io
import math
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO

import numpy as np

from .files import read_ordinary

_MOST_PER_BYTE = 1032  # deflate can make no more of a byte
_NO_DATE = (1980, 1, 1, 0, 0, 0)


class SidecarError(ValueError):
    """Arrays that cannot be stored, or a file of arrays that cannot be read; one sentence."""


def sidecar_path(record_path: Path) -> Path:
    """``.../seed3.json`` -> ``.../seed3.npz``."""
    return record_path.with_suffix(".npz")


def to_bytes(arrays: Mapping[str, np.ndarray]) -> bytes:
    """The file's content: entries in order of name, no dates, rows contiguous (``np.savez`` keeps neither order nor layout).

    Raises:
        SidecarError: an array of Python objects, or a name that is empty.
    """
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name in sorted(arrays):
            array = np.asarray(arrays[name], order="C")
            if not name or array.dtype.hasobject:
                raise SidecarError(
                    f"sidecar array {name!r} has dtype {array.dtype}; only named arrays of numbers are kept"
                )
            entry = zipfile.ZipInfo(f"{name}.npy", date_time=_NO_DATE)
            entry.compress_type = zipfile.ZIP_DEFLATED
            entry.create_system = 3  # else it depends on the operating system
            entry.external_attr = 0o644 << 16
            with archive.open(entry, "w") as file:
                np.lib.format.write_array(file, array, version=(1, 0), allow_pickle=False)
    return buffer.getvalue()


def read_sidecar(path: Path) -> dict[str, np.ndarray]:
    """All arrays of a sidecar file by name.

    Raises:
        SidecarError: the file is missing, truncated, damaged, or holds objects instead of numbers.
    """
    arrays = {}
    try:
        with zipfile.ZipFile(io.BytesIO(read_ordinary(path))) as archive:
            _refuse_bomb(archive.infolist(), path.stat().st_size)
            for entry in archive.infolist():
                with archive.open(entry) as file:
                    _refuse_false_header(file, entry)
                    file.seek(0)
                    arrays[entry.filename.removesuffix(".npy")] = np.lib.format.read_array(file, allow_pickle=False)
    except FileNotFoundError as error:
        raise SidecarError(f"sidecar {path} is missing; run the cell again") from error
    except Exception as error:  # a damaged file makes numpy and zipfile fail in many ways
        raise SidecarError(f"sidecar {path} cannot be read ({error}); run the cell again") from error
    return arrays


def _refuse_bomb(entries: Sequence[zipfile.ZipInfo], held: int) -> None:
    """Refuse, before anything is unpacked, what :func:`to_bytes` cannot have written.

    Raises:
        ValueError: a name that occurs twice, another method than deflate, or more bytes than deflate can make of the file.
    """
    if len({entry.filename for entry in entries}) < len(entries):
        raise ValueError("a name occurs twice")
    if any(entry.compress_type not in (zipfile.ZIP_DEFLATED, zipfile.ZIP_STORED) for entry in entries):
        raise ValueError("an array is packed by another method than deflate")
    claimed = sum(entry.file_size for entry in entries)
    if claimed > _MOST_PER_BYTE * held:
        raise ValueError(f"it claims {claimed:,} bytes but has {held:,}, too few even if compressed")


def _refuse_false_header(file: IO[bytes], entry: zipfile.ZipInfo) -> None:
    """Refuse an array whose header claims another size than its entry has."""
    if np.lib.format.read_magic(file) != (1, 0):
        raise ValueError(f"entry {entry.filename!r} is no plain array")
    shape, _, dtype = np.lib.format.read_array_header_1_0(file)
    claimed, held = math.prod(shape) * dtype.itemsize, entry.file_size - file.tell()
    if claimed != held or dtype.hasobject:
        raise ValueError(
            f"entry {entry.filename!r} is {'longer' if held > claimed else 'shorter'} than its array of {dtype} {shape}"
        )
