"""Printing a :class:`~nocobench.analysis.layout.Table`: terminal, plain text, Markdown, tidy CSV (LaTeX: ``latex.py``).

Rounding happens here and nowhere else; CSV keeps full precision. Every format carries the caption and the footnotes.
"""

from __future__ import annotations

import math
import textwrap
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd
from rich.console import Console
from rich.table import Table as RichTable
from rich.text import Text
from tabulate import tabulate

from ..results.measures import RECALLS, Measure
from .layout import Coded, Entry, Rate, Row, Table, rate_words

NOTHING = "–"
WIDTH = 100  # of plain text, in characters


def to_terminal(table: Table, console: Console) -> None:
    """Print with bold and underline where the console can show them, else with the signs of :func:`to_text`."""
    if not console.is_terminal or console.no_color:
        console.file.write(to_text(table) + "\n")
        return
    styles = {"best": "bold", "second": "underline", "": ""}
    panels, labels = _panels(table, console.width)
    for panel in panels:
        shown = RichTable(
            box=None, pad_edge=False, header_style="bold", title=panel.title or None, title_justify="left"
        )
        for position, words in enumerate(_heads(table, panel, labels)):
            shown.add_column(words, justify="left" if position < 1 + labels else "right", no_wrap=True)
        for row, names, marks in _named_rows(table, panel, labels):
            cells = [Text(words) for words in names]
            for key, mark in zip(panel.keys, marks, strict=True):
                text = Text(digits(row.entries[key], table, key), style=styles[row.entries[key].rank])
                cells.append(text.append(mark, style="not bold not underline"))
            cells += [Text(extra(row, one)) for one in panel.extras]
            shown.add_row(*cells, style="dim" if row.published else "")
        console.print(shown)
        console.print()
    console.print(Text(_plain_below(table, "bold", "underlined", labels)))


def to_text(table: Table, width: int = WIDTH) -> str:
    """Plain text: the best in ``*asterisks*``, the second in ``_underscores_``, footnotes in brackets.

    What does not fit into ``width`` characters becomes several tables below each other, and the methods' labels a legend.
    """
    panels, labels = _panels(table, width)
    parts = []
    for panel in panels:
        heads, rows = _heads(table, panel, labels), _panel_rows(table, panel, labels)
        align = ["left"] * (1 + labels) + ["right"] * (len(heads) - 1 - labels)
        body = tabulate(rows, headers=heads, tablefmt="simple", disable_numparse=True, colalign=align)
        parts.append(f"{panel.title}\n{body}" if panel.title else body)
    lines = _plain_below(table, "*asterisks*", "_underscores_", labels).splitlines()
    below = [textwrap.fill(line, width, subsequent_indent="    " if line[:1] == "[" else "") for line in lines]
    return "\n\n".join([*parts, "\n".join(below)])


@dataclass(frozen=True)
class _Panel:
    """Columns that are printed side by side; ``title`` is what their heads leave out."""

    title: str
    keys: tuple[tuple[Rate, str], ...]
    extras: tuple[Measure, ...] = ()


def _panels(table: Table, width: int) -> tuple[list[_Panel], bool]:
    """Everything in one panel if it fits, with labels or at least without; else one per rate, and one per measure that is no recall."""
    whole = _Panel("", tuple(keys_of(table)), table.extras)
    for labels in (True, False):
        if _panel_width(table, whole, labels) <= width:
            return [whole], labels
    panels: list[_Panel] = []
    recalls = [one.name for one in table.measures if one.name in RECALLS and len(table.measures) > 1]
    ways = [tuple(name for name in recalls if name.startswith(way)) for way in ("i2t", "t2i")]
    for rate in table.rates if recalls else ():
        groups = [tuple((rate, name) for name in names) for names in ways if names]
        panels += _filled(table, groups, rate_words(rate), width)
    for one in table.measures:
        if one.name not in recalls:
            title = one.label if len(table.measures) > 1 else ""
            groups = [tuple((rate, one.name) for rate in same) for same in _same_rate(table.rates)]
            panels += _filled(table, groups, title, width)
    return panels + _filled_extras(table, width), False


def _same_rate(places: Sequence[Rate]) -> list[list[Rate]]:
    """Places whose columns stay together: all lengths of codes of one noise rate."""
    groups: dict[Rate, list[Rate]] = {}
    for place in places:
        groups.setdefault(place.rate if isinstance(place, Coded) else place, []).append(place)
    return list(groups.values())


def _filled_extras(table: Table, width: int) -> list[_Panel]:
    panels: list[_Panel] = []
    for one in table.extras:
        wider = _Panel("", (), (*panels[-1].extras, one)) if panels else None
        if wider and _panel_width(table, wider, labels=False) <= width:
            panels[-1] = wider
        else:
            panels.append(_Panel("", (), (one,)))
    return panels


def _filled(table: Table, groups: Sequence[tuple[tuple[Rate, str], ...]], title: str, width: int) -> list[_Panel]:
    """As many whole groups of columns per panel as fit, but at least one."""
    panels: list[_Panel] = []
    for group in groups:
        wider = _Panel(title, (*panels[-1].keys, *group)) if panels else None
        if wider and _panel_width(table, wider, labels=False) <= width:
            panels[-1] = wider
        else:
            panels.append(_Panel(title, group))
    return panels


def _panel_width(table: Table, panel: _Panel, labels: bool) -> int:
    columns = zip(_heads(table, panel, labels), *_panel_rows(table, panel, labels), strict=True)
    return sum(max(map(len, column)) + 2 for column in columns) - 2


def _heads(table: Table, panel: _Panel, labels: bool) -> list[str]:
    """Rates, measures, or both where the panel's title says neither."""
    words = [_column_words(table, panel, key) for key in panel.keys]
    return ["run", *(["method"] if labels else []), *words, *(one.label for one in panel.extras)]


def _column_words(table: Table, panel: _Panel, key: tuple[Rate, str]) -> str:
    rate, label = rate_words(key[0]), measure_of(table, key).label
    if len(table.measures) == 1 or panel.title == label:
        return rate
    return label if panel.title == rate else f"{rate} {label}"


def _panel_rows(table: Table, panel: _Panel, labels: bool) -> list[list[str]]:
    """Cells as text."""
    signs = {"best": "*{}*", "second": "_{}_", "": "{}"}
    rows = []
    for row, names, marks in _named_rows(table, panel, labels):
        cells = [
            signs[row.entries[key].rank].format(digits(row.entries[key], table, key)) + mark
            for key, mark in zip(panel.keys, marks, strict=True)
        ]
        rows.append([*names, *cells, *(extra(row, one) for one in panel.extras)])
    return rows


def _named_rows(table: Table, panel: _Panel, labels: bool) -> Iterator[tuple[Row, list[str], list[str]]]:
    """Each row that has something to show, its name and label, and the marks of its cells: footnotes of all cells stand at the name."""
    for row in table.rows:
        entries = [row.entries[key] for key in panel.keys]
        if row.published and not any(entry.n for entry in entries):
            continue
        common = set.intersection(*(set(entry.notes) for entry in entries)) if len(entries) > 1 else set()
        name = row.name + _brackets((*row.notes, *sorted(common - set(row.notes))))
        marks = [_dagger(entry) + _brackets(tuple(n for n in entry.notes if n not in common)) for entry in entries]
        yield row, [name, *([row.label] if labels else [])], marks


def digits(entry: Entry, table: Table, key: tuple[Rate, str]) -> str:
    """Tight where seven columns must stand side by side."""
    text = number(entry, measure_of(table, key))
    return text.replace(" ± ", "±") if len(table.measures) > 1 else text


def to_markdown(table: Table) -> str:
    """A pipe table between its caption and its footnotes."""
    signs = {"best": "**{}**", "second": "<u>{}</u>", "": "{}"}

    def superscript(notes: tuple[int, ...]) -> str:
        return f"<sup>{','.join(map(str, notes))}</sup>" if notes else ""

    def shown(entry: Entry, one: Measure) -> str:
        return signs[entry.rank].format(escape_markdown(number(entry, one))) + _dagger(entry) + superscript(entry.notes)

    rows = cells_of(
        table, lambda row: [escape_markdown(row.name) + superscript(row.notes), escape_markdown(row.label)], shown
    )
    head = [escape_markdown(words) for words in _head(table)]
    align = ["left", "left", *["right"] * (len(head) - 2)]
    body = tabulate(rows, headers=head, tablefmt="pipe", disable_numparse=True, colalign=align)
    notes = [f"<sup>{n}</sup> {escape_markdown(text)}" for n, text in enumerate(table.notes, 1)]
    marked = table.caption.replace("<best>", "\0").replace("<second>", "\1")
    caption = escape_markdown(marked).replace("\0", "**bold**").replace("\1", "<u>underlined</u>")
    return "\n\n".join([caption, body, *(["<br>\n".join(notes)] if notes else [])]) + "\n"


def tidy(table: Table) -> pd.DataFrame:
    """One row per method, rate and measure, full precision, holes included; what CSV holds."""
    rows: list[dict[str, Any]] = []
    for row in table.rows:
        fixed = {"row": row.name, "label": row.label, "flags": ";".join(row.flags), "published": row.published}
        for (rate, name), entry in row.entries.items():
            facts = {
                **_place_facts(rate),
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
    # Nullable, because extras have neither.
    return pd.DataFrame(rows).astype({"n": "Int64", "expected": "Int64"})


def _place_facts(place: Rate) -> dict[str, Any]:
    if isinstance(place, Coded):
        return {**_place_facts(place.rate), "bits": "real-valued" if place.bits is None else place.bits}
    return {"rate": "real" if place is None else place}


def to_csv(table: Table) -> str:
    """Tidy CSV of :func:`tidy`."""
    return tidy(table).to_csv(index=False, lineterminator="\n")


def number(entry: Entry, one: Measure) -> str:
    """``310.2 ± 1.4``, the mean alone for one seed, or the word for a hole."""
    if not entry.n:
        return entry.hole or NOTHING
    spread = f" ± {rounded(entry.std, one)}" if entry.n > 1 else ""
    return rounded(entry.mean, one) + spread


def escape_markdown(text: str) -> str:
    r"""So that it shows literally inside a table: ``|``, emphasis, HTML, line breaks."""
    escaped = "".join(f"\\{sign}" if sign in r"\`*_[]|~" else sign for sign in text)
    return " ".join(escaped.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;").split())


def rounded(value: float, one: Measure) -> str:
    # Adding 0.0 turns -0.0, which rounding makes of small negative numbers, into 0.0.
    return NOTHING if math.isnan(value) else f"{round(value, one.decimals) + 0.0:,.{one.decimals}f}"


def keys_of(table: Table) -> list[tuple[Rate, str]]:
    return [(rate, one.name) for rate, one in table.columns]


def measure_of(table: Table, key: tuple[Rate, str]) -> Measure:
    return next(one for one in table.measures if one.name == key[1])


def _head(table: Table) -> list[str]:
    """``noise 0.2`` alone where there is one measure, else ``noise 0.2 i2t R@1``."""
    single = len(table.measures) == 1
    columns = [rate_words(rate) if single else f"{rate_words(rate)} {one.label}" for rate, one in table.columns]
    return ["run", "method", *columns, *(one.label for one in table.extras)]


def cells_of(
    table: Table, names: Callable[[Row], list[str]], shown: Callable[[Entry, Measure], str]
) -> list[list[str]]:
    """All cells as text."""
    return [
        [
            *names(row),
            *(shown(row.entries[key], measure_of(table, key)) for key in keys_of(table)),
            *(extra(row, one) for one in table.extras),
        ]
        for row in table.rows
    ]


def extra(row: Row, one: Measure) -> str:
    return rounded(row.extras.get(one.name, math.nan), one)


def _dagger(entry: Entry) -> str:
    return "†" if entry.tied else ""


def _brackets(notes: tuple[int, ...]) -> str:
    return f" [{','.join(map(str, notes))}]" if notes else ""


def _plain_below(table: Table, best: str, second: str, labels: bool) -> str:
    notes = [f"[{n}] {text}" for n, text in enumerate(table.notes, 1)]
    return "\n".join(
        [
            table.caption.replace("<best>", best).replace("<second>", second),
            *([] if labels else [legend(table)]),
            *notes,
        ]
    )


def legend(table: Table) -> str:
    """What our rows are called, where there is no column for it; published rows have their paper in a footnote."""
    ours = [f"{row.name} is {row.label}" for row in table.rows if not row.published]
    return f"Rows: {'; '.join(ours)}." if ours else ""
