"""Reading files that others made: every failure is one sentence, nothing is unpickled, no header is believed before the size is checked.

All functions raise :class:`DataError` for files that are missing, cut off or of another kind than their name says.
"""

from __future__ import annotations

import csv
import gzip
import hashlib
import itertools
import math
import zipfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import IO

import numpy as np

from .limits import refuse_claim, refuse_outside
from .matrices import read_matrices, reason
from .types import DataError

Header = tuple[tuple[int, ...], np.dtype]
MOST_TEXT, MOST_LINES = 2**28, 10_000_000


def require(root: Path, name: str, files: Sequence[str], remedy: str) -> list[Path]:
    """The paths of ``files`` (relative to the data root ``root``), all of which exist; otherwise one sentence that ends in ``remedy``."""
    paths = [root / file for file in files]
    missing = [path for path in paths if not path.is_file()]
    if missing:
        more = f" and {len(missing) - 1} more files" if len(missing) > 1 else ""
        raise DataError(f"{name}: {missing[0]}{more.replace('1 more files', '1 more file')} not found; {remedy}")
    for path, file in zip(paths, files, strict=True):
        refuse_outside(path, root / Path(file).parts[0])
    return paths


def digests(paths: Sequence[Path], root: Path) -> dict[str, str]:
    """sha256 of every file, by its name relative to ``root``."""
    result = {}
    for path in paths:
        with path.open("rb") as stream:
            result[path.relative_to(root).as_posix()] = hashlib.file_digest(stream, "sha256").hexdigest()
    return result


def refuse_special(path: Path) -> None:
    """Refuse pipes and devices, which could keep a reader waiting for ever."""
    if path.exists() and not (path.is_file() or path.is_dir()):
        raise DataError(f"{path}: a pipe or device instead of a file; put the file itself there")


def npy_header(path: Path) -> Header:
    """Shape and dtype of a ``.npy`` file, whose size is compared with what they claim.

    Raises:
        DataError: no such file, not a ``.npy`` file, Python objects, or another size than the header claims.
    """
    refuse_special(path)
    try:
        with path.open("rb") as stream:
            size = path.stat().st_size
            return _header(stream, size, str(path))
    except FileNotFoundError as error:
        raise DataError(f"{path} not found; save the array there with numpy.save") from error
    except Exception as error:  # a damaged header makes numpy's parser fail in many ways
        raise _as_data_error(error, path, "save the array again with numpy.save") from error


def read_npy(path: Path) -> np.ndarray:
    """The array of a ``.npy`` file; see :func:`npy_header` for what is refused."""
    npy_header(path)
    try:
        return np.load(path, allow_pickle=False)
    except Exception as error:
        raise _as_data_error(error, path, "save the array again with numpy.save") from error


def read_npz(path: Path, names: Sequence[str]) -> dict[str, np.ndarray]:
    """The named arrays of a ``.npz`` file. Nothing of it is unpacked to disk, so that names in it lead nowhere."""
    try:
        with zipfile.ZipFile(path) as archive:
            members = {info.filename.removesuffix(".npy"): info for info in archive.infolist()}
            for name in names:
                if name not in members:
                    raise DataError(f"{path}: no array {name!r}, only {_some(members)}; get the file again")
            return {name: _member(archive, members[name], f"{path}, array {name}") for name in names}
    except Exception as error:  # a damaged file makes numpy and zipfile fail in many ways
        raise _as_data_error(error, path, "get the file again") from error


def read_mat(path: Path, names: Sequence[str]) -> dict[str, np.ndarray]:
    """The named matrices of a MATLAB file of version 5 or 7.3, as they are stored; see matrices.py."""
    return read_matrices(path, names)


def read_lines(path: Path) -> list[str]:
    """The lines of a UTF-8 text file, gzipped if its name ends in ``.gz``; only line feeds end a line.

    Files of more than :data:`MOST_TEXT` bytes or :data:`MOST_LINES` lines, unpacked, are refused.
    """
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as stream:
            data = stream.read(MOST_TEXT + 1)
        if len(data) > MOST_TEXT or data.count(b"\n") > MOST_LINES:
            raise DataError(
                f"{path}: more than {MOST_TEXT:,} bytes or {MOST_LINES:,} lines of text; get the file again"
            )
        lines = data.decode("utf-8").split("\n")
    except FileNotFoundError as error:
        raise DataError(f"{path} not found; put the file there") from error
    except Exception as error:  # a damaged file makes gzip fail in many ways
        raise _as_data_error(error, path, "get the file again") from error
    if lines[-1] == "":
        lines.pop()
    return [line.removesuffix("\r") for line in lines]


def read_columns(path: Path, columns: Sequence[str]) -> list[dict[str, str]]:
    """The rows of a text file whose first line names its columns, with tabs between them and no quoting; all have these columns."""
    try:
        rows = list(csv.DictReader(read_lines(path), delimiter="\t", quoting=csv.QUOTE_NONE))
    except csv.Error as error:
        raise _as_data_error(error, path, "get the file again") from error
    for number, row in enumerate(rows):
        absent = [column for column in columns if row.get(column) is None]
        if absent:
            raise DataError(f"{path}: no {absent[0]!r} in line {number + 2}; get the file again")
    return rows


def _header(stream: IO[bytes], size: int, where: str) -> Header:
    version = np.lib.format.read_magic(stream)
    readers = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
    if version not in readers:
        raise DataError(f"{where}: no plain array (format {version}); save a plain numeric array")
    shape, _, dtype = readers[version](stream)
    if dtype.hasobject:
        raise DataError(f"{where}: holds Python objects, which are never loaded; save a plain numeric array")
    if any(length < 0 for length in shape):
        raise DataError(f"{where}: claims the impossible shape {shape}; save the array again with numpy.save")
    claimed, held = math.prod(shape) * dtype.itemsize, size - stream.tell()
    if claimed != held or not dtype.itemsize:
        raise DataError(
            f"{where}: claims {claimed:,} bytes ({dtype} {shape}) but holds {held:,}; copy or save the file again"
        )
    refuse_claim(claimed, held, where)
    return shape, dtype


def _member(archive: zipfile.ZipFile, info: zipfile.ZipInfo, where: str) -> np.ndarray:
    """An array of a bundle, whose claims are checked before it is unpacked."""
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise DataError(f"{where}: packed by another method than numpy's; get the file again")
    with archive.open(info) as stream:
        _header(stream, info.file_size, where)
    refuse_claim(info.file_size, min(info.compress_size, Path(archive.filename or "").stat().st_size), where)
    with archive.open(info) as stream:
        return np.lib.format.read_array(stream, allow_pickle=False)


def _some(names: Iterable[str]) -> str:
    """Names for a message, of which there may be very many."""
    shown = [name if len(name) < 50 else f"{name[:50]}..." for name in itertools.islice(names, 21)]
    return ", ".join([*shown[:20], *(["..."] if len(shown) > 20 else [])])


def _as_data_error(error: BaseException, path: Path, remedy: str) -> DataError:
    if isinstance(error, DataError):
        return error
    kind = path.name.removesuffix(".gz").rpartition(".")[2] + (" in gzip" if path.suffix == ".gz" else "")
    return DataError(f"{path}: not a readable {kind} file ({reason(error)}); {remedy}")
