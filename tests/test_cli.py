"""The command line as a user meets it: messages, exit codes, what is imported, what is run and what is not run again."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from nocobench.protocols import verifying
from sample_records import make_record

PROGRAM = Path(__file__).resolve().parent.parent / "run_benchmark.py"


def run(*words: str | Path, cwd: Path | None = None, **environment: str) -> subprocess.CompletedProcess[str]:
    """One command line in a process of its own, without what the caller's environment may say."""
    clean = {key: value for key, value in os.environ.items() if not key.startswith("NOCOBENCH_")}
    return subprocess.run(
        [sys.executable, str(PROGRAM), *map(str, words)],
        capture_output=True,
        text=True,
        cwd=cwd,
        env=clean | {"OMP_NUM_THREADS": "1"} | environment,
        timeout=120,
    )


def complaint(*words: str | Path) -> str:
    """The one line on standard error of a wrong command."""
    result = run(*words)
    assert result.returncode == 2, result.stderr
    lines = result.stderr.splitlines()
    assert len(lines) == 1, result.stderr
    assert lines[0].startswith("run_benchmark.py: error: ")
    assert result.stdout == ""
    return lines[0].removeprefix("run_benchmark.py: error: ")


IMPORTED = """
import runpy, sys
sys.argv = [sys.argv[1], *sys.argv[2:]]
try:
    runpy.run_path(sys.argv[0], run_name="__main__")
except SystemExit as end:
    assert end.code == 0, end.code
print("\\n" + " ".join(sorted({name.split(".")[0] for name in sys.modules})))
"""


@pytest.mark.parametrize(
    "words",
    [
        (),
        ("--help",),
        ("run", "--help"),
        ("list", "--help"),
        ("tables", "--help"),
        ("figures", "--help"),
        ("significance", "--help"),
        ("verify", "--help"),
        ("check", "--help"),
        ("new-method", "--help"),
        ("results", "--help"),
        ("data", "--help"),
        ("worker", "--help"),
    ],
)
def test_help_is_quick_and_complete(words: tuple[str, ...]) -> None:
    result = subprocess.run(
        [sys.executable, "-c", IMPORTED, str(PROGRAM), *words], capture_output=True, text=True, timeout=60
    )
    assert result.returncode == 0, result.stderr
    *text, modules = result.stdout.rstrip("\n").split("\n")
    assert not {"torch", "pandas", "matplotlib", "scipy"} & set(modules.split())
    assert text[0].startswith("usage: run_benchmark.py")


def test_help_teaches() -> None:
    text = run("--help").stdout
    assert "--methods hana npc --noise 0.2 0.4 0.6 0.8" in text
    for command in ("list", "tables", "figures", "significance", "verify", "check", "new-method", "data", "worker"):
        assert f"\n  {command}" in text or f" {command}," in text or f", {command}" in text
    assert "(default: " in text


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        (("--method", "clip"), ["unknown option --method", "did you mean --methods?"]),
        (("tabels",), ["unknown command 'tabels'", "did you mean 'tables'?"]),
        (("list", "method"), ["invalid choice: 'method'"]),
        (("--seeds", "0"), ["no method is given"]),
        (("--methods", "clip", "--noise", "much"), ["--noise", "invalid float value: 'much'"]),
        (("--methods", "clip", "--protocol", "digit-pairs"), ["unknown protocol 'digit-pairs'", "'digits-pairs'"]),
        (("new-method", "Bad-Name"), ["'Bad-Name'", "lower-case"]),
        (("new-method", "mine", "--to", "/no/such/folder"), ["/no/such/folder", "does not exist"]),
        (("worker", "--plan", "/no/plan.json", "--shard", "0"), ["/no/plan.json", "cannot be read"]),
        (("data", "check"), ["`data check` needs a path or name"]),
    ],
)
def test_a_wrong_word_is_one_sentence(words: tuple[str, ...], parts: list[str]) -> None:
    message = complaint(*words)
    for part in parts:
        assert part in message


@pytest.fixture(scope="module")
def main() -> Callable[[Sequence[str]], int]:
    """The entry point in this process: torch is imported once."""
    spec = importlib.util.spec_from_file_location("run_benchmark_under_test", PROGRAM)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    path = list(sys.path)
    spec.loader.exec_module(module)
    sys.path[:] = path
    return module.main


@pytest.fixture
def ask(
    main: Callable[[Sequence[str]], int], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Callable[..., tuple[int, str, str]]:
    """A command in this process: exit code, standard output and standard error. Workers are processes all the same."""

    def call(*words: str | Path) -> tuple[int, str, str]:
        typed = [str(word) for word in words]
        monkeypatch.setattr(sys, "argv", [str(PROGRAM), *typed])  # records keep what was typed
        try:
            code = main(typed)
        except SystemExit as end:
            code = int(end.code or 0)
        return code, *capsys.readouterr()

    return call


Ask = Callable[..., tuple[int, str, str]]


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        (("clipp",), ["unknown method 'clipp'", "did you mean 'clip'?"]),
        (("clip@papre",), ["no variant 'papre'", "did you mean 'paper'?"]),
        (("clip", "--noise", "40"), ["rate 40 lies outside 0..1"]),
        (("clip", "--seeds", "1", "1"), ["seed 1 is given twice"]),
        (("clip", "--epochs", "-3"), ["'budget.epochs' is -3"]),
        (("clip", "--track", "fixed"), ["'track' is 'fixed'", "'fixed-budget' or 'author-recipe'"]),
        (("clip", "--track", "author-recipe"), ["no author recipe"]),
        (("clip", "--workers", "0"), ["--workers 0"]),
        (("clip", "--device", "tpu"), ["unknown device 'tpu'"]),
        (("clip", "--plugin", "/no/file.py"), ["plug-in /no/file.py does not exist"]),
        (("clip", "--datasets", "digits", "digits"), ["a data set is given twice"]),
        (("clip", "--datasets", "digitz"), ["'digitz'", "'digits'"]),
        (("clip", "--noise-model", "nested"), ["'nested'", "'nested-mismatch'"]),
        (("clip", "--protocol", "flickr30k-clip-pairs"), ["flickr30k-clip"]),
    ],
)
def test_a_wrong_grid_is_found_before_anything_is_trained(
    main: Callable[[Sequence[str]], int],
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    words: tuple[str, ...],
    parts: list[str],
) -> None:
    empty = tmp_path / "data"
    empty.mkdir()
    results = tmp_path / "results"
    with pytest.raises(SystemExit) as end:
        main(["--methods", *words, "--results", str(results), "--data-root", str(empty)])
    assert end.value.code == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert len(err.splitlines()) == 1
    for part in parts:
        assert part in err
    assert not results.exists()


def test_a_defect_is_one_line_unless_asked_for_more(
    main: Callable[[Sequence[str]], int], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from nocobench.protocols import commands

    monkeypatch.setattr(commands, "run", lambda options: 1 / 0)
    monkeypatch.delenv("NOCOBENCH_DEBUG", raising=False)
    with pytest.raises(SystemExit) as end:
        main(["--methods", "clip"])
    assert end.value.code == 1
    err = capsys.readouterr().err
    assert err.startswith("run_benchmark.py: error: ZeroDivisionError: division by zero")
    assert "NOCOBENCH_DEBUG=1" in err
    monkeypatch.setenv("NOCOBENCH_DEBUG", "1")
    with pytest.raises(ZeroDivisionError):
        main(["--methods", "clip"])


def test_a_results_folder_that_cannot_be_written(ask: Ask, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    words = ("--methods", "cca", "--seeds", "0", "--noise", "0", "--device", "cpu")
    code, _, err = ask(*words, "--results", tmp_path / "file")
    assert (code, len(err.splitlines())) == (2, 1)
    assert str(tmp_path / "file") in err


def test_dry_run_prints_a_bill_and_writes_nothing(ask: Ask, tmp_path: Path) -> None:
    words = ("--methods", "clip", "cca", "--noise", "0.2", "0.4", "--seeds", "0", "1", "2", "--device", "cpu")
    code, out, err = ask(*words, "--workers", "2", "--dry-run", "--results", tmp_path)
    assert code == 0, err
    assert "12 cells: 12 missing; 12 to do" in out
    assert "2 shards on cpu, 2 at once; time unknown" in out
    assert list(tmp_path.iterdir()) == []


def test_the_main_job_fills_gaps_only(ask: Ask, tmp_path: Path) -> None:
    words = ("--methods", "cca", "--seeds", "0", "--device", "cpu", "--workers", "1", "--results", tmp_path, "--noise")
    code, out, err = ask(*words, "0.2")
    assert code == 0, err
    (path,) = (tmp_path / "runs").rglob("seed*.json")
    content = json.loads(path.read_text())
    assert content["status"] == "done"
    assert content["circumstances"]["command"].startswith("python run_benchmark.py --methods cca")
    assert not list((tmp_path / "plans").glob("*.json"))
    assert "tables" in out
    before = path.stat().st_mtime_ns
    code, out, err = ask(*words, "0.2", "0.4")
    assert code == 0, err
    assert "2 cells: 1 done, 1 missing; 1 to do" in out
    assert "about" in out
    assert len(list((tmp_path / "runs").rglob("seed*.json"))) == 2
    assert path.stat().st_mtime_ns == before
    code, out, _ = ask(*words, "0.2", "0.6", "--only-cached")
    assert code == 0
    assert "2 cells: 1 done, 1 missing; 0 to do" in out
    assert "1 cell computed again: all outcomes are the same" in ask(*words, "0.2", "--force")[1]
    assert list(path.parent.glob("*.old"))
    code, out, _ = ask("results", "check", "--results", tmp_path)
    assert (code, "2 records" in out) == (0, True), out
    listed = ask("list", "runs", "--results", tmp_path)[1]
    assert "cca@paper" in listed
    assert "2 done" in listed
    # A record that was tampered with is found, and computed again.
    path.write_text(path.read_text().replace('"seed": 0', '"seed": 7'))
    assert ask("results", "check", "--results", tmp_path)[0] == 1
    planned = ask(*words, "0.2", "0.4", "--dry-run")[1]
    assert "1 broken (computed again" in planned
    assert "1 done; 1 to do" in planned


def test_what_a_killed_run_left_is_cleared(ask: Ask, tmp_path: Path) -> None:
    """All records are there, but the program died before it could remove its plan, log and checkpoint."""
    words = ("--methods", "cca", "--seeds", "0", "--noise", "0.2", "--device", "cpu", "--results", tmp_path)
    assert ask(*words, "--workers", "1")[0] == 0
    from nocobench.protocols.grid import cells
    from nocobench.protocols.plan import Plan
    from nocobench.protocols.protocol import DEFAULT, load_protocol

    protocol = load_protocol(DEFAULT)
    shard = tuple(cells(protocol, {}, [("cca", "paper")], [0.2], [0]))
    plan = Plan(protocol=protocol, shards=(shard,), data_root=None, results=str(tmp_path)).write()
    plan.with_name(f"{plan.stem}-0.log").write_text("")
    (tmp_path / "plans" / "checkpoints").mkdir(exist_ok=True)
    for name in ("shard-0123456789abcdef.pt", "shard-0123456789abcdef.77.tmp"):
        (tmp_path / "plans" / "checkpoints" / name).write_bytes(b"")
    assert ask(*words, "--dry-run")[0] == 0
    assert plan.exists(), "a dry run changes nothing"
    assert ask(*words)[0] == 0
    assert [path for path in (tmp_path / "plans").rglob("*") if path.is_file()] == []


def test_new_method_writes_once_and_runs(tmp_path: Path) -> None:
    result = run("new-method", "my_method", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    path = tmp_path / "my_method.py"
    assert len(path.read_text().splitlines()) <= 45
    text = path.read_text()
    assert "exists and is not overwritten" in complaint("new-method", "my_method", "--to", tmp_path)
    assert path.read_text() == text
    words = (
        "--plugin",
        path,
        "--noise",
        "0.4",
        "--seeds",
        "0",
        "--epochs",
        "1",
        "--device",
        "cpu",
        "--results",
        tmp_path,
    )
    done = run("--methods", "my_method@*", *words)
    assert done.returncode == 0, done.stderr
    assert len(list((tmp_path / "runs").rglob("seed0.json"))) == 2
    assert "my_method" in done.stdout


def test_verify_compares_and_leaves_no_trace(ask: Ask, tmp_path: Path) -> None:
    words = ("--methods", "cca", "--seeds", "0", "--noise", "0.2", "0.4", "--device", "cpu", "--results", tmp_path)
    code, out, err = ask("verify", *words)
    assert code == 0, err
    assert out.count("same ") == 2
    assert "2 cells: 0 different, 0 without result" in out
    assert list(tmp_path.iterdir()) == []


def test_a_difference_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    """Of two cells one has another digest when it is resumed, the other has no result in one way."""
    cells = [make_record(seed=seed).cell for seed in (0, 1)]
    ids = [cell.cell_id for cell in cells]
    found = {"alone": dict.fromkeys(ids, "a" * 64), "resumed": {ids[0]: "b" * 64}, "on record": {}}
    assert verifying._verdict(cells, ("alone", "resumed"), found) == 1
    out = capsys.readouterr().out
    assert f"seed 0: alone {'a' * 12}, resumed {'b' * 12}" in out
    assert "no result" in out
    assert "2 cells: 1 different, 1 without result" in out


@pytest.mark.slow
def test_verify_in_all_ways(ask: Ask, tmp_path: Path) -> None:
    words = ("--methods", "clip", "ncr", "--seeds", "0", "1", "--noise", "0.4", "--epochs", "2", "--device", "cpu")
    code, out, err = ask("verify", *words, "--thorough", "--results", tmp_path)
    assert code == 0, err
    assert out.count("(7 ways)") == 4
    assert "4 of them went on from a checkpoint" in err


def test_lists(ask: Ask, tmp_path: Path) -> None:
    listed = ask("list", "methods")[1]
    assert "oracle_clean" in listed
    assert "clip" in listed
    listed = ask("list", "protocols")[1]
    assert "digits-pairs v1" in listed
    assert "real noise" in listed
    assert "no runs in" in ask("list", "runs", "--results", tmp_path)[1]


def test_an_interrupted_reader_is_no_defect() -> None:
    command = f"{sys.executable} {PROGRAM} --help | head -1"
    result = subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=60)
    assert "Traceback" not in result.stderr
