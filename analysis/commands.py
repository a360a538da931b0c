"""The commands ``tables``, ``figures``, ``significance`` and ``report``, and the short table after a run; from records only."""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ..results.record import CellKey, RunRecord
from . import handover
from .choice import add_filters, add_source, chosen_records, deliver

# pandas and matplotlib take seconds to import: they come in only when a command runs, not for its --help.
if TYPE_CHECKING:
    import pandas as pd

    from .layout import Rate, Table, TableOptions

FORMATS = ("terminal", "markdown", "latex", "csv")
PROGRAM = "python run_benchmark.py"

DESCRIPTIONS = {
    "tables": "Paper-style tables from records: one per protocol, data set and noise model.",
    "figures": "Figures from records, as PNG and SVG; the same records give the same bytes.",
    "significance": "Which methods can be told apart: intervals, tests over blocks and over queries, with their caveats.",
    "report": "One HTML page with everything that records say; it needs no network, no torch and no GPU, and the same records give the "
    "same bytes.",
    **handover.DESCRIPTIONS,
}
EXAMPLES = {
    "tables": f"""examples:
  {PROGRAM} tables
  {PROGRAM} tables --columns paper --format latex --out table.tex
  {PROGRAM} tables --variants-of npc --honesty
  {PROGRAM} tables --from reference --protocol wikipedia-labels --sensitivity rshnl@released
  {PROGRAM} tables --datasets flickr30k-clip --published NPC DECL-SGRAF
  {PROGRAM} tables --from reference --datasets digits""",
    "figures": f"""examples:
  {PROGRAM} figures
  {PROGRAM} figures --kinds weight-density validation-curves --methods hana npc --noise 0.4
  {PROGRAM} figures --from reference --out figures""",
    "significance": f"""examples:
  {PROGRAM} significance --methods npc clip
  {PROGRAM} significance --measure mean_r1 --datasets digits emoji
  {PROGRAM} significance --methods npc clip hana --equivalence 2""",
    "report": f"""examples:
  {PROGRAM} report                        # your runs, to results/report/index.html
  {PROGRAM} report --from reference       # the records that come with the suite
  {PROGRAM} report --methods npc hana --details 500 --out page""",
    **handover.EXAMPLES,
}


def _tables_arguments(parser: argparse.ArgumentParser) -> None:
    add_source(parser)
    add_filters(parser)
    group = parser.add_argument_group("how to print")
    group.add_argument("--format", choices=FORMATS, default="terminal", help="(default: %(default)s)")
    group.add_argument("--columns", choices=["compact", "paper"], default="compact",
                       help="rSum or mean MAP only, or every recall or MAP of both ways (default: %(default)s)")  # fmt: skip
    group.add_argument(
        "--honesty", action="store_true", help="networks at test, parameters, seconds, optimism gap, ..."
    )
    group.add_argument("--published", nargs="*", metavar="NAME",
                       help="rows for what papers print on the same data set, rates and level of noise: of the methods in the table, or of "
                            "these names, as printed; for labels also papers (rshnl, mgsh), whose own tables follow where we lack the "
                            "data (results/published)")  # fmt: skip
    group.add_argument("--variants-of", metavar="METHOD", help="the variants of one method only")
    group.add_argument("--sensitivity", metavar="METHOD", help="what each variant and each changed setting does to METHOD[@VARIANT], "
                       "in points with intervals")  # fmt: skip
    group.add_argument("--strict", action="store_true", help="refuse a table with holes")
    group.add_argument("--mixed", action="store_true", help="several protocols in one table, each row saying which")
    group.add_argument("--out", type=Path, metavar="FILE", help="write there instead of printing")


def _figures_arguments(parser: argparse.ArgumentParser) -> None:
    add_source(parser)
    add_filters(parser)
    # map-vs-noise and map-curves are other names of rsum-vs-noise and validation-curves.
    parser.add_argument("--kinds", nargs="+", metavar="KIND",
                        help="weight-density, clean-probability-density, loss-density, similarity-density, precision-recall, "
                        "rsum-vs-noise, "
                        "validation-curves, auc-curves, critical-difference, performance-profile (default: all)")  # fmt: skip
    parser.add_argument("--out", type=Path, metavar="DIR", help="(default: figures/ in the results folder)")


def _significance_arguments(parser: argparse.ArgumentParser) -> None:
    add_source(parser)
    add_filters(parser)
    parser.add_argument("--measure", metavar="NAME", help="what is compared (default: rsum, or mean_map for labels)")
    parser.add_argument("--equivalence", type=float, metavar="POINTS",
                        help="also ask which methods are practically equal: within +-POINTS of the measure, such as 2 of rsum")  # fmt: skip
    parser.add_argument("--format", choices=["terminal", "markdown"], default="terminal", help="(default: %(default)s)")
    parser.add_argument("--out", type=Path, metavar="FILE", help="write there instead of printing")


def _report_arguments(parser: argparse.ArgumentParser) -> None:
    add_source(parser)
    add_filters(parser)
    parser.add_argument(
        "--title", default="NoCoBench report", metavar="TEXT", help="above the page (default: %(default)s)"
    )
    parser.add_argument("--details", type=int, metavar="N",
                        help="curves over epochs, densities and queries for at most N rows of the results, a row being a method at one "
                        "data set, noise rate and length of codes (default: 200; 0 for none)")  # fmt: skip
    parser.add_argument("--out", type=Path, metavar="DIR", help="(default: report/ in the results folder)")


ARGUMENTS: dict[str, Callable[[argparse.ArgumentParser], None]] = {
    "tables": _tables_arguments,
    "figures": _figures_arguments,
    "significance": _significance_arguments,
    "report": _report_arguments,
    **handover.ARGUMENTS,
}


def after_run(results: Path, cells: Sequence[CellKey], is_stale: Callable[[RunRecord], bool]) -> None:
    """Print the short table of these cells, where everything lies, and what one may want next."""
    runs = results / "runs"
    if runs.is_dir():
        for table in _short_tables(runs, cells, is_stale):
            print()
            _show(table)
    print(f"\nrecords: {runs}")
    where = f" --results {shlex.quote(str(results))}"
    print(
        "next:",
        *(f"  {PROGRAM} {command}{where}" for command in ("tables", "figures", "significance", "report")),
        sep="\n",
    )


def _short_tables(runs: Path, cells: Sequence[CellKey], is_stale: Callable[[RunRecord], bool]) -> Iterator[Table]:
    from .frame import load_frame, parts
    from .tables import TableOptions, make_table

    # Other records may be of methods that nobody has loaded now.
    frame = load_frame([runs], stale=is_stale, cells={cell.cell_id for cell in cells})
    for keys, part in parts(frame):
        mine = [cell for cell in cells if (cell.protocol, cell.dataset) == (keys["protocol"], keys["dataset"])]
        options = TableOptions(
            methods=tuple(dict.fromkeys(f"{cell.method}@{cell.variant}" for cell in mine)),
            rates=tuple(dict.fromkeys(_place(cell) for cell in mine)),
            seeds=tuple(dict.fromkeys(cell.seed for cell in mine)),
        )
        yield make_table(part, options)


def _place(cell: CellKey) -> Rate:
    from .layout import Coded

    return Coded(cell.rate, cell.bits) if cell.task == "label-hashing" else cell.rate


def tables(given: argparse.Namespace) -> int:
    """Print or write all tables that the records give.

    Raises:
        AnalysisError: no such records, or a hole under ``--strict``.
    """
    from .frame import parts
    from .tables import make_table, variants_table

    frame = chosen_records(given)
    if given.sensitivity:
        from .sensitivity import sensitivity_text

        deliver(sensitivity_text(frame, given.sensitivity, given.format), given.out)
        return 0
    if given.mixed:
        groups = [part for _, part in frame.groupby("task", sort=True)]
    else:
        groups = [part for _, part in parts(frame)]
    if given.variants_of:
        groups = _with_method(groups, given.variants_of)
        made = [variants_table(part, given.variants_of, _options(given, part)) for part in groups]
    else:
        made = [make_table(part, _options(given, part)) for part in groups]
    if given.published is not None:
        made = _beside_published(made, given.published)
    if given.out is None and given.format == "terminal":
        for table in made:
            _show(table)
            print()
        return 0
    deliver(_texts(made, given.format), given.out)
    return 0


def _beside_published(made: Sequence[Table], names: Sequence[str]) -> list[Table]:
    """With what papers print; of label-based retrieval also the papers' own tables of data sets that are not here, if asked for by name."""
    from .published import load_published, with_published
    from .published_labels import chosen, load_published_labels, published_tables, with_published_labels

    pairs = [table for table in made if table.keys["task"] == "pair-retrieval"]
    labels = [table for table in made if table.keys["task"] == "label-hashing"]
    found: list[Table] = []
    if pairs:
        published = load_published()
        found += [with_published(table, published, names or None) for table in pairs]
    if labels:
        printed = chosen(load_published_labels(), names)
        found += [with_published_labels(table, printed) for table in labels]
        if names:
            found += published_tables(printed, [str(table.keys["dataset"]) for table in labels])
    return found


def _options(given: argparse.Namespace, part: pd.DataFrame) -> TableOptions:
    from .layout import COMPACT, COMPACT_LABELS, HONESTY, HONESTY_LABELS, PAPER, PAPER_LABELS, TableOptions

    labels = bool((part["task"] == "label-hashing").any())
    compact, paper, honesty = (COMPACT_LABELS, PAPER_LABELS, HONESTY_LABELS) if labels else (COMPACT, PAPER, HONESTY)
    return TableOptions(
        measures=paper if given.columns == "paper" else compact,
        extras=honesty if given.honesty else (),
        strict=given.strict,
        mixed=given.mixed,
    )


def figures(given: argparse.Namespace) -> int:
    """Draw all figures that the records give and name the files.

    Raises:
        AnalysisError: no such records or kind of figure, or nothing to draw.
    """
    from .figures import chosen_kinds, draw_all

    kinds = chosen_kinds(given.kinds)  # a slip is told before anything is read
    folder = given.out or given.results / "figures"
    for path in draw_all(chosen_records(given), folder, kinds):
        print(path)
    return 0


def significance(given: argparse.Namespace) -> int:
    """Print which methods can be told apart.

    Raises:
        AnalysisError: no such records or measure, or fewer than two methods.
    """
    from .significance_report import significance_report

    report = significance_report(chosen_records(given), measure=given.measure, points=given.equivalence)
    deliver(report.markdown() if given.format == "markdown" else report.text(), given.out)
    return 0


def report(given: argparse.Namespace) -> int:
    """Write the page and name its file.

    Raises:
        AnalysisError: no such records.
        DiskError: the folder cannot be written.
    """
    from .frame import AnalysisError
    from .report import ReportOptions, write_report
    from .report_details import DETAILS

    runs = given.results / "runs"
    if given.source == ["runs"] and not any(runs.glob("*/*/*/*/*.json")):
        raise AnalysisError(
            f"there are no records in {runs} to report on; make some with `{PROGRAM} --methods hana npc --noise 0.2 0.4 0.6 0.8`, or see "
            f"those that come with the suite with `{PROGRAM} report --from reference`"
        )
    if given.details is not None and given.details < 0:
        raise AnalysisError(f"--details {given.details} is no number of rows; give 0 or more")
    options = ReportOptions(
        title=given.title,
        command=f"{PROGRAM} {' '.join(['report', *_chosen_words(given)])}",
        details=DETAILS if given.details is None else given.details,
        every_variant=any("@" in method for method in given.methods),
    )
    print(write_report(chosen_records(given), given.out or given.results / "report", options))
    return 0


def _chosen_words(given: argparse.Namespace) -> list[str]:
    """The options that chose the records, as one would type them."""
    words = [] if given.source == ["runs"] else ["--from", *given.source]
    for name in ("protocol", "datasets", "methods", "noise", "seeds", "bits"):
        values = [f"{value:g}" if isinstance(value, float) else str(value) for value in getattr(given, name)]
        words += [f"--{name}", *values] if values else []
    words += [] if given.gallery == "headline" else ["--gallery", given.gallery]
    return [shlex.quote(word) for word in words]


COMMANDS: dict[str, Callable[[argparse.Namespace], int]] = {
    "tables": tables,
    "figures": figures,
    "significance": significance,
    "report": report,
    **handover.COMMANDS,
}


def _with_method(groups: Sequence[pd.DataFrame], method: str) -> list[pd.DataFrame]:
    """The groups that have the method; all of them, for the error of the table, where none has."""
    return [part for part in groups if (part["method"] == method).any()] or list(groups)


def _show(table: Table) -> None:
    from rich.console import Console

    from .render import to_terminal

    to_terminal(table, Console())


def _texts(tables: Sequence[Table], form: str) -> str:
    from . import latex, render

    if form == "csv":
        import pandas as pd

        return pd.concat([render.tidy(table) for table in tables]).to_csv(index=False)
    write = {"terminal": render.to_text, "markdown": render.to_markdown, "latex": latex.to_latex}[form]
    return "\n".join(write(table).rstrip("\n") + "\n" for table in tables)
