"""Paper-style tables from a data frame of records: means over seeds, best and second, ties, holes with their reasons, a caption.

:func:`make_table` decides what a table says; ``render.py`` and ``latex.py`` print it. Nothing is rounded here.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace

import pandas as pd

from ..results.measures import HEADLINES, Measure, measures
from . import resampling
from .captions import caption
from .frame import TABLE_KEYS, AnalysisError, require_unmixed, select
from .layout import COMPACT, HONESTY, PAPER, Coded, Entry, Notes, Rank, Rate, Row, Table, TableOptions, rate_words

__all__ = [
    "COMPACT",
    "HONESTY",
    "PAPER",
    "Entry",
    "Row",
    "Separable",
    "Table",
    "TableOptions",
    "make_table",
    "variants_table",
]

FLAG_NOTES = {
    "reconstruction": "reconstruction by this suite from what is published; there is no complete official code to check it against",
    "oracle": "oracle: knows what is clean; an upper bound that never counts as best or second",
    "clean-meta-set": "also learns from verified clean pairs that other methods do not get",
    "own-generalisation": "this suite's own generalisation, not a published method",
}
# What rows and captions are made of, beside the measures.
USED = (
    *TABLE_KEYS, "method", "variant", "seed", "rate", "bits", "status", "reason", "label", "flags", "grants", "stale", "noise_level",
    "nominal_rate", "realised_rate", "tie_width", "git_dirty",
)  # fmt: skip
STATUS_WORDS = {"failed": "failed", "timeout": "timeout", "not_applicable": "n/a", "missing": "missing"}

# Whether the values of two methods, each a Series over seeds, can be told apart.
Separable = Callable[[pd.Series, pd.Series], bool]


def make_table(frame: pd.DataFrame, options: TableOptions | None = None, separable: Separable | None = None) -> Table:
    """The table of records that share a protocol, data set and noise model (see ``frame.parts``).

    Args:
        frame: from ``load_frame``, filtered as wanted.
        options: columns, expected grid, strictness.
        separable: decides on daggers; default :func:`.resampling.separable`.

    Raises:
        AnalysisError: no records; mixed protocols (unless asked for); holes under ``strict``; unknown measure.
    """
    options = options or TableOptions()
    if frame.empty:
        raise AnalysisError(
            "there are no records for this table; run the benchmark first, or choose other methods, rates or seeds"
        )
    if not options.mixed:
        require_unmixed(frame)
    wanted = _measures(options.measures or (HEADLINES[str(frame["task"].iloc[0])],))
    extras = _measures(options.extras)
    frame = _slim(frame, wanted, extras)
    rates = _rates(frame) if options.rates is None else options.rates
    seeds = sorted(frame["seed"].unique().tolist()) if options.seeds is None else sorted(options.seeds)
    frame = _chosen(frame, options.methods)
    cells = _within(frame, rates, seeds)
    notes = Notes()
    rows = [_row(part, name, rates, seeds, wanted, extras, notes) for name, part in _row_parts(frame)]
    absent = set(options.methods or ()) - {row.name for row in rows}
    rows += [_row(frame.iloc[:0], name, rates, seeds, wanted, extras, notes) for name in sorted(absent)]
    if options.strict:
        _refuse_holes(rows)
    many = any(len(values) > 1 for row in rows for values in row.values.values())
    rows = _ranked(rows, rates, wanted, (separable or resampling.separable) if many else None)
    keys = {key: frame[key].iloc[0] if frame[key].nunique() == 1 else None for key in TABLE_KEYS}
    expected = sum(row.entries[rate, wanted[0].name].expected for row in rows for rate in rates)
    text = caption(cells, keys, rows, wanted, expected, many)
    return Table(keys, tuple(rates), tuple(wanted), tuple(extras), tuple(rows), text, notes.texts)


def variants_table(
    frame: pd.DataFrame, method: str, options: TableOptions | None = None, separable: Separable | None = None
) -> Table:
    """The variants of one method (paper against released code, ablations), at the grid's rates.

    Raises:
        AnalysisError: as :func:`make_table`; or the method has no record.
    """
    table = make_table(select(frame, method=method), options, separable)
    return replace(table, caption=f"Variants of {method}. {table.caption}")


def _slim(frame: pd.DataFrame, wanted: Sequence[Measure], extras: Sequence[Measure]) -> pd.DataFrame:
    """The columns that tables use: every place is a slice, and slices of all columns take three times as long."""
    scores = [one.name for one in (*wanted, *extras)]
    return frame[list(dict.fromkeys([*USED, *scores]))].copy()


def _measures(names: Sequence[str]) -> list[Measure]:
    try:
        return measures(names)
    except ValueError as error:
        raise AnalysisError(str(error)) from error


def _rate(value: float) -> float | None:
    return None if math.isnan(value) else float(value)


def _rates(frame: pd.DataFrame) -> tuple[Rate, ...]:
    if (frame["task"] == "label-hashing").any():
        pairs = zip(frame["rate"], frame["bits"], strict=True)
        coded = {Coded(_rate(rate), None if math.isnan(bits) else int(bits)) for rate, bits in pairs}
        # Real-valued embeddings behind the codes of the same rate.
        return tuple(sorted(coded, key=lambda one: (-1.0 if one.rate is None else one.rate, one.bits or math.inf)))
    return tuple(sorted({_rate(value) for value in frame["rate"]}, key=lambda one: -1.0 if one is None else one))


def _within(frame: pd.DataFrame, rates: Sequence[Rate], seeds: Sequence[int]) -> pd.DataFrame:
    known = pd.Series(False, index=frame.index)
    for rate in rates:
        known |= _is_at(frame, rate)
    return frame[known & frame["seed"].isin(seeds)]


def _is_at(frame: pd.DataFrame, rate: Rate) -> pd.Series:
    """Which rows stand at this place of the table."""
    if isinstance(rate, Coded):
        bits = frame["bits"].isna() if rate.bits is None else frame["bits"] == rate.bits
        return _is_at(frame, rate.rate) & bits
    return frame["rate"].isna() if rate is None else frame["rate"] == rate


def _concerns(part: pd.DataFrame, rate: Rate) -> bool:
    """A method has codes or real-valued embeddings, and nothing is missing where it has the other."""
    if not isinstance(rate, Coded) or part.empty:
        return True
    return bool(part["bits"].isna().any() if rate.bits is None else part["bits"].notna().any())


def _chosen(frame: pd.DataFrame, methods: Sequence[str] | None) -> pd.DataFrame:
    if methods is None:
        return frame
    chosen = frame[(frame["method"] + "@" + frame["variant"]).isin(methods)]
    if chosen.empty:
        raise AnalysisError(f"none of {', '.join(methods)} has a record here; run them first, or choose other methods")
    return chosen


def _row_parts(frame: pd.DataFrame) -> list[tuple[str, pd.DataFrame]]:
    """Records of each row: controls first, then by name, oracles last; the variant ``paper`` before others."""
    mixed = [key for key in TABLE_KEYS if frame[key].nunique() > 1]

    def order(part: pd.DataFrame) -> tuple[int, str, bool, str]:
        flags, first = _flags(part), part.iloc[0]
        place = 2 if "oracle" in flags else 0 if "control" in flags else 1
        return place, first["method"], first["variant"] != "paper", first["variant"]

    found = []
    for keys, part in frame.groupby(["method", "variant", *mixed], sort=True, dropna=False):
        which = "".join(f" [{key} {value or 'none'}]" for key, value in zip(mixed, keys[2:], strict=True))
        found.append((f"{keys[0]}@{keys[1]}{which}", part))
    return sorted(found, key=lambda one: (*order(one[1]), one[0]))


def _flags(part: pd.DataFrame) -> tuple[str, ...]:
    return tuple(sorted({flag for flags in part["flags"] for flag in flags}))


def _row(
    part: pd.DataFrame, name: str, rates: Sequence[Rate], seeds: Sequence[int], wanted: Sequence[Measure], extras: Sequence[Measure],
    notes: Notes,
) -> Row:  # fmt: skip
    flags, label = _flags(part), name if part.empty else part["label"].iloc[-1]
    whole, part = part, _within(part, rates, seeds)
    grants = {grant for given in part["grants"] if isinstance(given, tuple) for grant in given} - set(flags)
    texts = [FLAG_NOTES.get(flag, f"flag: {flag}") for flag in flags if flag != "control"]
    texts += [f"uses what the protocol grants: {', '.join(sorted(grants))}"] if grants else []
    marks = tuple(notes.number(text) for text in texts)
    entries: dict[tuple[Rate, str], Entry] = {}
    values: dict[tuple[Rate, str], pd.Series] = {}
    for rate in rates:
        if not _concerns(whole, rate):
            for one in wanted:
                values[rate, one.name], entries[rate, one.name] = pd.Series(dtype=float), Entry(hole="–")
            continue
        here = part[_is_at(part, rate)]
        done = here[here["status"] == "done"].set_index("seed").sort_index()
        hole, text = _hole(here, seeds)
        numbers = (notes.number(text),) if text else ()
        for one in wanted:
            series = done[one.name].dropna()
            values[rate, one.name] = series
            entries[rate, one.name] = _entry(series, len(seeds), "–" if len(done) else hole, numbers)
    finished = part[part["status"] == "done"]
    return Row(
        name, label, entries, {one.name: float(finished[one.name].mean()) for one in extras}, flags, marks,
        "oracle" not in flags, False, values,
    )  # fmt: skip


def _entry(series: pd.Series, expected: int, hole: str, notes: tuple[int, ...]) -> Entry:
    if series.empty:
        return Entry(expected=expected, hole=hole, notes=notes)
    return Entry(float(series.mean()), float(series.std(ddof=1)), len(series), expected, notes=notes)


def _hole(here: pd.DataFrame, seeds: Sequence[int]) -> tuple[str, str]:
    """The word to print where nothing is finished, and the footnote about seeds that lack or are stale; both empty if all is well."""
    by_reason: dict[tuple[str, str], list[int]] = {}
    known = dict(zip(here["seed"], zip(here["status"], here["reason"], strict=True), strict=True))
    for seed in seeds:
        status, reason = known.get(seed, ("missing", "no record"))
        if status != "done":
            by_reason.setdefault((status, reason), []).append(seed)
    texts = [f"{status.replace('_', ' ')}: {reason} ({_seeds(which)})" for (status, reason), which in by_reason.items()]
    stale = sorted(here[here["stale"].eq(True) & (here["status"] == "done")]["seed"])
    if stale:
        texts.append(f"stale: made by other source code than today's ({_seeds(stale)})")
    lacking = sum(map(len, by_reason.values()))
    if lacking and lacking < len(seeds):
        texts.insert(0, f"{len(seeds) - lacking} of {len(seeds)} seeds")
    words = {STATUS_WORDS[status] for status, _ in by_reason}
    return "/".join(sorted(words)), "; ".join(texts)


def _seeds(seeds: Sequence[int]) -> str:
    return f"seed{'s' if len(seeds) > 1 else ''} {', '.join(map(str, seeds))}"


def _refuse_holes(rows: Sequence[Row]) -> None:
    for row in rows:
        for (rate, _), entry in row.entries.items():
            if entry.n < entry.expected and entry.hole not in ("n/a", "–"):
                raise AnalysisError(
                    f"the table has holes, the first is {row.name} at {rate_words(rate)} with {entry.n} of {entry.expected} seeds; "
                    "run what is missing (`--retry failed` for failures), or leave --strict out"
                )


def _ranked(
    rows: list[Row], rates: Sequence[Rate], wanted: Sequence[Measure], separable: Separable | None
) -> list[Row]:
    changed: list[dict[tuple[Rate, str], Entry]] = [dict(row.entries) for row in rows]
    for rate in rates:
        for one in wanted:
            _rank_column(rows, changed, (rate, one.name), one, separable)
    return [replace(row, entries=entries) for row, entries in zip(rows, changed, strict=True)]


def _rank_column(
    rows: list[Row], changed: list[dict[tuple[Rate, str], Entry]], key: tuple[Rate, str], one: Measure, separable: Separable | None
) -> None:  # fmt: skip
    """Mark best and second (equal means share a place) and whatever cannot be told from the best."""
    running = [k for k, row in enumerate(rows) if row.competes and row.entries[key].n]
    if one.better is None or len(running) < 2:
        return
    means = sorted({rows[k].entries[key].mean for k in running}, reverse=one.better == "higher")
    ranks: dict[float, Rank] = dict(zip(means, ("best", "second"), strict=False))
    best = next(k for k in running if rows[k].entries[key].mean == means[0])
    for k in running:
        rank = ranks.get(rows[k].entries[key].mean, "")
        tied = k != best and separable is not None and not separable(rows[best].values[key], rows[k].values[key])
        changed[k][key] = replace(rows[k].entries[key], rank=rank, tied=tied)
    runner_up = [k for k in running if k != best and changed[k][key].rank in ("best", "second")]
    if any(changed[k][key].tied for k in runner_up):
        changed[best][key] = replace(changed[best][key], tied=True)
