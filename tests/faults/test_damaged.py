"""Files that were whole once: truncated, bits flipped, of another schema, edited by hand. Each is named, and none is used."""

from __future__ import annotations

import json
import random
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from faults.harness import Forks, Grid, assert_clean, outcomes
from faults.ledger import Ledger
from nocobench.results.record import digest_of
from nocobench.results.sidecar import sidecar_path
from nocobench.results.store import check_store

import run_benchmark

Damage = Callable[[Path, random.Random], Path]  # of a record and its arrays; gives the file that is to be named


def truncated(record: Path, draw: random.Random) -> Path:
    content = record.read_bytes()
    record.write_bytes(content[: draw.randrange(len(content) - 1)])
    return record


def emptied(record: Path, draw: random.Random) -> Path:
    record.write_bytes(b"")
    return record


def flipped(record: Path, draw: random.Random) -> Path:
    """One bit inside a number, where the text stays JSON."""
    content = bytearray(record.read_bytes())
    places = [place for place, byte in enumerate(content) if chr(byte).isdigit()]
    content[draw.choice(places)] ^= 1
    record.write_bytes(bytes(content))
    return record


def arrays_truncated(record: Path, draw: random.Random) -> Path:
    path = sidecar_path(record)
    content = path.read_bytes()
    path.write_bytes(content[: draw.randrange(len(content))])
    return path


def arrays_flipped(record: Path, draw: random.Random) -> Path:
    """One bit of the compressed numbers of the first array, which begin behind its header."""
    path = sidecar_path(record)
    content = bytearray(path.read_bytes())
    content[draw.randrange(60, 120)] ^= 1 << draw.randrange(8)
    path.write_bytes(bytes(content))
    return path


def arrays_missing(record: Path, draw: random.Random) -> Path:
    sidecar_path(record).unlink()
    return sidecar_path(record)


def arrays_of_another(record: Path, draw: random.Random) -> Path:
    other = next(path for path in sorted(record.parents[1].rglob("*.npz")) if path != sidecar_path(record))
    shutil.copyfile(other, sidecar_path(record))
    return sidecar_path(record)


def edited(change: Callable[[dict[str, Any]], None], sign: bool = False) -> Damage:
    def damage(record: Path, draw: random.Random) -> Path:
        content = json.loads(record.read_bytes())
        change(content)
        if sign:  # by somebody who knows how the digest is made
            content["record_digest"] = digest_of({k: v for k, v in content.items() if k != "record_digest"})
        record.write_text(json.dumps(content, indent=1))
        return record

    return damage


def better(content: dict[str, Any]) -> None:
    content["outcome"]["selected"]["full"]["rsum"] += 10


DAMAGES: dict[str, Damage] = {
    "truncated record": truncated,
    "empty record": emptied,
    "bit flip in a record": flipped,
    "truncated arrays": arrays_truncated,
    "bit flip in arrays": arrays_flipped,
    "missing arrays": arrays_missing,
    "arrays of another record": arrays_of_another,
    "record of an older schema": edited(lambda content: content.update(schema_version=0), sign=True),
    "record of an unknown schema": edited(lambda content: content.update(schema_version=99), sign=True),
    "record without a schema": edited(lambda content: content.pop("schema_version"), sign=True),
    "record edited by hand": edited(better),
    "record edited by hand, its own digest made anew": edited(better, sign=True),
    "status edited by hand": edited(lambda content: content.update(status="failed"), sign=True),
    "record of another seed": edited(lambda content: content["cell"].update(seed=7), sign=True),
}
ROUNDS = [list(DAMAGES)[number::4] for number in range(4)]


def records_in(results: Path) -> list[Path]:
    return [path for path in sorted((results / "runs").rglob("*.json")) if path.name != "protocol.json"]


@pytest.mark.parametrize("kinds", ROUNDS, ids=lambda kinds: f"{len(kinds)} kinds")
def test_damaged_records_are_named_and_computed_again(
    kinds: list[str], forks: Forks, grid: Grid, complete: Path, undisturbed: dict[str, str], tmp_path: Path, ledger: Ledger,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    results, draw = tmp_path / "results", random.Random(len(kinds))
    shutil.copytree(complete, results)
    assert len(kinds) <= len(records_in(results))
    named = [DAMAGES[kind](record, draw) for kind, record in zip(kinds, records_in(results), strict=False)]
    assert run_benchmark.main(["results", "check", "--results", str(results)]) == 1
    printed = capsys.readouterr().out.splitlines()
    for kind, path in zip(kinds, named, strict=True):
        (line,) = [line for line in printed if str(path) in line and "run the cell again" in line]
        assert line.count(str(path)) == 1, kind
    assert printed[-1].endswith(f"{len(kinds)} problem{'s' * (len(kinds) > 1)}"), printed
    code, text = forks.run(grid.words(results))
    assert code == 0, text
    assert f"{len(kinds)} broken (computed again" in text
    for kind in kinds:
        ledger.fault(kind)
    ledger.compare(undisturbed, outcomes(results))
    assert_clean(results)
    assert len(list(results.rglob("seed*.json.*.old"))) == len(kinds), "what was there is kept"


@pytest.mark.slow
def test_any_bit_of_records_and_arrays(complete: Path, tmp_path: Path, ledger: Ledger) -> None:
    """Flipped one at a time, it is noticed or changes nothing that anybody reads (padding, a date in a zip entry)."""
    results, draw, noticed = tmp_path / "results", random.Random(5), 0
    shutil.copytree(complete, results)
    expected, runs = outcomes(results), results / "runs"
    files = [path for record in records_in(results) for path in (record, sidecar_path(record))]
    for number in range(800):
        path = files[number % len(files)]
        whole = path.read_bytes()
        content = bytearray(whole)
        content[draw.randrange(len(content))] ^= 1 << draw.randrange(8)
        path.write_bytes(bytes(content))
        problems = check_store(runs)
        noticed += bool(problems)
        if problems:
            assert all(str(path) in problem or str(path.with_suffix(".json")) in problem for problem in problems)
        else:
            assert outcomes(results) == expected
        path.write_bytes(whole)
    ledger.fault("any bit of a record or its arrays", 800)
    assert noticed > 700


def interrupted(forks: Forks, grid: Grid, results: Path) -> Path:
    """Stop in training; gives the checkpoint."""
    aim = {"role": "worker", "shard": 0, "point": "nocobench.protocols.batched:BatchedDriver.step", "call": 12}
    code, text = forks.run(grid.words(results), aim | {"signal": signal.SIGTERM, "to": "command"})
    assert code == 130, text
    (checkpoint,) = (results / "plans" / "checkpoints").iterdir()
    return checkpoint


@pytest.mark.parametrize("place", [0.6, *(pytest.param(place / 20, marks=pytest.mark.slow) for place in range(20))])
def test_a_damaged_checkpoint_is_not_used(
    place: float, forks: Forks, grid: Grid, undisturbed: dict[str, str], tmp_path: Path, ledger: Ledger
) -> None:
    """PyTorch alone reads tensors with flipped bits and says nothing."""
    checkpoint = interrupted(forks, grid, tmp_path)
    content = bytearray(checkpoint.read_bytes())
    content[int(place * len(content))] ^= 4
    checkpoint.write_bytes(bytes(content))
    code, text = forks.run(grid.words(tmp_path))
    assert code == 0, text
    ledger.fault("bit flip in a checkpoint")
    ledger.compare(undisturbed, outcomes(tmp_path))
    assert_clean(tmp_path)


def test_a_damaged_plan_is_not_used(
    forks: Forks, grid: Grid, undisturbed: dict[str, str], tmp_path: Path, ledger: Ledger
) -> None:
    interrupted(forks, grid, tmp_path)
    (plan,) = (tmp_path / "plans").glob("*.json")
    plan.write_bytes(plan.read_bytes()[:300] + b"\xff")
    code, text = forks.run(grid.words(tmp_path))
    assert code == 0, text
    ledger.fault("truncated plan")
    ledger.compare(undisturbed, outcomes(tmp_path))
    assert_clean(tmp_path)


def test_a_damaged_snapshot_is_named_and_nothing_is_mixed(
    forks: Forks, grid: Grid, complete: Path, undisturbed: dict[str, str], tmp_path: Path, ledger: Ledger
) -> None:
    """Without it nobody can say whether new cells were made under the same protocol: refused, until it is mended."""
    results = tmp_path / "results"
    shutil.copytree(complete, results)
    (snapshot,) = results.rglob("protocol.json")
    whole = snapshot.read_bytes()
    snapshot.write_bytes(whole[:100])
    for record in records_in(results)[:1]:
        record.unlink()
    code, text = forks.run(grid.words(results))
    assert code == 2, text
    ledger.fault("truncated snapshot of the protocol")
    assert f"snapshot {snapshot} cannot be read" in text
    assert "restore or delete it" in text
    snapshot.write_bytes(whole)
    assert forks.run(grid.words(results))[0] == 0
    ledger.compare(undisturbed, outcomes(results))
    assert_clean(results)
