"""Files that appear complete or not at all, and names of folders that any file system takes."""

from __future__ import annotations

import contextlib
import hashlib
import os
import secrets
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

_LONGEST = 120


class StoreError(ValueError):
    """A record, snapshot or folder that cannot be used; one sentence: culprit, finding, remedy."""


@contextlib.contextmanager
def disk_errors(folder: Path) -> Iterator[None]:
    """Turn what the operating system complains about into one sentence that names the folder.

    Raises:
        StoreError: in place of any OSError.
    """
    try:
        yield
    except OSError as error:
        raise StoreError(
            f"results cannot be written to {folder} ({error.strerror or error}); make it writable, free disk space, or choose another "
            "folder with --results"
        ) from error


def write_atomic(path: Path, content: bytes, overwrite: bool = True) -> bool:
    """Write a file through a temporary one in the same folder, flushed to disk before it gets its name.

    Returns:
        False only with ``overwrite=False``, when the file was already there and is unchanged.

    Raises:
        StoreError: read-only folder, full disk.
    """
    with disk_errors(path.parent):
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}.tmp")
        try:
            with open(temporary, "xb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            written = _give_name(temporary, path, overwrite)
        finally:
            temporary.unlink(missing_ok=True)
        _flush_folder(path.parent)
    return written


def is_temporary(path: Path) -> bool:
    """Whether the file is what an interrupted :func:`write_atomic` leaves."""
    return path.name.startswith(".") and path.suffix == ".tmp"


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
