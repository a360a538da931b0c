"""Data frames of records made by hand: written to a store and loaded again, as the commands do it."""

from __future__ import annotations

import contextlib
import importlib.util
import io
import sys
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from nocobench.analysis.frame import load_frame
from nocobench.results.record import RunRecord
from nocobench.results.store import RecordStore
from sample_records import make_record, make_sidecar

PROGRAM = Path(__file__).resolve().parent.parent / "run_benchmark.py"
Cells = Mapping[tuple[str, float | None], Iterable[float | None]]


def stored(root: Path, records: Iterable[RunRecord], arrays: dict[str, np.ndarray] | None = None) -> Path:
    """Write the records under ``root``; finished ones get ``arrays`` or some that mean nothing."""
    store = RecordStore(root)
    for record in records:
        store.write(record, (arrays or make_sidecar()) if record.outcome is not None else None)
    return root


def frame_of(root: Path, records: Iterable[RunRecord], **options: Any) -> pd.DataFrame:
    """The frame of these records."""
    return load_frame([stored(root, records)], **options)


def grid(cells: Cells, label: Callable[[str], str] = str.upper, **cell: Any) -> list[RunRecord]:
    """``{("npc", 0.4): [rsum of seed 0, of seed 1, ...]}``; None leaves a seed out."""
    return [
        make_record(float(rsum), method=method, rate=rate, seed=seed, label=label(method), **cell)
        for (method, rate), values in cells.items()
        for seed, rsum in enumerate(values)
        if rsum is not None
    ]


def command(*words: object) -> tuple[int, str, str]:
    """Exit code, output and errors of ``run_benchmark.py`` with these words, in this process: a new one takes seconds to import pandas."""
    spec = importlib.util.spec_from_file_location("run_benchmark_for_tables", PROGRAM)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    path = list(sys.path)
    spec.loader.exec_module(module)
    sys.path[:] = path
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            code = module.main([str(word) for word in words])
        except SystemExit as end:
            code = int(end.code or 0)
    return code, out.getvalue(), err.getvalue()
