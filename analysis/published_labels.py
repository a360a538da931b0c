"""Published numbers of label-based retrieval beside ours: rows of their own, or, for data that we do not have, tables of their own.

``results/published/rshnl_tables.csv`` and ``mgsh_tables.csv`` have the columns table, dataset, task, method, venue, noise_rate, bits, map,
note. RSHNL prints percent, MGSH fractions; here all are percent.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pandas as pd

from ..results.measures import measures
from .frame import TABLE_KEYS, AnalysisError
from .layout import Coded, Entry, Notes, Rate, Row, Table

FOLDER = Path(__file__).resolve().parent.parent / "results" / "published"
COLUMNS = ("table", "dataset", "task", "method", "venue", "noise_rate", "bits", "map", "note")
MEASURE_OF = {
    "I2T": "i2t_map",
    "T2I": "t2i_map",
    "avg": "mean_map",
    "mean(I2T,T2I)": "mean_map",
    "not stated (mean presumed)": "mean_map",
}
# Studies of one constant: several numbers of one method for the same place of a table; kept in the file, in no table here.
STUDIES = ("Table 3",)
# Their names of the data sets that we have loaders for.
OURS = {
    "xmedia": "XMedia",
    "inria": "INRIA-Websearch",
    "xmedianet": "XMediaNet",
    "mirflickr": "MIRFlickr25K",
    "nuswide": "NUS-WIDE",
    "coco-labels": "MS-COCO",
}
DOUBTFUL = ("suspicious", "lost", "disagrees", "typo")


@dataclass(frozen=True)
class Source:
    """A paper whose tables are kept: how it is cited, and how it measured (specs of the same name, and protocol-noisy-labels.md)."""

    file: str
    paper: str
    factor: float
    database: str
    selection: str
    noise: str

    @property
    def setting(self) -> str:
        """All of it in one line."""
        return f"{self.database}; {self.selection}; {self.noise}; one run, ties in arbitrary order"


SOURCES = {
    "rshnl": Source(
        "rshnl_tables.csv",
        "Pu et al., AAAI 2025",
        1.0,
        "test items search the test split of the other modality",
        "epoch chosen on clean validation labels",
        "labels redrawn among all classes, the true one included, one noise file for all runs",
    ),
    "mgsh": Source(
        "mgsh_tables.csv",
        "Tan et al., AAAI 2026",
        100.0,
        "test queries search a database that holds the training items (not for MS-COCO)",
        "epoch chosen on the test queries in the released code",
        "one label of a row swapped in the stated share of rows",
    ),
}


def load_published_labels(folder: Path = FOLDER) -> pd.DataFrame:
    """All published numbers, with ``source`` (rshnl, mgsh), ``measure`` (of ``results/measures.py``), ``rate``, ``bits`` and ``value`` in
    percent (NaN where nothing is printed).

    Raises:
        AnalysisError: a missing file, other columns, or an unknown task.
    """
    parts = []
    for name, source in SOURCES.items():
        path = folder / source.file
        try:
            frame = pd.read_csv(path, dtype=str, keep_default_na=False)
        except OSError as error:
            raise AnalysisError(
                f"published numbers {path} cannot be read ({error.strerror}); restore the file"
            ) from error
        if tuple(frame.columns) != COLUMNS:
            raise AnalysisError(
                f"published numbers {path} have columns {', '.join(frame.columns)}; expected {', '.join(COLUMNS)}"
            )
        unknown = sorted(set(frame["task"]) - set(MEASURE_OF))
        if unknown:
            raise AnalysisError(
                f"published numbers {path} have an unknown task {unknown[0]!r}; known are I2T, T2I, avg"
            )
        number = pd.to_numeric(frame["map"], errors="coerce") * source.factor
        parts.append(
            frame.assign(
                source=name,
                measure=frame["task"].map(MEASURE_OF),
                rate=frame["noise_rate"].astype(float),
                bits=frame["bits"].astype(int),
                value=number,
            )
        )
    found = pd.concat(parts, ignore_index=True)
    return found[~found["table"].str.startswith(STUDIES)]


def chosen(published: pd.DataFrame, names: Sequence[str]) -> pd.DataFrame:
    """The numbers of these papers (``rshnl``, ``mgsh``) or methods, as printed; all for no name.

    Raises:
        AnalysisError: neither a paper nor a method.
    """
    if not names:
        return published
    methods = {str(name).lower() for name in published["method"]}
    for name in names:
        if name.lower() not in methods and name.lower() not in SOURCES:
            known = ", ".join(sorted(set(published["method"])))
            raise AnalysisError(
                f"no paper here is called or prints {name!r}; papers are {', '.join(SOURCES)}, printed are {known}"
            )
    wanted = {name.lower() for name in names}
    papers = published["source"].isin(wanted)
    # A paper's name is also that of its method: the paper is meant, with all its rows.
    return published[papers | published["method"].str.lower().isin(wanted - set(SOURCES))]


def with_published_labels(table: Table, published: pd.DataFrame) -> Table:
    """The table with a row for each published method on the same data set, at the same rates and lengths of codes."""
    theirs = published[published["dataset"] == OURS.get(str(table.keys.get("dataset")), "")]
    notes, rows = Notes(table.notes), []
    for (source, method), part in theirs.groupby(["source", "method"], sort=True):
        row = _row(str(source), str(method), part, table.rates, [one.name for one in table.measures], notes)
        if any(entry.n for entry in row.entries.values()):
            rows.append(row)
    if not rows:
        where = (
            f"No paper prints numbers of {table.keys.get('dataset')} with these features, rates and lengths of codes"
        )
        return replace(table, caption=f"{table.caption} {where}.")
    caution = "Published rows stand as their papers print them, with other noise, selection and database, see notes; they do not compete"
    return replace(table, rows=(*table.rows, *rows), notes=notes.texts, caption=f"{table.caption} {caution}.")


def published_tables(published: pd.DataFrame, covered: Sequence[str]) -> list[Table]:
    """The papers' own tables, one per paper and data set, without any number of ours; ``covered``: data sets shown beside ours already."""
    tables = []
    rest = published[~published["dataset"].isin([OURS.get(name, name) for name in covered])]
    for (source, dataset, kind), part in rest.groupby(["source", "dataset", rest["measure"] == "mean_map"], sort=True):
        names = ["mean_map"] if kind else ["i2t_map", "t2i_map"]
        places = tuple(sorted({Coded(r, b) for r, b in zip(part["rate"], part["bits"], strict=True)}, key=_order))
        notes = Notes()
        rows = [
            _row(str(source), str(method), mine, places, names, notes)
            for method, mine in part.groupby("method", sort=False)
        ]
        known = SOURCES[str(source)]
        numbers = ", ".join(dict.fromkeys(part["table"]))
        caption = (
            f"Published, not reproduced here: MAP (%) on {dataset}, {known.paper} "
            f"({numbers if 'able' in numbers else f'Table {numbers}'}). "
            f"{known.setting[0].upper()}{known.setting[1:]}."
        )
        keys = dict.fromkeys(TABLE_KEYS) | {
            "task": "label-hashing",
            "dataset": str(dataset),
            "protocol": f"published: {source}",
        }
        tables.append(Table(keys, places, tuple(measures(names)), (), tuple(rows), caption, notes.texts))
    return tables


def _order(place: Coded) -> tuple[float, int]:
    return place.rate or 0.0, place.bits or 0


def _row(
    source: str, method: str, part: pd.DataFrame, places: Sequence[Rate], names: Sequence[str], notes: Notes
) -> Row:
    known = SOURCES[source]
    found: dict[tuple[Rate, str], tuple[float, str]] = {
        (place, name): _at(part, place, name) for place in places for name in names
    }
    remarks = {note for _, note in found.values() if note}
    common = {
        note for note in remarks if all(note == other for value, other in found.values() if not math.isnan(value))
    }
    common = {note for note in common if not any(word in note for word in DOUBTFUL)}
    marks = [notes.number(f"as published in {known.paper}: {known.setting}")]
    marks += [notes.number(f"published: {note}") for note in sorted(common)]
    entries = {
        key: _entry(value, () if not note or note in common else (notes.number(f"published: {note}"),))
        for key, (value, note) in found.items()
    }
    return Row(method, known.paper, entries, notes=tuple(marks), competes=False, published=True)


def _at(part: pd.DataFrame, place: Rate, name: str) -> tuple[float, str]:
    if not isinstance(place, Coded):
        return math.nan, ""
    here = part[(part["rate"] == place.rate) & (part["bits"] == place.bits) & (part["measure"] == name)]
    if here.empty:
        return math.nan, ""
    return float(here["value"].iloc[0]), str(here["note"].iloc[0])


def _entry(value: float, notes: tuple[int, ...]) -> Entry:
    return Entry(hole="–", notes=notes) if math.isnan(value) else Entry(value, n=1, expected=1, notes=notes)
