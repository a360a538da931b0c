"""Everything that records hold as one table of plain values, a row per record (columns: docs/export.md); written as CSV or Parquet."""

from __future__ import annotations

import importlib.util
import io
from pathlib import Path

import pandas as pd

from ..results.files import write_atomic
from .frame import COLUMNS, AnalysisError

# Whether a record is stale is a question to today's source code, not to the record.
EXPORTED = tuple(name for name in COLUMNS if name != "stale")
WHOLE_NUMBERS = (
    "version", "seed", "bits", "selected_epoch", "networks_at_test", "parameters", "gradient_steps", "peak_memory_bytes", "threads",
    "width",
)  # fmt: skip
_LISTS = ("flags", "grants")


def record_table(frame: pd.DataFrame) -> pd.DataFrame:
    """The rows of :func:`.frame.load_frame` in order of path, with full precision.

    Whole numbers are integers, lists are joined by semicolons, and what a record does not have is missing.
    """
    table = frame.sort_values("path", kind="stable")[list(EXPORTED)].reset_index(drop=True)
    table = table.assign(**{name: table[name].map(_joined) for name in _LISTS})
    table = table.assign(git_dirty=table["git_dirty"].astype("boolean"))
    return table.astype(dict.fromkeys(WHOLE_NUMBERS, "Int64"))


def _joined(values: object) -> str:
    return ";".join(values) if isinstance(values, tuple) else ""


def to_csv(table: pd.DataFrame) -> str:
    """Comma-separated text; missing values are empty."""
    return table.to_csv(index=False, lineterminator="\n")


def write_parquet(table: pd.DataFrame, path: Path) -> None:
    """One Parquet file.

    Raises:
        AnalysisError: pyarrow is not installed.
        DiskError: the file cannot be written.
    """
    if importlib.util.find_spec("pyarrow") is None:
        raise AnalysisError(
            "Parquet files are written by pyarrow, which is not installed here; install it with `pip install 'nocobench[parquet]'` (in a "
            "checkout `pip install -e '.[parquet]'`), or choose --format csv"
        )
    content = io.BytesIO()
    table.to_parquet(content, index=False, engine="pyarrow")
    write_atomic(path, content.getvalue(), option="--out")
