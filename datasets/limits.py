"""How far foreign files are believed: how much memory they may claim, and where they may lie."""

from __future__ import annotations

import functools
import os
import sys
from pathlib import Path

from .types import DataError

MOST_PER_BYTE = 1032
_CGROUPS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")


def refuse_claim(claimed: int, held: int, where: str) -> None:
    """Refuse a table of ``claimed`` bytes of which ``held`` are stored, before memory is taken for it.

    Deflate, the compression of all these files, makes at most :data:`MOST_PER_BYTE` bytes of one. A lower bound would refuse honest files:
    bags of words and one-hot labels in double precision do come close to it.

    Raises:
        DataError: too few bytes even if compressed, or more than the memory of this machine.
    """
    if claimed < 0 or claimed > MOST_PER_BYTE * held:
        raise DataError(
            f"{where} claims {claimed:,} bytes but {held:,} are stored, too few even if compressed; get the file again"
        )
    refuse_beyond_memory(claimed, where)


def refuse_beyond_memory(claimed: int, where: str) -> None:
    """Refuse what cannot be held.

    Raises:
        DataError: more bytes than the memory of this machine.
    """
    if claimed > memory():
        raise DataError(
            f"{where} has {claimed:,} bytes, but this machine has {memory():,} bytes of memory; take a larger machine or fewer rows"
        )


@functools.cache
def memory() -> int:
    """Bytes of memory of this machine, or of the container where that is less."""
    sizes = []
    if hasattr(os, "sysconf"):
        sizes.append(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    for path in map(Path, _CGROUPS):
        try:
            sizes.append(int(path.read_text()))
        except (OSError, ValueError):
            continue  # no such limit here
    return min((size for size in sizes if size > 0), default=sys.maxsize)


def refuse_outside(path: Path, folder: Path) -> None:
    """Refuse a file of the data set in ``folder`` that really lies elsewhere: a link may lead to any place under the same data root only.

    The data set's folder itself may be a link, which only the user can have set.

    Raises:
        DataError: the file lies neither beside nor below the folder, or its links lead in a circle.
    """
    try:
        real, home = path.resolve(), folder.resolve()
    except (OSError, RuntimeError) as error:
        raise DataError(f"{path}: its links lead nowhere ({error}); copy the file there") from error
    allowed = (home, home.parent, folder.parent.resolve())
    if not any(real.is_relative_to(place) for place in allowed):
        raise DataError(f"{path} is a link that leads out of {folder.parent}; copy the file there")
