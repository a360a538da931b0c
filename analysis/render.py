"""Printing a :class:`~nocobench.analysis.layout.Table`: terminal, plain text, Markdown, LaTeX with booktabs, tidy CSV.

Rounding happens here and nowhere else; CSV keeps full precision. Every format carries the caption and the footnotes.
"""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Callable
from typing import Any

import pandas as pd
from rich.console import Console
from rich.table import Table as RichTable
from rich.text import Text
from tabulate import tabulate

from ..results.measures import Measure
from .layout import Entry, Rate, Row, Table, rate_words

NOTHING = "–"


def to_terminal(table: Table, console: Console) -> None:
    """Print with bold and underline where the console can show them, else with the signs of :func:`to_text`."""
    if not console.is_terminal or console.no_color:
        console.file.write(to_text(table) + "\n")
        return
    shown = RichTable(box=None, pad_edge=False, header_style="bold")
    for position, words in enumerate(_head(table)):
        shown.add_column(words, justify="left" if position < 2 else "right", no_wrap=position != 1)
    styles = {"best": "bold", "second": "underline", "": ""}
    for row in table.rows:
        cells = [Text(_text_name(row)), Text(row.label)]
        for key in _keys(table):
            entry = row.entries[key]
            text = Text(number(entry, _measure(table, key)), style=styles[entry.rank])
            cells.append(text.append(_dagger(entry) + _brackets(entry.notes), style="not bold not underline"))
        shown.add_row(*cells, *(Text(_extra(row, one)) for one in table.extras), style="dim" if row.published else "")
    console.print(shown)
    console.print(Text(_plain_below(table, "bold", "underlined")))


def to_text(table: Table) -> str:
    """Plain text: the best in ``*asterisks*``, the second in ``_underscores_``, footnotes in brackets."""
    signs = {"best": "*{}*", "second": "_{}_", "": "{}"}

    def shown(entry: Entry, one: Measure) -> str:
        return signs[entry.rank].format(number(entry, one)) + _dagger(entry) + _brackets(entry.notes)

    rows = _body(table, lambda row: [_text_name(row), row.label], shown)
    align = ["left", "left", *["right"] * (len(_head(table)) - 2)]
    body = tabulate(rows, headers=_head(table), tablefmt="simple", disable_numparse=True, colalign=align)
    return f"{body}\n\n{_plain_below(table, '*asterisks*', '_underscores_')}"


def to_markdown(table: Table) -> str:
    """A pipe table between its caption and its footnotes."""
    signs = {"best": "**{}**", "second": "<u>{}</u>", "": "{}"}

    def superscript(notes: tuple[int, ...]) -> str:
        return f"<sup>{','.join(map(str, notes))}</sup>" if notes else ""

    def shown(entry: Entry, one: Measure) -> str:
        return signs[entry.rank].format(escape_markdown(number(entry, one))) + _dagger(entry) + superscript(entry.notes)

    rows = _body(
        table, lambda row: [escape_markdown(row.name) + superscript(row.notes), escape_markdown(row.label)], shown
    )
    head = [escape_markdown(words) for words in _head(table)]
    align = ["left", "left", *["right"] * (len(head) - 2)]
    body = tabulate(rows, headers=head, tablefmt="pipe", disable_numparse=True, colalign=align)
    notes = [f"<sup>{n}</sup> {escape_markdown(text)}" for n, text in enumerate(table.notes, 1)]
    marked = table.caption.replace("<best>", "\0").replace("<second>", "\1")
    caption = escape_markdown(marked).replace("\0", "**bold**").replace("\1", "<u>underlined</u>")
    return "\n\n".join([caption, body, *(["<br>\n".join(notes)] if notes else [])]) + "\n"


def to_latex(table: Table, label: str = "") -> str:
    r"""A ``table`` environment that needs ``\usepackage{booktabs}`` only; footnotes follow the caption."""
    signs = {"best": r"\textbf{{{}}}", "second": r"\underline{{{}}}", "": "{}"}

    def superscript(signs: str) -> str:
        return f"$^{{{signs}}}$" if signs else ""

    def shown(entry: Entry, one: Measure) -> str:
        marks = ",".join([*([r"\dagger"] if entry.tied else []), *map(str, entry.notes)])
        return signs[entry.rank].format(escape_latex(number(entry, one))) + superscript(marks)

    rows = _body(
        table,
        lambda row: [escape_latex(row.name) + superscript(",".join(map(str, row.notes))), escape_latex(row.label)],
        shown,
        escape_latex,
    )
    lines = [" & ".join(cells) + r" \\" for cells in rows]
    first_published = next((k for k, row in enumerate(table.rows) if row.published), None)
    if first_published:
        lines.insert(first_published, r"\midrule")
    marked = table.caption.replace("<best>", "\0").replace("<second>", "\1")
    caption = escape_latex(marked, keep="\0\1").replace("\0", r"\textbf{bold}").replace("\1", r"\underline{underlined}")
    notes = " ".join(f"$^{{{n}}}$ {escape_latex(text)}." for n, text in enumerate(table.notes, 1))
    spec = "ll" + "r" * (len(_head(table)) - 2)
    begin = [r"\begin{table}[t]", r"\centering\scriptsize\setlength{\tabcolsep}{2pt}"]
    begin += [f"\\caption{{{caption}{' ' + notes if notes else ''}}}"] + ([f"\\label{{{label}}}"] if label else [])
    inside = [
        f"\\begin{{tabular}}{{{spec}}}",
        r"\toprule",
        *_latex_head(table),
        r"\midrule",
        *lines,
        r"\bottomrule",
        r"\end{tabular}",
    ]
    return "\n".join([*begin, *inside, r"\end{table}"]) + "\n"


def tidy(table: Table) -> pd.DataFrame:
    """One row per method, rate and measure, full precision, holes included; what CSV holds."""
    rows: list[dict[str, Any]] = []
    for row in table.rows:
        fixed = {"row": row.name, "label": row.label, "flags": ";".join(row.flags), "published": row.published}
        for (rate, name), entry in row.entries.items():
            facts = {
                "rate": "real" if rate is None else rate,
                "measure": name,
                "mean": entry.mean,
                "std": entry.std,
                "n": entry.n,
            }
            notes = " | ".join(table.notes[number - 1] for number in (*row.notes, *entry.notes))
            marks = {
                "expected": entry.expected,
                "rank": entry.rank,
                "not_separable": entry.tied,
                "hole": entry.hole,
                "notes": notes,
            }
            rows.append({**table.keys, **fixed, **facts, **marks})
        for name, value in row.extras.items():
            rows.append({**table.keys, **fixed, "rate": "all", "measure": name, "mean": value})
    return pd.DataFrame(rows)


def to_csv(table: Table) -> str:
    """Tidy CSV of :func:`tidy`."""
    return tidy(table).to_csv(index=False, lineterminator="\n")


def number(entry: Entry, one: Measure) -> str:
    """``310.2 ± 1.4``, the mean alone for one seed, or the word for a hole."""
    if not entry.n:
        return entry.hole or NOTHING
    spread = f" ± {_rounded(entry.std, one)}" if entry.n > 1 else ""
    return _rounded(entry.mean, one) + spread


def escape_markdown(text: str) -> str:
    r"""So that it shows literally inside a table: ``|``, emphasis, HTML, line breaks."""
    escaped = "".join(f"\\{sign}" if sign in r"\`*_[]|~" else sign for sign in text)
    return " ".join(escaped.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;").split())


_LATEX = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"\textless{}", ">": r"\textgreater{}", "|": r"\textbar{}", '"': "''",
    "±": r"$\pm$", "†": r"$^{\dagger}$", "–": r"\textendash{}", "—": r"\textemdash{}", "[": "{[}", "]": "{]}", "*": "{*}",
    "→": r"$\rightarrow$", "×": r"$\times$", "·": r"$\cdot$",
    "≥": r"$\geq$", "≤": r"$\leq$", "ß": r"{\ss}", "ø": r"{\o}", "Ø": r"{\O}", "æ": r"{\ae}", "ł": r"{\l}", "’": "'", "“": "``", "”": "''",
    "…": r"\ldots{}",
}  # fmt: skip
_ACCENTS = {
    "\u0300": "`",
    "\u0301": "'",
    "\u0302": "^",
    "\u0303": "~",
    "\u0308": '"',
    "\u030a": "r ",
    "\u030c": "v ",
    "\u0327": "c ",
}


def escape_latex(text: str, keep: str = "") -> str:
    """Text that pdflatex prints literally with its default fonts; characters it does not know become ``[U+4E2D]``."""
    escaped = "".join(sign if sign in keep else _latex_sign(sign) for sign in text)
    return escaped.replace("--", "-{}-").replace("--", "-{}-")  # two hyphens would print as a dash


def _latex_sign(sign: str) -> str:
    if sign in _LATEX:
        return _LATEX[sign]
    if sign.isspace():
        return " "
    if sign.isascii():
        return sign if sign.isprintable() else ""
    parts = unicodedata.normalize("NFD", sign)
    if len(parts) == 2 and parts[0].isascii() and parts[1] in _ACCENTS:
        return f"\\{_ACCENTS[parts[1]]}{{{parts[0]}}}"
    return f"[U+{ord(sign):04X}]"


def _rounded(value: float, one: Measure) -> str:
    # Adding 0.0 turns -0.0, which rounding makes of small negative numbers, into 0.0.
    return NOTHING if math.isnan(value) else f"{round(value, one.decimals) + 0.0:,.{one.decimals}f}"


def _keys(table: Table) -> list[tuple[Rate, str]]:
    return [(rate, one.name) for rate, one in table.columns]


def _measure(table: Table, key: tuple[Rate, str]) -> Measure:
    return next(one for one in table.measures if one.name == key[1])


def _head(table: Table) -> list[str]:
    """``noise 0.2`` alone where there is one measure, else ``noise 0.2 i2t R@1``."""
    single = len(table.measures) == 1
    columns = [rate_words(rate) if single else f"{rate_words(rate)} {one.label}" for rate, one in table.columns]
    return ["run", "method", *columns, *(one.label for one in table.extras)]


def _body(
    table: Table,
    names: Callable[[Row], list[str]],
    shown: Callable[[Entry, Measure], str],
    escape: Callable[[str], str] = str,
) -> list[list[str]]:
    return [
        [
            *names(row),
            *(shown(row.entries[key], _measure(table, key)) for key in _keys(table)),
            *(escape(_extra(row, one)) for one in table.extras),
        ]
        for row in table.rows
    ]


def _latex_head(table: Table) -> list[str]:
    if len(table.measures) == 1:
        return [" & ".join(map(escape_latex, _head(table))) + r" \\"]
    width, extras = len(table.measures), [escape_latex(one.label) for one in table.extras]
    groups = [f"\\multicolumn{{{width}}}{{c}}{{{escape_latex(rate_words(rate))}}}" for rate in table.rates]
    rules = [f"\\cmidrule(lr){{{3 + k * width}-{2 + (k + 1) * width}}}" for k in range(len(table.rates))]
    labels = [escape_latex(one.label) for _, one in table.columns]
    upper = " & ".join(["", "", *groups, *[""] * len(extras)])
    return [upper + r" \\", "".join(rules), " & ".join(["run", "method", *labels, *extras]) + r" \\"]


def _extra(row: Row, one: Measure) -> str:
    return _rounded(row.extras.get(one.name, math.nan), one)


def _text_name(row: Row) -> str:
    return row.name + _brackets(row.notes)


def _dagger(entry: Entry) -> str:
    return "†" if entry.tied else ""


def _brackets(notes: tuple[int, ...]) -> str:
    return f" [{','.join(map(str, notes))}]" if notes else ""


def _plain_below(table: Table, best: str, second: str) -> str:
    notes = [f"[{n}] {text}" for n, text in enumerate(table.notes, 1)]
    return "\n".join([table.caption.replace("<best>", best).replace("<second>", second), *notes])
