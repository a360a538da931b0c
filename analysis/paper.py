"""Everything that a paper takes from records, in one folder: tables, figures, numbers, command lines, methods section, example document."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from ..results.files import write_atomic
from ..results.store import protocol_folder
from .export import record_table, to_csv
from .figures import Material
from .frame import AnalysisError, parts
from .latex import escape_latex, to_latex
from .layout import COMPACT, COMPACT_LABELS, PAPER, PAPER_LABELS, TableOptions
from .paper_figures import PaperFigure, paper_figures, plain_name
from .paper_methods import methods_text
from .tables import make_table

MOST_TABLE_LINES = 70  # in LaTeX; of scriptsize lines about as many fit a page with their caption
EXAMPLE = r"""% Uses everything in this folder; `pdflatex example.tex` twice. Tables need booktabs, figures need graphicx.
\documentclass[twocolumn]{article}
\usepackage[margin=0.75in]{geometry}
\usepackage{booktabs}
\usepackage{graphicx}
\title{Tables and figures from records}
\author{}
\date{}
\begin{document}
\maketitle
\section{Methods}
\input{methods}
\section{Results}
%REFERENCES%
%TABLES%
%FIGURES%
\end{document}
"""


def _tell(sentence: str) -> None:
    print(sentence, file=sys.stderr)


def write_kit(
    frame: pd.DataFrame, folder: Path, columns: str = "compact", say: Callable[[str], None] = _tell
) -> list[Path]:
    """Write the folder and name its files; the same records give the same bytes.

    Args:
        frame: as :func:`.frame.load_frame` gives it.
        folder: made where it does not exist; files of the same name are replaced, others left.
        columns: of the tables, ``compact`` or ``paper``.
        say: hears of records that are left out.

    Raises:
        AnalysisError: no record is finished.
        DiskError: the folder cannot be written.
    """
    if not (frame["status"] == "done").any():
        raise AnalysisError("no run here is finished; there is nothing to put into a paper")
    material = Material(frame, say)
    tables, figures = dict(_tables(frame, columns)), list(paper_figures(material))
    files: dict[str, bytes] = {f"tables/{name}.tex": text.encode() for name, text in tables.items()}
    for figure in figures:
        files[f"figures/{figure.name}.pdf"] = figure.pdf
        files[f"figures/{figure.name}.tex"] = _float(figure).encode()
    numbers = record_table(frame)
    numbers["path"] = ["/".join(Path(path).parts[-5:]) for path in numbers["path"]]  # seen from the folder of records
    files |= {
        "results.csv": to_csv(numbers).encode(),
        "commands.txt": commands_text(frame).encode(),
        "methods.tex": methods_text(frame).encode(),
        "example.tex": _example(list(tables), figures).encode(),
    }
    for name, content in files.items():
        write_atomic(folder / name, content, top=folder, option="--out")
    return [folder / name for name in files]


def commands_text(frame: pd.DataFrame) -> str:
    """The command lines that made the records, oldest first, as they were typed; each with the number of its records and its commit."""
    lines = [
        "# The command lines that made these records, as they were typed, oldest first; `#` lines say how many records and which commit.",
        "# The same command fills gaps only: a record that is there is not computed again.",
    ]
    made = frame.assign(git_dirty=frame["git_dirty"].eq(True))
    found = made.groupby(["command", "git_commit", "git_dirty", "device"], sort=True)
    for (command, commit, dirty, device), part in sorted(found, key=lambda one: (one[1]["started"].min(), one[0])):
        origin = f"commit {commit}" if commit else "no commit recorded"
        lines.append(
            f"\n# {len(part)} record{'s' * (len(part) != 1)}; {origin}{', with uncommitted changes' if dirty else ''}; device {device}"
        )
        lines.append(" ".join(str(command).split()) if command else "# these records keep no command line")
    return "\n".join(lines) + "\n"


def _tables(frame: pd.DataFrame, columns: str) -> Iterator[tuple[str, str]]:
    """Name and LaTeX of each."""
    known: set[str] = set()
    for keys, part in parts(frame):
        labels = keys["task"] == "label-hashing"
        wanted = {"compact": (COMPACT, COMPACT_LABELS), "paper": (PAPER, PAPER_LABELS)}[columns][labels]
        name = _table_name(keys, known)
        text = _one_table(part, wanted, name)
        if text.count("\n") <= MOST_TABLE_LINES or len(wanted) == 1:
            yield name, text
        else:  # too tall for a page
            for measure in wanted:
                single = f"{name}-{plain_name(measure)}"
                yield single, _one_table(part, (measure,), single)


def _one_table(part: pd.DataFrame, measures: Sequence[str], name: str) -> str:
    return to_latex(make_table(part, TableOptions(measures=tuple(measures))), f"tab:{name}")


def _table_name(keys: dict[str, Any], known: set[str]) -> str:
    folder = protocol_folder(keys["protocol"], keys["version"], json.loads(keys["overrides"] or "{}"))
    track = "" if keys["track"] == "fixed-budget" else f"-{keys['track']}"
    name = base = plain_name(f"{folder}-{keys['dataset']}-{keys['noise']}{track}")
    number = 1
    while name in known:
        number += 1
        name = f"{base}-{number}"
    known.add(name)
    return name


def _float(figure: PaperFigure) -> str:
    star = "*" if figure.wide else ""
    return "\n".join(
        [
            f"\\begin{{figure{star}}}[t]",
            r"\centering",
            f"\\includegraphics{{figures/{figure.name}.pdf}}",
            f"\\caption{{{escape_latex(figure.caption)}}}",
            f"\\label{{fig:{figure.name}}}",
            f"\\end{{figure{star}}}\n",
        ]
    )


def _example(tables: Sequence[str], figures: Sequence[PaperFigure]) -> str:
    shown = [f"Table~\\ref{{tab:{name}}}" for name in tables] + [f"Figure~\\ref{{fig:{one.name}}}" for one in figures]
    inputs = {
        "%REFERENCES%": "Shown are " + ", ".join(shown) + ".",
        "%TABLES%": "\n".join(f"\\input{{tables/{name}}}" for name in tables),
        "%FIGURES%": "\n".join(f"\\input{{figures/{one.name}}}" for one in figures),
    }
    text = EXAMPLE
    for mark, words in inputs.items():
        text = text.replace(mark, words)
    return text
