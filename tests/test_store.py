"""A stored record is complete, checked, or reported with a reason; never half there, never silently replaced."""

from __future__ import annotations

import errno
import json
import os
import random
import subprocess
import sys
import textwrap
import zipfile
from pathlib import Path

import numpy as np
import pytest
from nocobench.results import files
from nocobench.results.record import CellKey, RunRecord
from nocobench.results.sidecar import SidecarError, read_sidecar, sidecar_path, to_bytes
from nocobench.results.store import (
    BrokenRecord,
    RecordStore,
    StoreError,
    changed_sources,
    check_store,
    source_digest,
)
from sample_records import make_cell, make_record, make_sidecar

HERE = Path(__file__).parent


@pytest.fixture
def store(tmp_path: Path) -> RecordStore:
    return RecordStore(tmp_path / "runs")


def written(store: RecordStore, **cell: object) -> Path:
    record = make_record(**cell)
    assert store.write(record, make_sidecar()) == "new"
    return store.path(record.cell)


def only_broken(store: RecordStore) -> BrokenRecord:
    (found,) = store.scan()
    assert isinstance(found, BrokenRecord), found
    assert found.reason.count("\n") == 0
    return found


# --- place and content


@pytest.mark.parametrize(
    ("changes", "path"),
    [
        ({}, "toy-v1/digits/nested-mismatch-0.2/clip@paper/seed0.json"),
        ({"rate": None, "noise": "none"}, "toy-v1/digits/none-real/clip@paper/seed0.json"),
        ({"rate": 0.0, "seed": 12}, "toy-v1/digits/nested-mismatch-0.0/clip@paper/seed12.json"),
        ({"dataset": "../up/here"}, "toy-v1/%2E.%2Fup%2Fhere/nested-mismatch-0.2/clip@paper/seed0.json"),
    ],
)
def test_place(store: RecordStore, changes: dict[str, object], path: str) -> None:
    assert store.path(make_cell(**changes)).relative_to(store.root).as_posix() == path


def test_overrides_and_long_names_have_places_of_their_own(store: RecordStore) -> None:
    place = store.path(make_cell(overrides={"epochs": 2})).relative_to(store.root).parts[0]
    assert place.startswith("toy-v1+overrides-")
    assert len(place) == len("toy-v1+overrides-") + 8
    long = [store.path(make_cell(dataset="x" * 300 + end)).relative_to(store.root).parts[1] for end in "ab"]
    assert long[0] != long[1]
    assert max(map(len, long)) <= 120


def test_round_trip_with_sidecar(store: RecordStore) -> None:
    record = make_record(301.25, folds=400.0)
    assert store.state(record.cell) == "missing"
    assert store.read(record.cell) is None
    assert store.write(record, make_sidecar()) == "new"
    back = store.read(record.cell)
    assert back is not None
    assert back.model_copy(update={"outcome_digest": "", "record_digest": ""}) == record
    arrays = store.sidecar(record.cell)
    assert {name: (a.dtype, a.tolist()) for name, a in arrays.items()} == {
        name: (a.dtype, a.tolist()) for name, a in make_sidecar().items()
    }
    assert store.state(record.cell) == "done"
    assert check_store(store.root) == []
    assert [r.cell_id for r in store.scan()] == [record.cell_id]


def test_every_status_is_a_state(store: RecordStore) -> None:
    for seed, status in enumerate(["failed", "timeout", "not_applicable"]):
        store.write(make_record(None, status=status, reason="why", seed=seed))
        assert store.state(make_cell(seed=seed)) == status


def test_text_that_is_no_utf8_is_escaped(store: RecordStore) -> None:
    assert store.write(make_record(None, status="failed", reason="no file 'a\udcff'")) == "new"
    back = store.read(make_cell())
    assert back is not None
    assert back.reason == r"no file 'a\udcff'"


def test_missing_root_is_an_empty_store(store: RecordStore) -> None:
    assert list(store.scan()) == []
    assert check_store(store.root) == []


# --- what contradicts itself is not written


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"cell_id": "0" * 16}, "cell_id"),
        ({"outcome": None}, "no outcome"),
        ({"outcome_digest": "ab"}, "digest"),
        ({"status": "failed"}, "only finished runs"),
    ],
)
def test_contradictions_are_refused(store: RecordStore, changes: dict[str, object], message: str) -> None:
    with pytest.raises(StoreError, match=message):
        store.write(make_record().model_copy(update=changes), make_sidecar())
    assert not store.root.exists()


def test_arrays_of_objects_are_refused(store: RecordStore) -> None:
    with pytest.raises(SidecarError, match="object"):
        store.write(make_record(), {"x": np.array([{}], dtype=object)})
    assert list(store.scan()) == []


# --- damage is noticed


def test_every_truncation_is_noticed(store: RecordStore) -> None:
    path = written(store)
    whole = path.read_bytes()
    for length in [0, 1, 2, *range(3, len(whole) - 2, 97), len(whole) - 2]:
        path.write_bytes(whole[:length])
        assert only_broken(store).path == path
        assert store.state(make_cell()) == "broken"
    path.write_bytes(whole)
    assert check_store(store.root) == []


def test_flipped_bits_are_noticed_or_change_nothing(store: RecordStore) -> None:
    path = written(store)
    whole, original = path.read_bytes(), store.read(make_cell())
    dice = random.Random(0)
    noticed = 0
    for _ in range(300):
        damaged = bytearray(whole)
        damaged[dice.randrange(len(whole))] ^= 1 << dice.randrange(8)
        path.write_bytes(damaged)
        (found,) = store.scan(sidecars=False)
        assert isinstance(found, BrokenRecord) or found == original  # 1e-05 and 1E-05 are one bit apart and equal
        noticed += isinstance(found, BrokenRecord)
    assert noticed > 290


def test_damaged_sidecars_are_noticed(store: RecordStore) -> None:
    path = sidecar_path(written(store))
    whole = path.read_bytes()
    dice = random.Random(0)
    for _ in range(100):
        damaged = bytearray(whole)
        damaged[dice.randrange(len(whole))] ^= 1 << dice.randrange(8)
        path.write_bytes(damaged)
        for found in store.scan():
            # A flip in a date or an attribute of the archive leaves the arrays as they were.
            same = isinstance(found, RunRecord) and all(
                np.array_equal(a, read_sidecar(path)[name]) for name, a in make_sidecar().items()
            )
            assert isinstance(found, BrokenRecord) or same
    for length in (0, 10, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:length])
        assert "sidecar" in only_broken(store).reason
    path.unlink()
    assert "missing" in only_broken(store).reason
    (without_arrays,) = store.scan(sidecars=False)
    assert isinstance(without_arrays, BrokenRecord)


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda c: c["outcome"]["selected"]["full"].update(rsum=599.0), "changed after it was written"),
        (lambda c: c.update(method_label="ours"), "changed after it was written"),
        (lambda c: c["circumstances"].update(seconds={"train": 0.1}), "changed after it was written"),
        (lambda c: c["cell"].update(seed=1), "changed after it was written"),
        (lambda c: c.pop("record_digest"), "changed after it was written"),
        (lambda c: c.update(schema_version=99), "schema version 99"),
        (lambda c: c.update(schema_version=None), "schema version None"),
    ],
)
def test_edits_by_hand_are_noticed(store: RecordStore, edit: object, message: str) -> None:
    path = written(store)
    content = json.loads(path.read_bytes())
    edit(content)  # type: ignore[operator]
    path.write_text(json.dumps(content))
    assert message in only_broken(store).reason
    with pytest.raises(StoreError, match=message):
        store.read(make_cell())


@pytest.mark.parametrize("text", ["[]", "3", "null", '"x"', "{}", "[" * 100_000, '{"a": "\\ud800"}', "\x00", "NaN"])
def test_strange_files_are_reported(store: RecordStore, text: str) -> None:
    path = store.path(make_cell())
    path.parent.mkdir(parents=True)
    path.write_text(text)
    assert str(path) in only_broken(store).reason


def test_a_folder_named_like_a_record_is_no_crash(store: RecordStore) -> None:
    store.path(make_cell()).mkdir(parents=True)
    assert store.state(make_cell()) == "broken"
    assert list(store.scan()) == []


def test_sidecar_of_another_record_is_noticed(store: RecordStore) -> None:
    path = written(store)
    sidecar_path(path).write_bytes(to_bytes(make_sidecar(offset=1)))
    assert "does not belong" in only_broken(store).reason


def test_misplaced_record_is_reported(store: RecordStore) -> None:
    path = written(store)
    for file in (path, sidecar_path(path)):
        file.rename(file.with_name(file.name.replace("seed0", "seed7")))
    assert "wrong place" in only_broken(store).reason
    assert store.state(make_cell(seed=7)) == "broken"
    assert store.state(make_cell()) == "missing"


def test_another_cell_at_the_same_place_is_not_taken(store: RecordStore) -> None:
    written(store)
    other = make_cell(backbone="mlp-256")
    assert store.path(other) == store.path(make_cell())
    assert store.state(other) == "broken"
    with pytest.raises(StoreError, match="backbone"):
        store.read(other)


# --- nothing is half there


def test_killed_before_the_name_is_given(store: RecordStore) -> None:
    """A process that dies between the temporary file and its name leaves no record."""
    code = f"""
        import os, sys
        sys.path.insert(0, {str(HERE)!r})
        from sample_records import make_record, make_sidecar
        from nocobench.results.store import RecordStore
        give_name, calls = os.replace, []
        def die_at(source, target):
            calls.append(target)
            if len(calls) == int(sys.argv[1]):
                os._exit(9)
            give_name(source, target)
        os.replace = die_at
        RecordStore({str(store.root)!r}).write(make_record(), make_sidecar())
    """
    for replacement in ("1", "2"):  # the sidecar's, then the record's
        done = subprocess.run([sys.executable, "-c", textwrap.dedent(code), replacement], capture_output=True)
        assert done.returncode == 9, done.stderr
        assert store.state(make_cell()) == "missing"
        assert list(store.scan()) == []
    problems = check_store(store.root)
    assert (
        sum("interrupted write" in problem for problem in problems) == 1
    )  # writing the sidecar again removed the first one
    assert store.write(make_record(), make_sidecar()) == "new"
    assert store.state(make_cell()) == "done"


def test_two_processes_may_write_the_same_cell(store: RecordStore) -> None:
    code = f"""
        import sys
        sys.path.insert(0, {str(HERE)!r})
        from sample_records import make_record, make_sidecar
        from nocobench.results.store import RecordStore
        store = RecordStore({str(store.root)!r}, "force")
        for _ in range(30):
            store.write(make_record(), make_sidecar())
    """
    workers = [subprocess.Popen([sys.executable, "-c", textwrap.dedent(code)]) for _ in range(2)]
    while any(worker.poll() is None for worker in workers):
        assert store.state(make_cell()) in ("missing", "done")
    assert [worker.wait() for worker in workers] == [0, 0]
    assert check_store(store.root) == []


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EROFS])
def test_full_and_read_only_disks_are_named(store: RecordStore, code: int, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(files.os, "fsync", refuse)
    with pytest.raises(StoreError, match="choose another folder with --results") as caught:
        store.write(make_record(), make_sidecar())
    assert f"written to {store.root} (" in str(caught.value)
    assert os.strerror(code) in str(caught.value)
    assert [p for p in store.root.rglob("*") if p.is_file()] == []


def test_root_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "runs").write_text("")
    with pytest.raises(StoreError, match="cannot be written"):
        RecordStore(tmp_path / "runs").write(make_record(), make_sidecar())


def test_files_have_ordinary_permissions(store: RecordStore) -> None:
    umask = os.umask(0o022)
    try:
        path = written(store)
    finally:
        os.umask(umask)
    assert path.stat().st_mode & 0o777 == 0o644


# --- what replaces what


def test_a_finished_record_stays(store: RecordStore) -> None:
    path = written(store)
    before = path.read_bytes()
    assert store.write(make_record(), make_sidecar()) == "same"
    with pytest.warns(RuntimeWarning, match="another outcome"):
        assert store.write(make_record(200.0), make_sidecar()) == "different"
    for existing in ("keep", "retry"):
        assert store.write(make_record(None, status="failed", reason="x"), existing=existing) == "kept"
    assert path.read_bytes() == before


def test_a_failure_is_replaced_only_on_retry(store: RecordStore) -> None:
    failed = make_record(None, status="failed", reason="loss became NaN in epoch 3")
    assert store.write(failed) == "new"
    with pytest.warns(RuntimeWarning, match="--retry failed"):
        assert store.write(make_record(), make_sidecar()) == "kept"
    assert store.state(failed.cell) == "failed"
    assert RecordStore(store.root, "retry").write(make_record(), make_sidecar()) == "replaced"
    assert store.state(failed.cell) == "done"


@pytest.mark.parametrize(("rsum", "answer"), [(300.0, "same"), (301.0, "different")])
def test_force_keeps_the_old_record_and_compares(store: RecordStore, rsum: float, answer: str) -> None:
    path = written(store)
    old = {file.name: file.read_bytes() for file in (path, sidecar_path(path))}
    assert store.write(make_record(rsum), make_sidecar(), existing="force") == answer
    now = store.read(make_cell())
    assert now is not None
    assert now.outcome.selected.full.rsum == rsum
    kept = {file.name.split(".npz")[0].split(".json")[0]: file for file in path.parent.glob("*.old")}
    assert len(list(path.parent.glob("*.old"))) == 2
    assert kept
    assert sorted(file.read_bytes() for file in path.parent.glob("*.old")) == sorted(old.values())
    assert len(list(store.scan())) == 1
    assert check_store(store.root) == []


def test_a_broken_record_is_replaced_and_kept_aside(store: RecordStore) -> None:
    path = written(store)
    path.write_text("{")
    assert store.write(make_record(), make_sidecar()) == "replaced"
    assert store.state(make_cell()) == "done"
    assert "{" in [file.read_text() for file in path.parent.glob("*.json.*.old")]


# --- sidecars


def test_same_arrays_same_bytes() -> None:
    arrays = make_sidecar()
    reordered = {name: np.asfortranarray(arrays[name]) for name in reversed(arrays)}
    assert to_bytes(arrays) == to_bytes(reordered)
    assert to_bytes(make_sidecar(1)) != to_bytes(arrays)


def test_shapes_and_types_survive(tmp_path: Path) -> None:
    arrays = {
        "scalar": np.float32(2.5), "empty": np.zeros((0, 3)), "text": np.array(["ä", "b"]), "big": np.arange(3, dtype=">i8"),
        "a/b/c": np.array([True]),
    }  # fmt: skip
    path = tmp_path / "x.npz"
    path.write_bytes(to_bytes(arrays))
    back = read_sidecar(path)
    for name, array in arrays.items():
        assert back[name].shape == np.shape(array)
        assert back[name].dtype == np.asarray(array).dtype
        assert np.array_equal(back[name], array)
    with np.load(path, allow_pickle=False) as by_numpy:  # an ordinary .npz for everybody else
        assert sorted(by_numpy) == sorted(arrays)


def test_pickled_arrays_are_never_loaded(tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return os.mkdir, (str(tmp_path / "sprung"),)

    path = tmp_path / "x.npz"
    np.savez(path, x=np.array([Trap()], dtype=object))
    with pytest.raises(SidecarError, match="cannot be read"):
        read_sidecar(path)
    assert not (tmp_path / "sprung").exists()


def test_array_with_bytes_to_spare_is_refused(tmp_path: Path) -> None:
    whole = tmp_path / "a.npz"
    whole.write_bytes(to_bytes({"x": np.arange(3)}))
    with zipfile.ZipFile(whole) as archive:
        content = archive.read("x.npy")
    with zipfile.ZipFile(tmp_path / "b.npz", "w") as archive:
        archive.writestr("x.npy", content + b"\0")
    with pytest.raises(SidecarError, match="longer"):
        read_sidecar(tmp_path / "b.npz")


# --- snapshots of protocols


def test_snapshot(store: RecordStore) -> None:
    content = {"seeds": (0, 1), "budget": {"epochs": 20, "optimizer": {"rate": 1e-3}}}
    store.write_snapshot("toy", 1, {}, content)
    store.write_snapshot("toy", 1, {}, dict(reversed(content.items())))
    with pytest.raises(StoreError, match=r"budget\.epochs: 20 became 30.*raise the version"):
        store.write_snapshot("toy", 1, {}, {**content, "budget": {**content["budget"], "epochs": 30}})
    store.write_snapshot("toy", 2, {}, {})
    store.write_snapshot("toy", 1, {"epochs": 30}, {})
    snapshot = store.read_snapshot("toy", 1, {})
    assert snapshot is not None
    assert snapshot["resolved"]["budget"]["epochs"] == 20
    assert store.read_snapshot("toy", 3, {}) is None
    assert list(store.scan()) == []
    assert check_store(store.root) == []


def test_damaged_snapshot_is_reported(store: RecordStore) -> None:
    store.write_snapshot("toy", 1, {}, {"a": 1})
    path = store.root / "toy-v1" / "protocol.json"
    path.write_text(path.read_text()[:-5])
    with pytest.raises(StoreError, match="restore or delete"):
        store.write_snapshot("toy", 1, {}, {"a": 1})
    assert any("snapshot" in problem for problem in check_store(store.root))


def test_check_store_lists_what_lies_about(store: RecordStore) -> None:
    path = written(store)
    sidecar_path(path).with_name("seed9.npz").write_bytes(b"")
    written(store, seed=1).write_text("x")
    problems = check_store(store.root)
    assert len(problems) == 2
    assert any("no record beside it" in problem for problem in problems)


# --- staleness

SOURCE = '''"""Module."""
import math  # why


class A:
    """What."""

    def f(self, x: int) -> str:
        """Doc."""
        return f"{x:>{4}} {{a}}" + "text"
'''


def digest(tmp_path: Path, source: str) -> str:
    path = tmp_path / f"s{len(list(tmp_path.iterdir()))}.py"
    path.write_text(source, encoding="utf-8")
    return source_digest([path])


@pytest.mark.parametrize(
    "edited",
    [
        SOURCE.replace('"""Module."""', '"""Módule, at length\n\nand breadth."""'),
        SOURCE.replace('"""Module."""\n', ""),
        SOURCE.replace("# why", "# because"),
        SOURCE.replace('        """Doc."""\n', ""),
        SOURCE.replace("class A", "\n\n\n# here\nclass A"),
        SOURCE.replace('    """What."""\n\n', '    """What."""\n'),
        SOURCE.replace("    def", "  def").replace("        ", "      ").replace('    """What', '  """What'),
    ],
)
def test_prose_and_layout_do_not_make_stale(tmp_path: Path, edited: str) -> None:
    assert edited != SOURCE
    assert digest(tmp_path, edited) == digest(tmp_path, SOURCE)


@pytest.mark.parametrize(
    "edited",
    [
        SOURCE.replace('"text"', '"Text"'),
        SOURCE.replace(">{4}", ">{5}"),
        SOURCE.replace("{{a}}", "{{b}}"),
        SOURCE.replace("import math", "import cmath"),
        SOURCE.replace("return f", "return\n        f"),
        SOURCE + 'x = """a string that is no docstring"""\n',
    ],
)
def test_code_makes_stale(tmp_path: Path, edited: str) -> None:
    assert edited != SOURCE
    assert digest(tmp_path, edited) != digest(tmp_path, SOURCE)


def test_source_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="cannot be read"):
        source_digest([tmp_path / "no.py"])
    (tmp_path / "bad.py").write_text("def (")
    with pytest.raises(StoreError, match="cannot be read"):
        source_digest([tmp_path / "bad.py"])


def test_changed_sources() -> None:
    record = make_record()
    old = record.circumstances.model_copy(update={"sources": {"method": "a", "engine": "b"}})
    record = record.model_copy(update={"circumstances": old})
    assert changed_sources(record, {"method": "a", "engine": "b"}) == ()
    assert changed_sources(record, {"method": "a", "engine": "c", "noise": "d"}) == ("engine", "noise")


def test_cells_round_trip_through_their_file(store: RecordStore) -> None:
    for rate in (None, 0.0, 0.1, 1 / 3, 1e-7, 1.0):
        written(store, rate=rate, noise="none" if rate is None else "caption-shuffle")
    assert all(isinstance(record, RunRecord) and isinstance(record.cell, CellKey) for record in store.scan())
    assert check_store(store.root) == []
