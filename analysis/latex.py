r"""Tables in LaTeX: a ``table`` environment that needs ``\usepackage{booktabs}`` and nothing else; footnotes follow the caption."""

from __future__ import annotations

import itertools
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

from ..results.measures import Measure
from .layout import Coded, Entry, Rate, Row, Table, rate_words
from .render import digits, extra, legend, measure_of

# Characters of \\scriptsize that fit into one column and into both columns of a two-column article.
ONE_COLUMN, TWO_COLUMNS = 60, 124
_SIGNS = {"best": r"\textbf{{{}}}", "second": r"\underline{{{}}}", "": "{}"}


def to_latex(table: Table, label: str = "") -> str:
    r"""Rows are named ``method@variant``; what each is called stands in the caption. ``label`` is for ``\ref``.

    What is too wide for a page has the extra columns below the others, or the rates below each other too.
    """
    blocks = _coded_blocks(table) if any(isinstance(place, Coded) for place in table.rates) else _blocks(table)
    width = _width(table, blocks)
    name, size = "table*" if width > ONE_COLUMN else "table", "tiny" if width > TWO_COLUMNS else "scriptsize"
    columns = max(len(block.heads) for block in blocks)
    lines = [_padded_block(table, block, columns) for block in blocks]
    return "\n".join(
        [
            f"\\begin{{{name}}}[t]",
            f"\\centering\\{size}\\setlength{{\\tabcolsep}}{{2pt}}",
            f"\\caption{{{_caption(table)}}}",
            *([f"\\label{{{label}}}"] if label else []),
            f"\\begin{{tabular}}{{l{'r' * columns}}}",
            r"\toprule",
            "\n\\midrule\n".join(lines),
            r"\bottomrule",
            r"\end{tabular}",
            f"\\end{{{name}}}\n",
        ]
    )


@dataclass(frozen=True)
class _Block:
    """Columns side by side under heads of their own: rates, each with all measures, then extras."""

    keys: tuple[tuple[Rate, str], ...]
    extras: tuple[Measure, ...]
    upper: tuple[tuple[str, int], ...]
    heads: tuple[str, ...]


def _blocks(table: Table) -> list[_Block]:
    blocks = [_block(table, table.rates, table.extras)]
    if _width(table, blocks) > TWO_COLUMNS and table.extras:
        blocks = [_block(table, table.rates), _block(table, (), table.extras)]
    if _width(table, blocks) > TWO_COLUMNS:
        blocks = [_block(table, (rate,)) for rate in table.rates]
        blocks += [_block(table, (), table.extras)] if table.extras else []
    return blocks


def _coded_blocks(table: Table) -> list[_Block]:
    """A block per measure, with the lengths of codes under each noise rate (the layout of RSHNL's Tables 1-3); as many rates
    side by side as fit."""
    places = [place for place in table.rates if isinstance(place, Coded)]
    rates = list(dict.fromkeys(place.rate for place in places))
    for lines in range(1, len(rates) + 1):
        size = -(-len(rates) // lines)
        groups = [rates[start : start + size] for start in range(0, len(rates), size)]
        blocks = [
            _coded_block(one, [place for place in places if place.rate in group], len(table.measures) > 1)
            for one in table.measures
            for group in groups
        ]
        if _width(table, blocks) <= TWO_COLUMNS:
            break
    return [*blocks, _block(table, (), table.extras)] if table.extras else blocks


def _coded_block(one: Measure, places: Sequence[Coded], named: bool) -> _Block:
    upper = {rate: sum(place.rate == rate for place in places) for rate in dict.fromkeys(p.rate for p in places)}
    words = [(f"{one.label}, {rate_words(rate)}" if named else rate_words(rate), n) for rate, n in upper.items()]
    heads = tuple(place.bits_words for place in places)
    return _Block(tuple((place, one.name) for place in places), (), tuple(words), heads)


def _block(table: Table, rates: Sequence[Rate], extras: Sequence[Measure] = ()) -> _Block:
    single = len(table.measures) == 1
    keys = [(rate, one.name) for rate in rates for one in table.measures]
    heads = [rate_words(rate) if single else measure_of(table, (rate, name)).label for rate, name in keys]
    upper = () if single else tuple((rate_words(rate), len(table.measures)) for rate in rates)
    return _Block(tuple(keys), tuple(extras), upper, (*heads, *(one.label for one in extras)))


def _width(table: Table, blocks: Sequence[_Block]) -> int:
    """Of the widest block, in characters as printed."""
    texts = [
        [len(head), *(len(cell) for cell in column)]
        for block in blocks
        for head, column in zip(
            block.heads, zip(*(_plain(row, table, block) for row in table.rows), strict=True), strict=True
        )
    ]
    columns, start = [0] * max(len(block.heads) for block in blocks), 0
    for block in blocks:
        for k in range(len(block.heads)):
            columns[k] = max(columns[k], *texts[start + k])
        start += len(block.heads)
    return max(len(row.name) + len(row.notes) for row in table.rows) + sum(columns) + len(columns)


def _plain(row: Row, table: Table, block: _Block) -> list[str]:
    """Superscripts are about half as wide as other signs."""
    cells = []
    for key in block.keys:
        entry = row.entries[key]
        cells.append(digits(entry, table, key) + "," * (len(entry.notes) + entry.tied))
    return [*cells, *(extra(row, one) for one in block.extras)]


def _caption(table: Table) -> str:
    marked = f"{table.caption} {legend(table)}".replace("<best>", "\0").replace("<second>", "\1")
    text = escape_latex(marked, keep="\0\1").replace("\0", r"\textbf{bold}").replace("\1", r"\underline{underlined}")
    notes = [f"$^{{{n}}}$ {escape_latex(note.rstrip('.'))}." for n, note in enumerate(table.notes, 1)]
    return " ".join([text, *notes])


def _padded_block(table: Table, block: _Block, columns: int) -> str:
    """Heads and rows; a rule parts published rows from ours, which have no extras."""
    rows = [row for row in table.rows if block.keys or not row.published]
    body = [_line([_name(row), *_padded(_cells(row, table, block), columns)]) for row in rows]
    published = [row.published for row in rows]
    if any(published[1:]):
        body.insert(published.index(True), r"\midrule")
    upper = []
    if block.upper:
        groups = [f"\\multicolumn{{{width}}}{{c}}{{{escape_latex(words)}}}" for words, width in block.upper]
        ends = list(itertools.accumulate((width for _, width in block.upper), initial=1))
        rules = [f"\\cmidrule(lr){{{start + 1}-{end}}}" for start, end in itertools.pairwise(ends)]
        upper = [_line(["", *groups, *[""] * (columns + 1 - ends[-1])]), "".join(rules)]
    heads = _line(["run", *_padded([escape_latex(words) for words in block.heads], columns)])
    return "\n".join([*upper, heads, r"\midrule", *body])


def _line(cells: Sequence[str]) -> str:
    return " & ".join(cells) + r" \\"


def _padded(cells: Sequence[str], width: int) -> list[str]:
    return [*cells, *[""] * (width - len(cells))]


def _name(row: Row) -> str:
    return escape_latex(row.name) + _superscript([str(number) for number in row.notes])


def _cells(row: Row, table: Table, block: _Block) -> list[str]:
    cells = [_cell(row.entries[key], digits(row.entries[key], table, key)) for key in block.keys]
    return [*cells, *(escape_latex(extra(row, one)) for one in block.extras)]


def _cell(entry: Entry, text: str) -> str:
    marks = [*([r"\dagger"] if entry.tied else []), *map(str, entry.notes)]
    return _SIGNS[entry.rank].format(escape_latex(text)) + _superscript(marks)


def _superscript(marks: Sequence[str]) -> str:
    return f"$^{{{','.join(marks)}}}$" if marks else ""


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
    """Text that pdflatex prints literally with its default fonts; characters it does not know become ``{[}U+4E2D{]}``."""
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
    return f"{{[}}U+{ord(sign):04X}{{]}}"
