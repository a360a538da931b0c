"""Files that appear complete or not at all, and names of folders that any file system takes."""

from __future__ import annotations

import contextlib
import errno
import functools
import hashlib
import os
import secrets
import stat
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

_LONGEST = 120
# How often a file is written again when somebody removed the temporary one: at most once per process that writes the same file.
_ATTEMPTS = 20
# Trouble of a whole file system: one sentence about its top folder, not one for every folder below.
_EVERYWHERE = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EROFS})


class StoreError(ValueError):
    """A record, snapshot or folder that cannot be used; one sentence: culprit, finding, remedy."""


class DiskError(StoreError):
    """The operating system does not let us write: full disk, read-only folder. Says nothing about what was to be written."""


class StoreWarning(RuntimeWarning):
    """The work goes on, but whoever waits for it must hear this: one sentence."""


@contextlib.contextmanager
def disk_errors(folder: Path, top: Path | None = None, option: str = "--results") -> Iterator[None]:
    """Turn what the operating system complains about into one sentence that names the folder.

    Args:
        folder: what was written to.
        top: named instead where the whole file system is full or read-only.
        option: the option of the command line that chooses another folder.

    Raises:
        DiskError: in place of any OSError.
    """
    try:
        yield
    except OSError as error:
        place = top if top is not None and error.errno in _EVERYWHERE else folder
        what = "results" if option == "--results" else "files"
        raise DiskError(
            f"{what} cannot be written to {place} ({error.strerror or error}); make it writable, free disk space, or choose another "
            f"folder with {option}"
        ) from error


def write_atomic(
    path: Path, content: bytes, overwrite: bool = True, top: Path | None = None, option: str = "--results"
) -> bool:
    """Write a file through a temporary one in the same folder, flushed to disk before it gets its name.

    What killed processes left of the same file is removed; so may be what another process is writing now, which then writes it again.
    ``top`` and ``option`` are for the error, see :func:`disk_errors`.

    Returns:
        False only with ``overwrite=False``, when the file was already there and is unchanged.

    Raises:
        DiskError: read-only folder, full disk.
    """
    with disk_errors(path.parent, top, option):
        for attempt in range(_ATTEMPTS):
            try:
                written = _write_once(path, content, overwrite)
                break
            except FileNotFoundError:
                if attempt == _ATTEMPTS - 1:
                    raise
        _flush_folder(path.parent)
    remove_temporaries(path)
    return written


def _write_once(path: Path, content: bytes, overwrite: bool) -> bool:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{_prefix(path)}{os.getpid()}.{secrets.token_hex(4)}.tmp")
    try:
        with open(temporary, "xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        return _give_name(temporary, path, overwrite)
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()


def remove_temporaries(path: Path) -> None:
    """Remove what interrupted writes of this file left; nothing happens where that is not allowed."""
    with contextlib.suppress(OSError):
        prefix = _prefix(path)
        for name in os.listdir(path.parent):
            if name.startswith(prefix) and name.endswith(".tmp"):
                path.with_name(name).unlink(missing_ok=True)


def read_ordinary(path: Path) -> bytes:
    """What a file holds; a pipe or a device, which could keep a reader waiting for ever, is an error.

    Raises:
        OSError: not readable, or no ordinary file.
    """
    mode = os.stat(path).st_mode
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):  # reading a folder is an error that says so
        raise OSError(errno.EINVAL, "a pipe or device instead of a file", str(path))
    return path.read_bytes()


def is_temporary(path: Path) -> bool:
    """Whether the file is what an interrupted :func:`write_atomic` leaves."""
    return path.name.startswith(".") and path.suffix == ".tmp"


def _prefix(path: Path) -> str:
    """How the temporary files of this one begin: at most as long as file systems allow."""
    return f".{path.name[-150:]}."


@functools.lru_cache(maxsize=4096)
def folder_name(text: str) -> str:
    """A readable name without separators or leading dots; long names end in a hash instead."""
    name = quote(text, safe=" +,=@")
    if name.startswith("."):
        name = "%2E" + name[1:]
    if len(name) > _LONGEST:
        name = f"{name[: _LONGEST - 17]}-{hashlib.sha256(text.encode()).hexdigest()[:16]}"
    return name


def _give_name(temporary: Path, path: Path, overwrite: bool) -> bool:
    if overwrite:
        os.replace(temporary, path)
        return True
    try:
        os.link(temporary, path)  # unlike os.replace, fails when another process was first
    except FileExistsError:
        return False
    except FileNotFoundError:
        raise
    except OSError:  # a file system without hard links
        if path.exists():
            return False
        os.replace(temporary, path)
    return True


def _flush_folder(folder: Path) -> None:
    # Not every system can open a folder; the file itself is already safe.
    with contextlib.suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
