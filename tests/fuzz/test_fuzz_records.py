"""Records, arrays beside them, snapshots and plans: what was changed is named, and what its author signed again cannot do harm."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fuzz.asking import check_sentence, checked, refused
from fuzz.canary import pickled
from fuzz.child import Child
from fuzz.counting import attempt, fuzzing
from fuzz.damage import changed, damaged
from hypothesis import given
from hypothesis import strategies as st
from nocobench.protocols.plan import Plan, read_plan
from nocobench.protocols.protocol import ProtocolError, load_protocol
from nocobench.results.record import digest_of
from nocobench.results.sidecar import SidecarError, read_sidecar, sidecar_path, to_bytes
from nocobench.results.store import BrokenRecord, RecordStore, check_store
from sample_records import make_cell, make_label_record, make_record, make_sidecar

RUNS = Path("results/runs")


def written() -> RecordStore:
    """A few good records with their arrays and a snapshot, as users have them."""
    shutil.rmtree("results", ignore_errors=True)
    store = RecordStore(RUNS)
    for seed in range(2):
        for method in ("clip", "npc"):
            store.write(make_record(300.0 + seed, method=method, seed=seed), make_sidecar(seed))
    store.write(make_label_record(30.0), make_sidecar())
    store.write(make_record(None, "failed", "RuntimeError: x", seed=9))
    store.write_snapshot("toy", 1, {}, load_protocol("digits-pairs").model_dump(mode="json"))
    return store


def first(store: RecordStore) -> Path:
    return store.path(make_cell())


COMMANDS = (
    ("results", "check"),
    ("list", "runs"),
    ("tables",),
    ("tables", "--columns", "paper", "--honesty", "--format", "latex"),
    ("significance",),
)


def looked_at(*commands: tuple[str, ...]) -> None:
    for words in commands or COMMANDS:
        checked(*words, "--results", "results")


@given(st.data())
@fuzzing(20)
def test_damaged_records(data: st.DataObject) -> None:
    path = first(written())
    content = data.draw(damaged(path.read_bytes()))
    with attempt("record", content):
        path.write_bytes(content)
        found = [record for record in RecordStore(RUNS).scan() if isinstance(record, BrokenRecord)]
        problems = check_store(RUNS)
        assert len(found) <= len(problems) <= 2


def signed(content: Any) -> bytes:
    """With the digests that its content has, as only somebody who means it would write it."""
    if isinstance(content, dict):
        content["record_digest"] = digest_of({key: value for key, value in content.items() if key != "record_digest"})
    return json.dumps(content).encode()


def place(content: Any, store: RecordStore, path: Path) -> Path:
    """Where the changed record would have to lie, if its cell still says where."""
    try:
        cell = make_cell(**content["cell"])
        path = store.path(cell)
        content["cell_id"] = cell.cell_id
        path.parent.mkdir(parents=True, exist_ok=True)
    except (KeyError, TypeError, ValueError, OSError):
        pass  # it stays where it was
    return path


@given(st.sampled_from(("cell", "outcome", "circumstances", "")), st.booleans(), st.data())
@fuzzing(15)
def test_signed_records(part: str, labels: bool, data: st.DataObject) -> None:
    """Whoever can compute digests can write any record: no command fails over one."""
    store = written()
    path = store.path(make_label_record(30.0).cell) if labels else first(store)
    arrays = sidecar_path(path).read_bytes()
    content = json.loads(path.read_text())
    if part:
        content[part] = data.draw(changed(content[part]))
    else:
        content = data.draw(changed(content))
    with attempt("record", content):
        try:
            content["outcome_digest"] = digest_of(content["outcome"], read_sidecar(sidecar_path(path)))
            path = place(content, store, path)
            path.write_bytes(signed(content))
        except (KeyError, TypeError, ValueError):
            path.write_text(json.dumps(content))
        sidecar_path(path).write_bytes(arrays)
        looked_at(COMMANDS[0], COMMANDS[1], COMMANDS[2])
        assert set(Path().iterdir()) == {Path("results")}


HOSTILE = {
    "deep": b"[" * 200_000,
    "deep objects": b'{"a":' * 100_000,
    "digits": b'{"schema_version": ' + b"9" * 100_000 + b"}",
    "surrogate": b'{"schema_version": 1, "cell": "\\ud800"}',
    "not a dictionary": b"[1]",
    "UTF-16": '{"schema_version": 1}'.encode("utf-16"),
    "pickle": pickled(),
    "long key": b'{"' + b"k" * 10**6 + b'": 1}',
    "infinity": b'{"schema_version": 1e999}',
    "nothing": b"",
}


@pytest.mark.parametrize("name", HOSTILE)
@pytest.mark.parametrize("file", ["seed0.json", "protocol.json"])
def test_hostile_json(name: str, file: str) -> None:
    store = written()
    path = first(store) if file == "seed0.json" else RUNS / "toy-v1" / file
    with attempt("record", name):
        path.write_bytes(HOSTILE[name])
        looked_at()
        assert checked("results", "check", "--results", "results").code == 1


@given(st.data())
@fuzzing(60)
def test_damaged_sidecars(data: st.DataObject) -> None:
    path = Path("seed0.npz")
    content = data.draw(damaged(to_bytes(make_sidecar())))
    with attempt("sidecar", content):
        path.write_bytes(content)
        try:
            read_sidecar(path)
        except SidecarError as error:
            check_sentence(error)


def test_signed_arrays_of_other_shapes() -> None:
    """Figures and tests over queries read the arrays; whatever they are, no command fails over them."""
    for arrays in (
        {},
        {"i2t_better": np.zeros((2, 3))},
        {"i2t_better": np.full(5, np.nan), "t2i_better": np.array("x")},
        make_sidecar() | {"signal_epochs": np.arange(9)},
    ):
        store = written()
        path = first(store)
        with attempt("sidecar", arrays):
            content = json.loads(path.read_text())
            sidecar_path(path).write_bytes(to_bytes(arrays))
            content["outcome_digest"] = digest_of(content["outcome"], arrays)
            path.write_bytes(signed(content))
            assert checked("results", "check", "--results", "results").code == 0
            looked_at(("significance",), ("tables",))


@given(
    changed(
        {
            "name": "toy",
            "version": 1,
            "overrides": {},
            "resolved": load_protocol("wikipedia-labels").model_dump(mode="json"),
        }
    )
)
@fuzzing(12)
def test_other_snapshots(content: Any) -> None:
    written()
    with attempt("record", content):
        (RUNS / "toy-v1" / "protocol.json").write_text(json.dumps(content))
        looked_at(COMMANDS[0], COMMANDS[2])


def test_names_in_records_lead_nowhere() -> None:
    """What a record says of itself is quoted before it becomes a path."""
    store = written()
    for part in ("protocol", "dataset", "noise", "method", "variant"):
        for name in ("../../../escaped", "/escaped", "..", ".", "a/../../b", "\x00", "~", "C:\\x"):
            with attempt("record", (part, name)):
                path = store.path(make_cell(**{part: name}))
                assert RUNS.resolve() in path.resolve().parents
                assert ".." not in path.parts
                store.write(make_record(300.0, **{part: name}), make_sidecar())
    assert not list(Path("results").parent.glob("escaped*"))
    assert checked("results", "check", "--results", "results").code == 0


def test_links_among_records() -> None:
    """A link is never written through: the record takes its place."""
    store = written()
    path = first(store)
    path.rename("kept.json")
    Path("secret.json").write_text("secret words")
    path.symlink_to(Path("secret.json").resolve())
    with attempt("link"):
        assert "secret words" not in checked("results", "check", "--results", "results").out
        store.write(make_record(300.0), make_sidecar(), existing="force")
        assert Path("secret.json").read_text() == "secret words"
        assert not path.is_symlink()


def test_pipes_do_not_wait() -> None:
    for place in ("toy-v1/protocol.json", "seed7.json", "seed0.npz", "seed1.json"):
        folder = first(written()).parent
        path = RUNS / place if "/" in place else folder / place
        path.unlink(missing_ok=True)
        os.mkfifo(path)
        with attempt("pipe", place):
            assert checked("results", "check", "--results", "results").code == 1
            looked_at(*COMMANDS[1:3])
    os.mkfifo("plan.json")
    Path("results/plans").mkdir()
    os.mkfifo("results/plans/x.json")
    with attempt("pipe"):
        refused("worker", "--plan", "plan.json", "--shard", "0")
        checked("--methods", "clip", "--dry-run", "--device", "cpu", "--results", "results")


def plan() -> Plan:
    return Plan(
        protocol=load_protocol("digits-pairs"),
        shards=((make_cell(protocol="digits-pairs"),),),
        data_root=None,
        results=str(Path("results").resolve()),
    )


GOOD_PLAN = (
    Plan(protocol=load_protocol("digits-pairs"), shards=((make_cell(),),), data_root=None, results="/none")
    .model_dump_json()
    .encode()
)


@given(damaged(GOOD_PLAN))
@fuzzing(100)
def test_damaged_plans(content: bytes) -> None:
    with attempt("plan", content):
        Path("plan.json").write_bytes(content)
        try:
            read_plan(Path("plan.json"))
        except ProtocolError as error:
            check_sentence(error)


@given(changed(json.loads(GOOD_PLAN)))
@fuzzing(40)
def test_other_plans(content: Any) -> None:
    """A shard that does not exist: nothing is trained, whatever the plan says."""
    with attempt("plan", content):
        Path("plan.json").write_text(json.dumps(content))
        refused("worker", "--plan", "plan.json", "--shard", "999999")
        assert set(Path().iterdir()) == {Path("plan.json")}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_plans(child: Child, name: str) -> None:
    Path("plan.json").write_bytes(HOSTILE[name])
    with attempt("plan", name):
        refused("worker", "--plan", "plan.json", "--shard", "0")
        found = child.read("plan", Path("plan.json").resolve())
        assert (found.error, found.grown < 64) == ("ProtocolError", True), found


def test_plans_in_the_results_folder_are_looked_at_only() -> None:
    """Plans of earlier runs lie in the results folder; a strange one there is passed over."""
    Path("results/plans").mkdir(parents=True)
    for name, content in HOSTILE.items():
        Path(f"results/plans/{name}.json").write_bytes(content)
    with attempt("plan"):
        assert checked("--methods", "clip", "--dry-run", "--device", "cpu", "--results", "results").code == 0
