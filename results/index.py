"""What was once computed from a file, kept by the sha256 of its bytes: reading ten thousand records again takes seconds.

A kept row is used only for the very bytes it was computed from, under any name and date: a record that was edited, or in which a bit
flipped, has another digest and is read and checked anew. For that each file is read in full, which takes a twentieth of the time of parsing
and checking it. Sizes and dates of files play no part, because neither changes when a disk goes bad.

The index of a folder is one JSON file under ``$NOCOBENCH_CACHE`` (``off`` for none), else ``$XDG_CACHE_HOME/nocobench`` or
``~/.cache/nocobench``; nothing is written beside the records, whose folder may be read-only. It may be deleted at any time, is ignored
where it is damaged or made by other code, and appears complete or not at all. Whoever may write there may change what tables show: let
the folder be the user's own.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from .files import StoreError, write_atomic
from .record import digest_of

FORMAT = 1
VARIABLE = "NOCOBENCH_CACHE"
# Writing the index costs as much as computing about a thirtieth of its rows again: it is written when that pays.
FEWEST, SHARE = 100, 20
Row = tuple[Any, ...]


def cache_folder() -> Path | None:
    """Where indices lie; None where the user wants none."""
    chosen = os.environ.get(VARIABLE)
    if chosen:
        return None if chosen == "off" else Path(chosen).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "nocobench"


class Index:
    """Rows of the files under ``root`` by digest.

    Args:
        root: the folder of the files.
        columns: names of the values of a row; values are numbers, strings, booleans, None, or tuples of strings.
        code: Python files (or anything) whose bytes decide what a row says: after a change of them no old row is used.
        more: what else decides, such as versions of libraries.
    """

    def __init__(self, root: Path, columns: Sequence[str], code: Iterable[Path], more: Sequence[str] = ()) -> None:
        self.root, self.columns = str(Path(root).resolve()), tuple(columns)
        self._identity = _identity(self.columns, tuple(code), tuple(more))
        folder = cache_folder()
        self.path = None if folder is None else folder / f"{hashlib.sha256(self.root.encode()).hexdigest()[:24]}.json"
        self._old = {} if self.path is None else self._read(self.path)
        self._used: dict[str, Row] = {}
        self.fresh = 0

    def forget(self) -> None:
        """Take no old row; all are computed again."""
        self._old = {}

    def get(self, digest: str) -> Row | None:
        """The row of a file with this digest; None where it must be computed."""
        row = self._old.get(digest)
        if row is not None:
            self._used[digest] = row
        return row

    def put(self, digest: str, row: Row) -> None:
        """Keep a row."""
        self._used[digest] = row
        self.fresh += 1

    def save(self) -> bool:
        """Write what was used since the index was opened, if enough of it is new; whether it was written.

        A folder that cannot be written costs time at the next reading and nothing else, so that it is no error.
        """
        if self.path is None or self.fresh < max(FEWEST, len(self._used) // SHARE):
            return False
        body = json.dumps(_packed(self.columns, self._used), separators=(",", ":")).encode()
        head = {
            "format": FORMAT,
            "identity": self._identity,
            "root": self.root,
            "body": hashlib.sha256(body).hexdigest(),
        }
        try:
            write_atomic(self.path, json.dumps(head).encode() + b"\n" + body)
        except StoreError:
            return False
        _drop_orphans(self.path.parent)
        return True

    def _read(self, path: Path) -> dict[str, Row]:
        try:
            first, _, body = path.read_bytes().partition(b"\n")
            head = json.loads(first)
            wanted = {"format": FORMAT, "identity": self._identity, "root": self.root}
            if {**head, **wanted} != head or head["body"] != hashlib.sha256(body).hexdigest():
                return {}
            return _unpacked(json.loads(body))
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            return {}


@functools.cache
def _identity(columns: tuple[str, ...], code: tuple[Path, ...], more: tuple[str, ...]) -> str:
    return digest_of([columns, [hashlib.sha256(path.read_bytes()).hexdigest() for path in code], more])


def _packed(columns: Sequence[str], rows: dict[str, Row]) -> dict[str, Any]:
    """By column; strings, which repeat themselves, as numbers into a list of the different ones."""
    packed: dict[str, Any] = {"digests": list(rows), "columns": []}
    for values in zip(*rows.values(), strict=True) if rows else [()] * len(columns):
        if values and all(isinstance(value, str | tuple) for value in values):
            places: dict[Any, int] = {}
            numbers = [places.setdefault(value, len(places)) for value in values]
            packed["columns"].append({"texts": list(places), "places": numbers})
        elif any(isinstance(value, tuple) for value in values):
            packed["columns"].append({"mixed": values})
        else:
            packed["columns"].append(values)
    return packed


def _unpacked(packed: dict[str, Any]) -> dict[str, Row]:
    columns = []
    for values in packed["columns"]:
        if not isinstance(values, dict):
            columns.append(values)
        elif "mixed" in values:
            columns.append(_tuples(values["mixed"]))
        else:
            texts = _tuples(values["texts"])
            columns.append([texts[place] for place in values["places"]])
    return dict(zip(packed["digests"], zip(*columns, strict=True), strict=True))


def _tuples(values: list[Any]) -> list[Any]:
    """JSON knows lists only."""
    return [tuple(value) if isinstance(value, list) else value for value in values]


def _drop_orphans(folder: Path) -> None:
    """Indices of folders that are gone."""
    for path in folder.glob("*.json"):
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            with open(path, "rb") as file:
                root = json.loads(file.readline())["root"]
            if not Path(root).exists():
                path.unlink()
