"""The commands ``paper``, ``compare`` and ``export``: records handed on to a paper, another machine or another program."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

from .choice import add_filters, add_source, chosen_records, deliver, either_side

PROGRAM = "python run_benchmark.py"
DESCRIPTIONS = {
    "paper": "A folder for a paper: LaTeX tables, PDF figures, results.csv, the command lines behind them, a methods paragraph, and a "
    "document that uses them all.",
    "compare": "Two folders of records: which cells have the same outcomes, how far the others differ, what changed in how they were "
    "made. Exit code 0 when both are equal, 1 when they differ.",
    "export": "All records as one table, a row each (CSV, Parquet; columns: docs/export.md), or a leaderboard in Markdown.",
}
EXAMPLES = {
    "paper": f"""examples:
  {PROGRAM} paper --out paper
  {PROGRAM} paper --from reference --datasets digits --methods npc@paper hana clip@paper --out paper
  cd paper && pdflatex example.tex""",
    "compare": f"""examples:
  {PROGRAM} compare runs reference
  {PROGRAM} compare ~/old/results ~/new/results --format markdown --out changes.md
  {PROGRAM} compare laptop/results server/results --methods npc --format csv""",
    "export": f"""examples:
  {PROGRAM} export --out results.csv
  {PROGRAM} export --from reference --format parquet --out results.parquet
  {PROGRAM} export --from reference --format leaderboard --out leaderboard.md""",
}


def _paper_arguments(parser: argparse.ArgumentParser) -> None:
    add_source(parser)
    add_filters(parser)
    parser.add_argument("--columns", choices=["compact", "paper"], default="compact",
                        help="of the tables: rSum or mean MAP, or every recall or MAP of both ways (default: %(default)s)")  # fmt: skip
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="files of the same name are replaced")


def _compare_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "a", metavar="A", help="runs, reference, or a folder: of records, or of results with runs in it"
    )
    parser.add_argument("b", metavar="B", help="the same")
    add_filters(parser)
    parser.add_argument("--format", choices=["terminal", "markdown", "csv"], default="terminal",
                        help="csv: a row per cell (default: %(default)s)")  # fmt: skip
    parser.add_argument("--out", type=Path, metavar="FILE", help="write there instead of printing")


def _export_arguments(parser: argparse.ArgumentParser) -> None:
    add_source(parser)
    add_filters(parser)
    parser.add_argument(
        "--format", choices=["csv", "parquet", "leaderboard"], default="csv", help="(default: %(default)s)"
    )
    parser.add_argument("--out", type=Path, metavar="FILE", help="write there instead of printing")


ARGUMENTS: dict[str, Callable[[argparse.ArgumentParser], None]] = {
    "paper": _paper_arguments,
    "compare": _compare_arguments,
    "export": _export_arguments,
}


def paper(given: argparse.Namespace) -> int:
    """Write the folder and name its files.

    Raises:
        AnalysisError: no such records, or none is finished.
    """
    from .paper import write_kit

    for path in write_kit(chosen_records(given), given.out, given.columns):
        print(path)
    return 0


def compare(given: argparse.Namespace) -> int:
    """Print or write how two sets of records differ; 0 when they are equal, else 1.

    Raises:
        AnalysisError: a folder does not exist, or neither side has a record.
    """
    from .compare import compare_frames, report

    found = compare_frames(either_side(given, given.a), either_side(given, given.b))
    page = report(found, (given.a, given.b))
    texts: dict[str, Callable[[], str]] = {
        "terminal": page.text,
        "markdown": page.markdown,
        "csv": lambda: found.cells.to_csv(index=False, lineterminator="\n"),
    }
    deliver(texts[given.format](), given.out)
    return 0 if found.equal else 1


def export(given: argparse.Namespace) -> int:
    """Write or print all records as one table, or a leaderboard.

    Raises:
        AnalysisError: no such records; Parquet without a file or without pyarrow; nothing to rank.
    """
    from .export import record_table, to_csv, write_parquet
    from .frame import AnalysisError

    if given.format == "parquet" and given.out is None:
        raise AnalysisError("a Parquet file is not printed; say where it goes with --out FILE")
    frame = chosen_records(given)
    if given.format == "leaderboard":
        from .leaderboard import leaderboard

        deliver(leaderboard(frame), given.out)
    elif given.format == "csv":
        deliver(to_csv(record_table(frame)), given.out)
    else:
        write_parquet(record_table(frame), given.out)
        print(given.out)
    return 0


COMMANDS: dict[str, Callable[[argparse.Namespace], int]] = {"paper": paper, "compare": compare, "export": export}
