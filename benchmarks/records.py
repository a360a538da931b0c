"""How fast records are read: cold (every file parsed and checked) and warm (rows from the index), for growing numbers of them.

The records are the reference ones under further seeds, each with the digests that belong to it and with the arrays of its original, in a
temporary folder. Every measurement is a fresh process with one thread and an index of its own; files come from the memory of the
operating system, not from the disk. The exponent is the slope of log(CPU seconds) against log(number of records).
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from shards import PROGRAM, facts, keep, measured, spread

REFERENCE = PROGRAM.parent / "results" / "reference" / "cpu-x86_64"
SIZES = (1000, 3000, 10_000)
Row = tuple[str, ...]


def clone(source: Path, target: Path, count: int) -> None:
    """``count`` records like those of ``source``: whole rounds of it, then a part, each round under seeds of its own.

    Raises:
        ValueError: the source holds no finished records.
    """
    from nocobench.results.record import CellKey, digest_of
    from nocobench.results.sidecar import sidecar_path
    from nocobench.results.store import SNAPSHOT, RecordStore

    store = RecordStore(target)
    originals = list(RecordStore(source).files())
    if not originals:
        raise ValueError(f"there are no records in {source}")
    for path in source.glob(f"*/{SNAPSHOT}"):
        (target / path.parent.name).mkdir(parents=True)
        shutil.copyfile(path, target / path.parent.name / SNAPSHOT)
    step = 1 + max(json.loads(path.read_bytes())["cell"]["seed"] for path in originals)
    for number in range(count):
        original = originals[number % len(originals)]
        content: dict[str, Any] = json.loads(original.read_bytes())
        content["cell"]["seed"] += step * (number // len(originals))
        cell = CellKey(**content["cell"])
        content["cell_id"] = cell.cell_id
        content["record_digest"] = digest_of({key: value for key, value in content.items() if key != "record_digest"})
        path = store.path(cell)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        if sidecar_path(original).exists():
            shutil.copyfile(sidecar_path(original), sidecar_path(path))


def read(root: Path) -> dict[str, float]:
    """Seconds of one reading in this process, imports not counted.

    Raises:
        RuntimeError: a file was refused.
    """
    from nocobench.analysis.frame import load_frame

    started = time.perf_counter(), time.process_time()
    frame = load_frame([root])
    wall, cpu = time.perf_counter() - started[0], time.process_time() - started[1]
    if frame.attrs["broken"]:
        raise RuntimeError(f"{len(frame.attrs['broken'])} records were refused: {frame.attrs['broken'][0]}")
    return {"records": len(frame), "wall": wall, "cpu": cpu}


def measure(count: int, repeats: int, folder: Path) -> dict[str, Any]:
    """Raw numbers for one size: seconds and peak memory of cold and warm readings, and of the command ``tables``."""
    root = folder / f"records-{count}"
    clone(REFERENCE, root, count)
    found: dict[str, Any] = {"records": count, "cold": [], "warm": [], "tables": []}
    for repeat in range(repeats):
        environment = {"OMP_NUM_THREADS": "1", "NOCOBENCH_CACHE": str(folder / f"index-{count}-{repeat}")}
        for kind in ("cold", "warm"):
            cost, text = measured([sys.executable, __file__, "--read", str(root)], environment)
            found[kind].append(json.loads(text.splitlines()[-1]) | {"memory": cost.memory})
            if found[kind][-1]["records"] != count:
                raise RuntimeError(f"{found[kind][-1]['records']} of {count} records were read")
        command = [sys.executable, str(PROGRAM), "tables", "--from", str(root), "--out", str(folder / "tables.txt")]
        cost, _ = measured(command, environment)
        found["tables"].append({"wall": cost.wall, "cpu": cost.cpu, "memory": cost.memory})
    found["index MB"] = sum(path.stat().st_size for path in (folder / f"index-{count}-0").iterdir()) / 1e6
    shutil.rmtree(root)
    return found


def exponent(sizes: Sequence[int], seconds: Sequence[float]) -> float:
    """The slope of a straight line through the logarithms."""
    return float(np.polyfit(np.log(sizes), np.log(seconds), 1)[0])


def _middle(values: Sequence[dict[str, float]], name: str) -> float:
    return float(np.median([value[name] for value in values]))


def table(raw: Sequence[dict[str, Any]]) -> list[Row]:
    """Lines to print, heads first."""
    rows: list[Row] = [
        ("records", "cold, CPU s", "records/s", "warm, CPU s", "records/s", "warm, seconds", "warm, peak MiB", "`tables`, CPU s",
         "`tables`, peak MiB", "index MB")
    ]  # fmt: skip
    for one in raw:
        rates = [f"{one['records'] / _middle(one[kind], 'cpu'):,.0f}" for kind in ("cold", "warm")]
        spreads = [spread([value["cpu"] for value in one[kind]]) for kind in ("cold", "warm", "tables")]
        rows.append(
            (f"{one['records']:,}", spreads[0], rates[0], spreads[1], rates[1], f"{_middle(one['warm'], 'wall'):.2f}",
             f"{_middle(one['warm'], 'memory'):.0f}", spreads[2], f"{_middle(one['tables'], 'memory'):.0f}", f"{one['index MB']:.1f}")
        )  # fmt: skip
    sizes = [one["records"] for one in raw]
    if len(sizes) > 1:
        grown = {
            kind: f"{exponent(sizes, [_middle(one[kind], 'cpu') for one in raw]):.2f}"
            for kind in ("cold", "warm", "tables")
        }
        rows.append(("exponent", grown["cold"], "", grown["warm"], "", "", "", grown["tables"], "", ""))
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", nargs="+", type=int, default=list(SIZES), metavar="N")
    parser.add_argument("--repeats", type=int, default=3, metavar="N")
    parser.add_argument("--json", type=Path, metavar="FILE", help="append the raw numbers to a list")
    parser.add_argument(
        "--clone", nargs=2, metavar=("N", "DIR"), help="only make N records in a new folder, and keep them"
    )
    parser.add_argument("--read", type=Path, metavar="DIR", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.read:
        print(json.dumps(read(given.read)))
        return
    if given.clone:
        clone(REFERENCE, Path(given.clone[1]), int(given.clone[0]))
        return
    with tempfile.TemporaryDirectory() as folder:
        raw = [measure(count, given.repeats, Path(folder)) for count in sorted(given.sizes)]
    rows = table(raw)
    print("| " + " | ".join(rows[0]) + " |", "| " + " | ".join(["---"] * len(rows[0])) + " |", sep="\n")
    print("\n".join("| " + " | ".join(row) + " |" for row in rows[1:]))
    print(f"\n{json.dumps(facts())}")
    if given.json:
        keep(given.json, {"machine": facts(), "repeats": given.repeats, "numbers": {"records": raw}})


if __name__ == "__main__":
    main()
