"""The index of records: the same frame with it as without it, and never a row of bytes that are no longer there."""

from __future__ import annotations

import json
import os
import random
import shutil
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from nocobench.analysis import frame as frame_module
from nocobench.analysis.frame import load_frame
from nocobench.results import index
from nocobench.results.index import Index
from nocobench.results.record import CellKey, RunRecord, digest_of
from nocobench.results.sidecar import sidecar_path
from nocobench.results.store import RecordStore
from sample_frames import grid, stored
from sample_records import make_label_record, make_record


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache folder of this test, which keeps the rows of a single record already."""
    folder = tmp_path / "cache"
    monkeypatch.setenv(index.VARIABLE, str(folder))
    monkeypatch.setattr(index, "FEWEST", 1)
    return folder


@pytest.fixture
def root(tmp_path: Path) -> Path:
    records = grid({("clip", 0.2): [1, 2], ("npc", 0.4): [3, 4]})
    records += [
        make_record(None, status="failed", reason="loss became NaN", method="hana", rate=None, noise="none"),
        make_record(300.0, folds=410.0, best=305.0, method="cca", flags=("control", "x")),
        make_label_record(20.0),
        make_label_record(21.0, bits=None),
    ]
    return stored(tmp_path / "runs", records)


def refuse(*_: Any, **__: Any) -> Any:
    raise AssertionError("a record was parsed although the index knows its bytes")


def parsed(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The files that are parsed from now on."""
    seen: list[Path] = []
    examine = RecordStore.examine

    def note(self: RecordStore, path: Path, content: bytes, sidecars: bool = True) -> Any:
        seen.append(path)
        return examine(self, path, content, sidecars)

    monkeypatch.setattr(RecordStore, "examine", note)
    return seen


def test_a_frame_from_the_index_is_the_frame(root: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Values, types and order, for pairs and labels, failed runs and folds."""
    monkeypatch.setenv(index.VARIABLE, "off")
    without = load_frame([root])
    monkeypatch.setenv(index.VARIABLE, str(cache))
    first = load_frame([root])
    monkeypatch.setattr(RecordStore, "examine", refuse)
    second = load_frame([root])
    assert len(without) == 8
    pd.testing.assert_frame_equal(first, without)
    pd.testing.assert_frame_equal(second, without)
    assert [type(value) for value in second["flags"]] == [tuple] * 8
    folds = second[second["method"] == "cca"]
    assert load_frame([root], cells=set(folds["cell_id"]))["rsum"].tolist() == [300.0]


def test_both_galleries_come_from_the_index(tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = stored(tmp_path / "runs", [make_record(300.0, best=310.0, folds=400.0)])
    load_frame([root])
    monkeypatch.setattr(RecordStore, "examine", refuse)
    assert load_frame([root], "folds")[["rsum", "full_rsum", "optimism"]].values.tolist() == [[400.0, 300.0, 0.0]]
    assert load_frame([root], "full")[["rsum", "full_rsum", "optimism"]].values.tolist() == [[300.0, 300.0, 10.0]]


def test_a_snapshot_that_comes_later_counts(root: Path, cache: Path) -> None:
    """What a protocol says is read anew: it is no part of the index."""
    before = load_frame([root])
    rules = {"evaluation": {"headline": "full"}, "selection": {"split": "last", "metric": "rsum"}}
    RecordStore(root).write_snapshot("toy", 1, {}, rules)
    after = load_frame([root])
    assert "unknown" in before["selection"].iloc[0]
    assert set(after.loc[after["protocol"] == "toy", "selection"]) == {"last epoch"}


def test_the_record_that_was_edited_is_read_again_whatever_its_date(
    root: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Same size, same time of change: only the bytes tell."""
    load_frame([root])
    path = next(root.rglob("npc@paper/seed1.json"))
    stat = path.stat()
    text = path.read_text()
    assert '"rsum": 4.0' in text
    path.write_text(text.replace('"rsum": 4.0', '"rsum": 9.0'))
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert (path.stat().st_size, path.stat().st_mtime_ns) == (stat.st_size, stat.st_mtime_ns)
    seen = parsed(monkeypatch)
    frame = load_frame([root])
    ((where, reason),) = frame.attrs["broken"]
    assert (where, seen) == (str(path), [path])
    assert "was changed after it was written" in reason
    assert len(frame) == 7


def test_no_flipped_bit_is_served(root: Path, cache: Path) -> None:
    """Any bit of any record, 60 times: the record is refused, or (a space in the layout) says the same as before."""
    whole = load_frame([root])
    paths = sorted(root.rglob("seed*.json"))
    draw, refused = random.Random(0), 0
    for _ in range(60):
        path = draw.choice(paths)
        content = path.read_bytes()
        place = draw.randrange(len(content))
        flipped = bytearray(content)
        flipped[place] ^= 1 << draw.randrange(8)
        path.write_bytes(bytes(flipped))
        frame = load_frame([root])
        if frame.attrs["broken"]:
            assert [where for where, _ in frame.attrs["broken"]] == [str(path)]
            refused += 1
        else:
            pd.testing.assert_frame_equal(frame, whole)
        path.write_bytes(content)
    assert refused > 20
    pd.testing.assert_frame_equal(load_frame([root]), whole)


def test_a_valid_record_of_another_outcome_takes_its_place(root: Path, cache: Path) -> None:
    load_frame([root])
    RecordStore(root).write(make_record(77.0, method="npc", rate=0.4, seed=1), existing="force")
    frame = load_frame([root])
    assert frame[(frame["method"] == "npc") & (frame["seed"] == 1)]["rsum"].tolist() == [77.0]


def test_what_bytes_do_not_say_is_checked_each_time(root: Path, cache: Path) -> None:
    """A sidecar that is gone, and a record that was moved."""
    load_frame([root])
    path = next(root.rglob("npc@paper/seed0.json"))
    sidecar_path(path).unlink()
    moved = path.with_name("seed7.json")
    other = path.with_name("seed1.json")
    other.rename(moved)
    shutil.copyfile(sidecar_path(other), sidecar_path(moved))
    frame = load_frame([root])
    reasons = dict(frame.attrs["broken"])
    assert "sidecar" in reasons[str(path)]
    assert "is missing" in reasons[str(path)]
    assert "lies in the wrong place" in reasons[str(moved)]
    os.environ[index.VARIABLE] = "off"
    assert dict(load_frame([root]).attrs["broken"]) == reasons


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: content[: len(content) // 2],
        lambda content: content.replace(b'"texts"', b'"textz"'),
        lambda content: content.replace(b"300.0", b"999.0"),
        lambda content: b"",
        lambda content: b"\x80\x04]q\x00.",
        lambda content: b"[1]\n[2]",
        lambda content: content.replace(b'"format": 1', b'"format": 2'),
        lambda content: content.replace(b'"identity": "', b'"identity": "0'),
    ],
)
def test_a_damaged_index_is_ignored_and_made_anew(
    root: Path, cache: Path, damage: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = load_frame([root])
    (path,) = cache.glob("*.json")
    good = path.read_bytes()
    path.write_bytes(damage(good))
    assert path.read_bytes() != good
    pd.testing.assert_frame_equal(load_frame([root]), whole)
    assert path.read_bytes() == good
    monkeypatch.setattr(RecordStore, "examine", refuse)
    pd.testing.assert_frame_equal(load_frame([root]), whole)


def test_other_code_takes_no_old_row(tmp_path: Path, cache: Path) -> None:
    code, files = tmp_path / "code.py", tmp_path / "files"
    files.mkdir()

    def opened(columns: tuple[str, ...] = ("a",), more: tuple[str, ...] = ()) -> Index:
        index._identity.cache_clear()  # code changes between runs of the program, not inside one
        return Index(files, columns, [code], more)

    code.write_text("x = 1")
    first = opened()
    first.put("0" * 64, (1.5,))
    assert first.save()
    assert opened().get("0" * 64) == (1.5,)
    assert opened(more=("2.0",)).get("0" * 64) is None
    assert opened(columns=("b",)).get("0" * 64) is None
    code.write_text("x = 2")
    assert opened().get("0" * 64) is None


def test_nothing_is_written_where_nothing_may_be(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A cache folder that is a file; no cache at all; and never anything beside the records."""
    monkeypatch.setattr(index, "FEWEST", 1)
    files = sorted(root.rglob("*"))
    (tmp_path / "occupied").write_text("")
    for value in (str(tmp_path / "occupied"), "off"):
        monkeypatch.setenv(index.VARIABLE, value)
        assert len(load_frame([root])) == 8
    assert (tmp_path / "occupied").read_text() == ""
    assert sorted(root.rglob("*")) == files


def test_the_folder_of_the_user(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv(index.VARIABLE, raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert index.cache_folder() == tmp_path / "nocobench"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert index.cache_folder() == tmp_path / "home" / ".cache" / "nocobench"


def test_few_new_rows_are_not_worth_writing(root: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(index, "FEWEST", 8)
    load_frame([root])
    (path,) = cache.glob("*.json")
    before = path.read_bytes()
    stored(root, [make_record(5.0, method="vse")])
    seen = parsed(monkeypatch)
    assert (len(load_frame([root])), len(seen)) == (9, 1)
    assert path.read_bytes() == before


def test_rows_of_files_that_are_gone_and_indices_of_folders_that_are_gone_go(
    root: Path, tmp_path: Path, cache: Path
) -> None:
    other = stored(tmp_path / "other", [make_record(1.0)])
    load_frame([other])
    load_frame([root])
    assert len(list(cache.glob("*.json"))) == 2
    shutil.rmtree(other)
    for path in root.rglob("clip@paper/*"):
        path.unlink()
    stored(root, [make_record(5.0, method="vse")])
    load_frame([root])
    (path,) = cache.glob("*.json")
    packed = json.loads(path.read_bytes().partition(b"\n")[2])
    assert len(packed["digests"]) == 7


def test_staleness_and_chosen_cells_see_whole_records(root: Path, cache: Path) -> None:
    load_frame([root])
    seen: list[RunRecord] = []

    def stale(record: RunRecord) -> bool:
        seen.append(record)
        return record.cell.seed == 1

    wanted = {record.cell_id for record in grid({("npc", 0.4): [3, 4]})}
    frame = load_frame([root], stale=stale, cells=wanted)
    assert frame["stale"].tolist() == [False, True]
    assert [(record.cell_id in wanted, record.outcome is None) for record in seen] == [(True, False)] * 2


def test_reading_again_on_demand(root: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = load_frame([root])
    seen = parsed(monkeypatch)
    pd.testing.assert_frame_equal(load_frame([root], again=True), whole)
    assert len(seen) == 8


def test_the_benchmark_clones_records_that_pass_every_check(tmp_path: Path) -> None:
    """More copies than originals, so that seeds are new; arrays belong to them too."""
    import importlib.util
    import sys

    path = Path(__file__).resolve().parents[1] / "benchmarks" / "records.py"
    sys.path.insert(0, str(path.parent))
    try:
        spec = importlib.util.spec_from_file_location("benchmark_of_records", path)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    finally:
        sys.path.remove(str(path.parent))
    source = stored(tmp_path / "a", [make_record(1.0, seed=0), make_record(2.0, seed=3)])
    module.clone(source, tmp_path / "b", 5)
    found = list(RecordStore(tmp_path / "b").scan())
    assert all(isinstance(record, RunRecord) for record in found), found
    assert sorted(record.cell.seed for record in found if isinstance(record, RunRecord)) == [0, 3, 4, 7, 8]
    assert module.exponent([1000, 10_000], [2.0, 20.0]) == pytest.approx(1.0)
    assert frame_module.load_frame([tmp_path / "b"])["rsum"].tolist() == [1.0, 2.0, 1.0, 2.0, 1.0]


def test_home_and_path_agree() -> None:
    store = RecordStore(Path("/records"))
    cell = CellKey(
        task="label-hashing", protocol="p", version=2, overrides={"epochs": 3}, dataset="~/my set", noise="n", rate=0.25, method="m",
        variant="v", backbone="b", track="fixed-budget", seed=4, bits=16,
    )  # fmt: skip
    mark = digest_of({"epochs": 3})[:8]
    assert store.home(cell) == f"p-v2+overrides-{mark}/%7E%2Fmy set/n-0.25/m@v-16bits/seed4.json".replace("%7E", "~")
    assert store.path(cell) == Path("/records") / store.home(cell)
