"""Index files of the noise model ``replay``, looked at before anything is trained: there, readable, and no larger than they say."""

from __future__ import annotations

import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from string import Formatter
from typing import Any

from ..datasets.files import npy_header, read_npz
from ..datasets.types import DataError
from .protocol import Protocol, ProtocolError

OPTIONS = ("file", "key", "sha256")


def check_noise_files(protocol: Protocol, rates: Iterable[float | None]) -> None:
    """Look at the file of every rate, where the protocol's noise comes from files.

    Raises:
        ProtocolError: options that are no texts, or hold another placeholder than ``{rate}``.
        DataError: a file that is missing, damaged, or larger than it may be.
    """
    if protocol.noise.model != "replay":
        return
    options = protocol.noise.options
    files = options.get("files") or {}
    if not isinstance(files, Mapping):
        raise ProtocolError(f"protocol {protocol.name}: noise.options.files is {files!r}; give a file for each rate")
    for key, value in {**{name: options.get(name, "") for name in OPTIONS}, **files}.items():
        _refuse_pattern(protocol.name, key, value)
    for rate in {rate for rate in rates if rate is not None}:
        file = (files.get(f"{rate:g}") or options.get("file", "")).replace("{rate}", f"{rate:g}")
        _check_file(file, options.get("key", "").replace("{rate}", f"{rate:g}"))


def _refuse_pattern(protocol: str, key: str, value: Any) -> None:
    try:
        fields = [field[1:] for field in Formatter().parse(value) if field[1] is not None]
    except (TypeError, ValueError) as error:
        raise ProtocolError(f"protocol {protocol}: noise option {key!r} is {value!r}; give a text ({error})") from error
    if any(field != ("rate", "", None) for field in fields):
        raise ProtocolError(f"protocol {protocol}: noise option {key!r} is {value!r}; the only placeholder is {{rate}}")


def _check_file(file: str, key: str) -> None:
    try:
        path = Path(file).expanduser()
        found = path.is_file()
    except (RuntimeError, ValueError, OSError) as error:
        raise DataError(f"{file!r} is no path of a noise index file ({error}); give another one") from error
    if not found:
        raise DataError(f"{path}: no such noise index file; give the path of a published .npy or .npz file")
    if zipfile.is_zipfile(path):
        read_npz(path, [key])
    else:
        npy_header(path)
