"""Options that all commands on records share, and the records that they choose."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..results.files import write_atomic

# pandas takes a second to import: it comes in only when a command runs, not for its --help.
if TYPE_CHECKING:
    import pandas as pd


def add_source(parser: argparse.ArgumentParser) -> None:
    """``--from``: which folders of records."""
    parser.add_argument("--from", dest="source", nargs="+", default=["runs"], metavar="runs|reference|DIR",
                        help="records of your runs, those published with the suite, or other folders (default: runs)")  # fmt: skip


def add_filters(parser: argparse.ArgumentParser) -> None:
    """Which of their records."""
    group = parser.add_argument_group("which records (default: all)")
    group.add_argument("--protocol", nargs="+", default=[], metavar="NAME")
    group.add_argument("--datasets", "--dataset", nargs="+", default=[], metavar="NAME")
    group.add_argument("--methods", nargs="+", default=[], metavar="METHOD", help="npc (all variants) or npc@paper")
    group.add_argument("--noise", nargs="+", type=float, default=[], metavar="RATE")
    group.add_argument("--seeds", nargs="+", type=int, default=[], metavar="SEED")
    group.add_argument("--bits", nargs="+", type=int, default=[], metavar="N", help="lengths of codes (label-hashing)")
    group.add_argument("--gallery", choices=["headline", "full", "folds"], default="headline",
                       help="scores on the whole test split, or mean over folds (default: what the protocol reports)")  # fmt: skip


def roots_of(sources: Sequence[str], results: Path) -> list[Path]:
    """Folders of records; a whole results folder stands for the runs in it.

    Raises:
        AnalysisError: reference records are asked for, and there are none; a home folder of nobody.
    """
    from .frame import AnalysisError

    roots: list[Path] = []
    for source in sources:
        if source == "runs":
            roots.append(results / "runs")
        elif source == "reference":
            found = sorted(path for path in (results / "reference").glob("*") if path.is_dir())
            if not found:
                raise AnalysisError(f"there are no reference records in {results / 'reference'}")
            roots += found
        else:
            try:
                folder = Path(source).expanduser()
            except RuntimeError as error:  # ~nobody
                raise AnalysisError(f"folder {source!r} cannot be found: {error}") from error
            roots.append(folder / "runs" if (folder / "runs").is_dir() else folder)
    return roots


def chosen_records(given: argparse.Namespace) -> pd.DataFrame:
    """The records of ``--from`` that the filters leave.

    Raises:
        AnalysisError: no such folder, value or method, or nothing is left.
    """
    from .frame import AnalysisError, load_frame, select

    frame = load_frame(roots_of(given.source, given.results), given.gallery)
    frame = select(frame, **_wanted(given))
    names = frame["method"] + "@" + frame["variant"]
    for method in given.methods:
        if not ((frame["method"] == method) | (names == method)).any():
            raise AnalysisError(f"no record is of method {method!r}; present are {', '.join(sorted(set(names)))}")
    frame = _of_methods(frame, given.methods)
    if frame.empty:
        raise AnalysisError("no record is left by the choice of protocols, data sets, methods, rates and seeds")
    return frame


def either_side(given: argparse.Namespace, source: str) -> pd.DataFrame:
    """The same for one of two sides, which need not have what the other one has.

    Raises:
        AnalysisError: no such folder.
    """
    from .frame import load_frame

    frame = load_frame(roots_of([source], given.results), given.gallery)
    for column, values in _wanted(given).items():
        frame = frame[frame[column].isin(values)]
    return _of_methods(frame, given.methods)


def deliver(text: str, out: Path | None) -> None:
    """Print, or write to a file and print its name."""
    if out is None:
        print(text, end="")
        return
    write_atomic(out, text.encode(), option="--out")
    print(out)


def _wanted(given: argparse.Namespace) -> dict[str, Any]:
    wanted: dict[str, Any] = {
        "protocol": given.protocol,
        "dataset": given.datasets,
        "rate": given.noise,
        "seed": given.seeds,
        "bits": given.bits,
    }
    return {column: values for column, values in wanted.items() if values}


def _of_methods(frame: pd.DataFrame, methods: Sequence[str]) -> pd.DataFrame:
    """``npc`` takes all variants."""
    if not methods:
        return frame
    names = frame["method"] + "@" + frame["variant"]
    return frame[frame["method"].isin(methods) | names.isin(methods)]
