"""Command lines of every sub-command, made of right and wrong words; none of them trains anything."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
from fuzz.asking import PROGRAM, checked, program, refused
from fuzz.counting import attempt, fuzzing
from fuzz.damage import TEXTS
from hypothesis import given
from hypothesis import strategies as st
from nocobench.results.store import RecordStore
from sample_records import make_label_record, make_record, make_sidecar

STRANGE = (
    *(text for text in TEXTS if "\x00" not in text and "\ud800" not in text), "-1", "0", "1", "0.4", "1e9", "nan", "inf", "-inf",
        str(10**30), "٣", "1_0", "0x10", " 1", "-", "--",
    "=", "--noise", "*", "clip@*", "clip@paper", "@", "clip@", "@paper", "digits", "digits-pairs", "wikipedia-labels", "./nothing",
    "results", ".",
    "/dev/null", "cpu", "cuda", "cuda:0", "cuda:-1", "cuda:99999999999", "tpu", "val", "last", "test", "learned", "fixed-budget",
    "rsum", "runs", "reference", "latex", "npc", "../x", "x" * 3000,
)  # fmt: skip
words = st.sampled_from(STRANGE) | st.text(
    st.characters(exclude_categories=["Cs"], exclude_characters="\x00/"), max_size=6
)

GRID = (
    "--methods", "--noise", "--datasets", "--dataset", "--protocol", "--seeds", "--epochs", "--batch-size", "--track", "--selection",
    "--bits", "--database",
    "--database-codes", "--noise-model", "--device", "--workers", "--checkpoint-every", "--quiet", "--data-root", "--plugin",
)  # fmt: skip
FROM = ("--from", "--protocol", "--datasets", "--methods", "--noise", "--seeds", "--bits", "--gallery")
SHOW = (*FROM, "--format", "--columns", "--honesty", "--published", "--variants-of", "--strict", "--mixed")
# What each begins and ends with, so that nothing is trained: the last word of an option counts.
COMMANDS: dict[str, tuple[Sequence[str], Sequence[str], Sequence[str]]] = {
    "run": (("--methods", "clip"), (*GRID, "--only-cached", "--retry", "--stale", "--force", "--fail-fast"), ("--dry-run",)),
    "cached": ((), (*GRID, "--retry", "--stale"), ("--only-cached",)),
    "list": (("list",), ("methods", "datasets", "protocols", "noise", "runs", "--markdown", "--plugin", "--data-root"), ()),
    "tables": (("tables",), SHOW, ()),
    "significance": (("significance",), (*FROM, "--measure", "--format"), ()),
    "verify": (("verify",), GRID, ("--methods", "no-such-method")),
    "check": (("check",), ("--plugin",), ("no-such-method",)),
    "new-method": (("new-method",), ("--to",), ()),
    "results": (("results",), ("check",), ()),
    "data": (("data",), ("check", "list", "fetch", "--data-root"), ()),
    "worker": (("worker",), ("--plan", "--shard", "--events"), ("--shard", "99")),
    "unknown": ((), ("tabels", "rnu", "--methds", "list", "-h", "--help", "--version"), ("--dry-run",)),
}  # fmt: skip
RESULTS = {"run", "cached", "list", "tables", "significance", "results"}


@pytest.fixture(autouse=True)
def records() -> None:
    """Some of them, for commands that read them."""
    store = RecordStore(Path("results/runs"))
    for seed in range(2):
        store.write(make_record(300.0 + seed, seed=seed), make_sidecar())
    store.write(make_label_record(30.0), make_sidecar())


@pytest.mark.parametrize("command", sorted(COMMANDS))
@given(st.data())
@fuzzing(16)
def test_any_words(command: str, data: st.DataObject) -> None:
    begin, options, end = COMMANDS[command]
    middle = data.draw(st.lists(st.sampled_from(options) | words, max_size=6))
    results = ("--results", "results") if command in RESULTS else ()
    with attempt("command line", (command, middle)):
        checked(*begin, *middle, *end, *results)


FIGURES = ("--kinds", "critical-difference", "rsum-vs-noise", *FROM)


@given(st.lists(st.sampled_from(FIGURES) | words, max_size=5))
@fuzzing(8)
def test_figures(middle: list[str]) -> None:
    with attempt("command line", middle):
        checked("figures", "--kinds", "rsum-vs-noise", *middle, "--results", "results", "--out", "figures")


OTHERS = sorted(set(program().COMMANDS) - {begin[0] for begin, *_ in COMMANDS.values() if begin} - {"run", "figures"})


@pytest.mark.parametrize("command", OTHERS)
@given(st.lists(st.sampled_from((*FROM, "--format")) | words, max_size=5))
@fuzzing(5)
def test_other_commands(command: str, middle: list[str]) -> None:
    """Those that have no line above read records and write a page or a table."""
    with attempt("command line", (command, middle)):
        checked(command, *middle, "--results", "results", "--out", "written")


BAD = (
    ("--methods", "clip", "--results", "~nobody-at-all/x", "--dry-run"),
    ("--methods", "clip", "--data-root", "~nobody-at-all/x", "--dry-run"),
    ("--methods", "clip", "--datasets", "~nobody-at-all/x", "--dry-run"),
    ("--methods", "clip", "--protocol", "~nobody-at-all/x", "--dry-run"),
    ("--methods", "clip", "--plugin", "~nobody-at-all/x", "--dry-run"),
    ("data", "check", "~nobody-at-all/x"),
    ("worker", "--plan", "~nobody-at-all/x", "--shard", "0"),
    ("new-method", "mine", "--to", "~nobody-at-all/x"),
    ("new-method", "a" * 300),
    ("--methods", "clip", "--checkpoint-every", "nan", "--dry-run"),
    ("--methods", "clip", "--checkpoint-every", "-1", "--dry-run"),
    ("--methods", "clip", "--workers", "1000000000", "--dry-run"),
    ("--methods", "clip", "--workers", "9" * 30, "--dry-run"),
    ("--methods", "clip", "--seeds", "9" * 400, "--dry-run"),
    ("--methods", "clip", "--noise", "nan", "--dry-run"),
    ("--methods", "clip", "--device", "cuda:" + "9" * 5000, "--dry-run"),
    ("data", "check", "x\x00y"),
    ("--methods", "clip", "--datasets", "./x\x00y", "--dry-run"),
    ("--methods", "clip", "--datasets", "./x\udcff", "--dry-run"),
    ("--methods", "clip", "--protocol", "./x\udcff.yaml", "--dry-run"),
    ("--methods", "clip", "--results", "./x\udcff"),
    ("data", "check", "./" + "x" * 5000),
)


@pytest.mark.parametrize("typed", BAD, ids=range(len(BAD)))
def test_known_traps(typed: tuple[str, ...]) -> None:
    with attempt("command line", typed):
        refused(*typed)


def test_names_that_are_no_utf8() -> None:
    """As a shell passes them: bytes that no text has."""
    folder = os.fsencode(Path.cwd()) + b"/caf\xe9"
    os.mkdir(folder)
    commands = (
        [b"data", b"check", folder],
        [b"--methods", b"clip", b"--datasets", folder, b"--dry-run"],
        [b"list", b"runs", b"--results", folder],
    )
    for typed in commands:
        with attempt("command line", typed):
            result = subprocess.run([sys.executable, PROGRAM, *typed], capture_output=True, timeout=120)
            assert result.returncode in (0, 2), result
            assert b"Traceback" not in result.stderr
            assert len(result.stderr.splitlines()) <= 1, result
