"""What a table is made of: rows, entries, footnotes; in full precision and independent of any format."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Literal

import pandas as pd

from ..results.measures import RECALLS, Measure

COMPACT: tuple[str, ...] = ("rsum",)
PAPER: tuple[str, ...] = (*RECALLS, "rsum")
HONESTY: tuple[str, ...] = ("networks_at_test", "parameters", "seconds", "optimism", "single_rsum")
# The same for label-based retrieval: the mean of both directions, or each (RSHNL's Tables 1-3).
COMPACT_LABELS: tuple[str, ...] = ("mean_map",)
PAPER_LABELS: tuple[str, ...] = ("i2t_map", "t2i_map")
HONESTY_LABELS: tuple[str, ...] = ("parameters", "seconds", "tie_width", "map_optimism", "mean_precision_radius_2")


@dataclass(frozen=True)
class Coded:
    """A place of a table of label-based retrieval: noise rate and length of codes, None for real-valued embeddings."""

    rate: float | None
    bits: int | None

    @property
    def bits_words(self) -> str:
        """``64 bits`` or ``real-valued``."""
        return "real-valued" if self.bits is None else f"{self.bits} bits"


# Where the columns of a table stand: a noise rate (None = real noise), with bits where there are codes.
Rate = float | None | Coded
Rank = Literal["", "best", "second"]


@dataclass(frozen=True)
class TableOptions:
    """What a table shows.

    Attributes:
        measures: columns under every rate, names of ``results/measures.py``; empty = the headline of the task.
        methods, rates, seeds: what should be there, methods as ``name@variant``, rates as numbers, or :class:`Coded` in label-based
            retrieval; None = whatever the records have. Anything absent
            is a hole.
        extras: columns of honesty, one number per row: the mean over its finished cells.
        strict: refuse a table with holes (other than "not applicable").
        mixed: put different protocols, versions or overrides into one table, each row saying which.
    """

    measures: tuple[str, ...] = ()
    methods: tuple[str, ...] | None = None
    rates: tuple[Rate, ...] | None = None
    seeds: tuple[int, ...] | None = None
    extras: tuple[str, ...] = ()
    strict: bool = False
    mixed: bool = False


@dataclass(frozen=True)
class Entry:
    """One place of a table: mean and sample standard deviation over ``n`` of ``expected`` seeds, or a hole.

    ``mean`` and ``std`` are NaN where there is nothing; ``hole`` is then the word to print. ``tied`` asks for a dagger.
    """

    mean: float = math.nan
    std: float = math.nan
    n: int = 0
    expected: int = 0
    rank: Rank = ""
    tied: bool = False
    hole: str = ""
    notes: tuple[int, ...] = ()


@dataclass(frozen=True)
class Row:
    """One method@variant. ``competes`` is False for oracles and published numbers; ``values[(rate, measure)]`` are paired by seed."""

    name: str
    label: str
    entries: dict[tuple[Rate, str], Entry]
    extras: dict[str, float] = field(default_factory=dict)
    flags: tuple[str, ...] = ()
    notes: tuple[int, ...] = ()
    competes: bool = True
    published: bool = False
    values: dict[tuple[Rate, str], pd.Series] = field(default_factory=dict, repr=False, compare=False)


@dataclass(frozen=True)
class Table:
    """Everything that is printed, in full precision. ``notes[k]`` is footnote k + 1; ``keys`` are the values of ``TABLE_KEYS``."""

    keys: dict[str, Any]
    rates: tuple[Rate, ...]
    measures: tuple[Measure, ...]
    extras: tuple[Measure, ...]
    rows: tuple[Row, ...]
    caption: str
    notes: tuple[str, ...]

    @property
    def columns(self) -> list[tuple[Rate, Measure]]:
        return [(rate, one) for rate in self.rates for one in self.measures]


class Notes:
    """Footnotes, numbered in order of first use; the same text keeps its number."""

    def __init__(self, known: Iterable[str] = ()) -> None:
        self._numbers = {text: number for number, text in enumerate(known, 1)}

    def number(self, text: str) -> int:
        """The number of a footnote, new or known."""
        return self._numbers.setdefault(text, len(self._numbers) + 1)

    @property
    def texts(self) -> tuple[str, ...]:
        return tuple(self._numbers)


def rate_words(rate: Rate) -> str:
    """``noise 0.4``, ``real noise`` or ``noise 0.4, 64 bits``."""
    if isinstance(rate, Coded):
        return f"{rate_words(rate.rate)}, {rate.bits_words}"
    return "real noise" if rate is None else f"noise {rate:g}"
