"""NoCoBench command line: run a grid of cells, then make tables, figures and tests of significance from their records."""

from __future__ import annotations

import sys
import types
from pathlib import Path

# The five folders import as nocobench.*; the bare names (above all ``datasets``) stay free for other packages.
ROOT = Path(__file__).resolve().parent
if (ROOT / "protocols" / "specs").is_dir():
    sys.path[:] = [entry for entry in sys.path if Path(entry or ".").resolve() != ROOT]
    sys.modules.setdefault("nocobench", types.ModuleType("nocobench")).__path__ = [str(ROOT)]

# Torch and pandas take seconds to import: commands import what they need when they are called.
import argparse  # noqa: E402
import contextlib  # noqa: E402
import difflib  # noqa: E402
import os  # noqa: E402
import shlex  # noqa: E402
import signal  # noqa: E402
import threading  # noqa: E402
from collections.abc import Callable, Iterator, Sequence  # noqa: E402
from typing import NoReturn  # noqa: E402

PROGRAM = "run_benchmark.py"
DEBUG = "NOCOBENCH_DEBUG"
INTERRUPTED = 130
LONGEST = 1500  # characters of a message

RUN_EPILOG = """\
commands (each has its own --help):
  run (default)   plan the grid, run what is missing, print the table
  list            methods | datasets | protocols | noise | runs, and why something cannot run here
  tables, figures, significance
                  from records only; nothing is trained
  report          one HTML page of everything that the records say, to be opened offline
  paper --out DIR LaTeX tables, PDF figures, commands and a methods paragraph
  compare A B     two folders of records: same outcomes, differences, what changed
  export          all records as one CSV or Parquet table, or a leaderboard
  verify          compute cells again and compare the outcomes' digests
  check METHOD    test whether a method keeps the contract
  new-method NAME write the first file of your own method
  results check   examine all records
  data            check PATH | list | fetch NAME
  worker          run one shard of a plan (used by this program and by clusters)

examples:
  python run_benchmark.py --methods hana npc --noise 0.2 0.4 0.6 0.8
  python run_benchmark.py --methods npc@paper npc@released 'hana@*' --seeds 0 1 --dry-run
  python run_benchmark.py --methods clip npc --datasets digits emoji
  python run_benchmark.py --methods my_method --plugin my_method.py --noise 0.4
  python run_benchmark.py --methods ncr --protocol flickr30k-clip-pairs --data-root ~/features --device cuda
  python run_benchmark.py tables --format latex

The same command again fills the gaps only. Exit codes: 0 fine, 1 some cells failed, 2 bad input, 130 interrupted.
"""


class Parser(argparse.ArgumentParser):
    """One sentence per mistake, with the nearest option; nothing is abbreviated."""

    def __init__(self, command: str = "", **options: object) -> None:
        super().__init__(
            prog=f"{PROGRAM} {command}".strip(),
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
            **options,  # type: ignore[arg-type]
        )

    def error(self, message: str) -> NoReturn:
        unknown = (
            next(iter(message.removeprefix("unrecognized arguments: ").split()), "''")
            if "unrecognized" in message
            else ""
        )
        if unknown.startswith("-"):
            close = difflib.get_close_matches(unknown, self._option_string_actions, n=1)
            hint = f"; did you mean {close[0]}?" if close else f"; see `{self.prog} --help`"
            message = f"unknown option {unknown}{hint}"
        elif unknown and self.prog == PROGRAM:
            close = difflib.get_close_matches(unknown, COMMANDS, n=1)
            hint = f"; did you mean {close[0]!r}?" if close else "; methods follow --methods"
            message = f"unknown command {unknown!r}{hint}"
        fail(message)


def fail(message: str, code: int = 2) -> NoReturn:
    """End with one sentence."""
    words = " ".join(message.split())
    print(f"{PROGRAM}: error: {words if len(words) <= LONGEST else f'{words[:LONGEST]} ...'}", file=sys.stderr)
    sys.exit(code)


def default_results() -> Path:
    """``results/`` of the checkout; of the working directory where the suite is installed as a package."""
    return ROOT / "results" if (ROOT / "protocols" / "specs").is_dir() else Path.cwd() / "results"


def _path(text: str) -> Path:
    """A path, with ``~`` written out."""
    try:
        path = Path(text).expanduser()
        path.resolve()
    except (RuntimeError, ValueError, OSError) as error:  # a home folder of nobody, or a text that no path can be
        raise argparse.ArgumentTypeError(f"{text!r} is no usable path: {error}") from error
    return path


def _folders(parser: argparse.ArgumentParser, data: bool = True) -> None:
    group = parser.add_argument_group("folders")
    group.add_argument("--results", type=_path, default=default_results(), metavar="DIR",
                       help="where records and plans lie (default: %(default)s)")  # fmt: skip
    if data:
        group.add_argument("--data-root", type=_path, metavar="DIR",
                           help="where data sets lie (default: $NOCOBENCH_DATA, else ../shared/data beside the suite)")  # fmt: skip


def _plugins(parser: argparse._ActionsContainer) -> None:
    parser.add_argument("--plugin", action="append", default=[], type=_path, metavar="FILE",
                        help="load the methods of this file; may be given several times")  # fmt: skip


def _grid(parser: argparse.ArgumentParser) -> None:
    what = parser.add_argument_group("what to run")
    what.add_argument("--methods", nargs="+", default=[], metavar="METHOD",
                      help="npc (its default variant), npc@released, 'npc@*' (all variants); see `list methods`")  # fmt: skip
    what.add_argument("--noise", nargs="+", type=float, metavar="RATE",
                      help="shares of mismatched pairs or wrong labels, 0 to 1 (default: the protocol's)")  # fmt: skip
    what.add_argument("--datasets", "--dataset", nargs="+", default=[], metavar="NAME",
                      help="each under the protocol made for it, or all under --protocol (default: the protocol's)")  # fmt: skip
    what.add_argument("--protocol", metavar="NAME|FILE", help="see `list protocols` (default: digits-pairs)")
    what.add_argument("--seeds", nargs="+", type=int, metavar="SEED", help="(default: the protocol's)")
    _plugins(what)
    change = parser.add_argument_group("changes of the protocol (kept in the record, said in tables)")
    change.add_argument("--epochs", type=int, metavar="N")
    change.add_argument("--batch-size", type=int, metavar="N")
    change.add_argument("--track", metavar="TRACK", help="fixed-budget or author-recipe")
    change.add_argument("--selection", metavar="SPLIT", help="val, noisy-val or last")
    change.add_argument("--bits", nargs="+", type=int, metavar="N", help="lengths of codes (task label-hashing)")
    change.add_argument(
        "--database", metavar="WHAT", help="test, train or rest: what test queries search (label-hashing)"
    )
    change.add_argument("--database-codes", metavar="KIND", help="hash-function, learned or fused (label-hashing)")
    change.add_argument("--noise-model", metavar="NAME", help="see `list noise`")


def _machine(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("machine")
    group.add_argument("--device", default="auto", metavar="DEVICE",
                       help="auto, cpu, cuda (all devices) or cuda:1 (default: %(default)s)")  # fmt: skip
    group.add_argument("--workers", type=int, metavar="N",
                       help="processes at once (default: one per core on the CPU, one per device on CUDA)")  # fmt: skip
    group.add_argument("--checkpoint-every", type=float, default=300.0, metavar="SECONDS",
                       help="at most this much work is lost by a kill (default: %(default)g)")  # fmt: skip
    group.add_argument("--quiet", action="store_true", help="show no progress")


def _run(words: Sequence[str]) -> int:
    parser = Parser(description=__doc__, epilog=RUN_EPILOG, usage=f"{PROGRAM} [COMMAND] --methods METHOD ... [options]")
    _grid(parser)
    old = parser.add_argument_group("what to do with old results (default: fill the gaps)")
    old.add_argument("--dry-run", action="store_true", help="only print what would be done, and what it costs")
    old.add_argument("--only-cached", action="store_true", help="train nothing, print the table of what is there")
    old.add_argument("--retry", choices=["failed"], help="run failed cells again")
    old.add_argument("--stale", choices=["rerun", "show"], default="show",
                     help="results of older source code: run again, or keep and mark (default: %(default)s)")  # fmt: skip
    old.add_argument("--force", action="store_true", help="run everything again, keep the old records and compare")
    old.add_argument("--fail-fast", action="store_true", help="stop everything at the first failed cell")
    _machine(parser)
    _folders(parser)
    if not words:
        parser.print_help()
        return 0
    given = parser.parse_args(words)
    from nocobench.protocols import commands

    options = commands.RunOptions(**vars(given), command=_typed(), program=Path(__file__).resolve())
    code, cells = commands.run(options)
    if not given.dry_run and code != INTERRUPTED:
        from nocobench.analysis import commands as analysis

        analysis.after_run(given.results, cells, commands.is_stale)
    return code


def _list(words: Sequence[str]) -> int:
    parser = Parser("list", description="Show what there is, and why something cannot run here.")
    parser.add_argument("what", choices=["methods", "datasets", "protocols", "noise", "runs"])
    parser.add_argument("--markdown", action="store_true",
                        help="`list methods`: the page docs/methods.md, with variants and differences from the papers")  # fmt: skip
    _plugins(parser)
    _folders(parser)
    given = parser.parse_args(words)
    if given.markdown:
        if given.what != "methods":
            parser.error(f"--markdown goes with `list methods`, not with `list {given.what}`")
        from nocobench.protocols import method_pages

        print(method_pages.page(), end="")
        return 0
    from nocobench.protocols import listing

    return listing.show(given.what, given.results, given.data_root, given.plugin)


def _verify(words: Sequence[str]) -> int:
    parser = Parser("verify", description="Compute cells in several ways and compare all outcomes' digests, also with the records that "
                    "exist. Nothing is written to the results.",
                    epilog="examples:\n  python run_benchmark.py verify --methods npc --seeds 0 --noise 0.4\n"
                    "  python run_benchmark.py verify --methods clip npc hana --seeds 0 1 --noise 0.2 0.6 --epochs 3 --thorough\n"
                    "To compare two machines, Python or torch versions: run the same cells there, then `compare A B`.")  # fmt: skip
    _grid(parser)
    parser.add_argument("--thorough", action="store_true",
                        help="beside alone and side by side also in shards of 2, 3 and 5 in another order, interrupted and "
                        "resumed, and under foreign thread settings")  # fmt: skip
    _machine(parser)
    _folders(parser)
    given = vars(parser.parse_args(words))
    from nocobench.protocols import commands, verifying

    thorough = given.pop("thorough")
    options = commands.RunOptions(**given, command=_typed(), program=Path(__file__).resolve())
    return verifying.verify(options, thorough)


def _check(words: Sequence[str]) -> int:
    parser = Parser("check", description="Test in about a minute whether a method keeps the contract.",
                    epilog="example:\n  python run_benchmark.py check my_method --plugin my_method.py")  # fmt: skip
    parser.add_argument("method")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu", help="where (default: %(default)s)")
    _plugins(parser)
    given = parser.parse_args(words)
    from nocobench.protocols import checking

    return checking.check(given.method, given.plugin, given.device)


def _new_method(words: Sequence[str]) -> int:
    parser = Parser(
        "new-method", description="Write the first file of a method; it runs as it is. Nothing is overwritten."
    )
    parser.add_argument("name", help="lower-case letters, digits and _")
    parser.add_argument("--to", type=_path, default=Path("."), metavar="DIR", help="(default: this folder)")
    given = parser.parse_args(words)
    from nocobench.protocols.new_method import write_new_method

    path = write_new_method(given.name, given.to)
    print(f"{path} is written. Next:")
    print(f"  python {PROGRAM} check {given.name} --plugin {shlex.quote(str(path))}")
    print(f"  python {PROGRAM} --methods {given.name} clip --plugin {shlex.quote(str(path))} --noise 0.4")
    return 0


def _data(words: Sequence[str]) -> int:
    parser = Parser("data", description="Data sets: `list` them, `check PATH` a folder of your own, `fetch NAME`.")
    parser.add_argument("what", choices=["list", "check", "fetch"])
    parser.add_argument("target", nargs="?", metavar="PATH|NAME", help="the folder to check, the data set to fetch")
    _folders(parser)
    given = parser.parse_args(words)
    if (given.target is None) != (given.what == "list"):
        parser.error(f"`data {given.what}` {'takes no' if given.what == 'list' else 'needs a'} path or name")
    from nocobench.protocols import listing

    if given.what == "list":
        return listing.show("datasets", given.results, given.data_root, [])
    if given.what == "check":
        try:
            return listing.check_data(_path(given.target))
        except argparse.ArgumentTypeError as error:
            parser.error(str(error))
    return listing.fetch_data(given.target, given.data_root)


def _results(words: Sequence[str]) -> int:
    parser = Parser("results", description="Examine all records: readable, complete, digests right.")
    parser.add_argument("what", choices=["check"])
    _folders(parser, data=False)
    given = parser.parse_args(words)
    from nocobench.protocols import checking

    return checking.check_results(given.results)


def _worker(words: Sequence[str]) -> int:
    parser = Parser("worker", description="Run one shard of a plan; a cluster may loop over the shards.")
    parser.add_argument("--plan", type=_path, required=True, metavar="FILE")
    parser.add_argument("--shard", type=int, required=True, metavar="N")
    parser.add_argument(
        "--events", action="store_true", help="report as lines of JSON, for the program that started it"
    )
    given = parser.parse_args(words)
    from nocobench.protocols.plan import read_plan
    from nocobench.protocols.worker import report_error, work

    try:
        return work(read_plan(given.plan), given.shard, as_events=given.events)
    except Exception as error:
        if given.events and is_user_error(error):
            report_error(error)
        raise


def _analysis(command: str) -> Callable[[Sequence[str]], int]:
    def run(words: Sequence[str]) -> int:
        from nocobench.analysis import commands

        parser = Parser(command, description=commands.DESCRIPTIONS[command], epilog=commands.EXAMPLES[command])
        commands.ARGUMENTS[command](parser)
        _folders(parser, data=False)
        return commands.COMMANDS[command](parser.parse_args(words))

    return run


COMMANDS: dict[str, Callable[[Sequence[str]], int]] = {
    "run": _run,
    "list": _list,
    "tables": _analysis("tables"),
    "figures": _analysis("figures"),
    "significance": _analysis("significance"),
    "report": _analysis("report"),
    "paper": _analysis("paper"),
    "compare": _analysis("compare"),
    "export": _analysis("export"),
    "verify": _verify,
    "check": _check,
    "new-method": _new_method,
    "results": _results,
    "data": _data,
    "worker": _worker,
}

USER_ERRORS = {
    "nocobench.protocols.protocol": "ProtocolError",
    "nocobench.datasets.types": "DataError",
    "nocobench.methods.registry": "MethodError",
    "nocobench.results.files": "StoreError",
    "nocobench.results.sidecar": "SidecarError",
    "nocobench.analysis.frame": "AnalysisError",
}


def is_user_error(error: BaseException) -> bool:
    """Whether a person can mend it: our own classes of errors (looked up only where their module is loaded), and trouble with files."""
    known = tuple(getattr(sys.modules[module], name) for module, name in USER_ERRORS.items() if module in sys.modules)
    return isinstance(error, (*known, OSError))


def _typed() -> str:
    """What the user typed, to be shown and kept in records."""
    program = Path(sys.argv[0])
    return shlex.join([*(["python"] if program.suffix == ".py" else []), program.name, *sys.argv[1:]])


@contextlib.contextmanager
def _interruptible() -> Iterator[None]:
    """SIGTERM, and the SIGUSR1 of Slurm, end a command as Ctrl-C does: with its temporary files removed and exit code 130."""

    def interrupt(number: int, frame: object) -> NoReturn:
        raise KeyboardInterrupt

    before = {}
    if threading.current_thread() is threading.main_thread():
        numbers = [getattr(signal, name) for name in ("SIGTERM", "SIGUSR1") if hasattr(signal, name)]
        before = {number: signal.signal(number, interrupt) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def main(words: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code."""
    words = sys.argv[1:] if words is None else list(words)
    name = words[0] if words and words[0] in COMMANDS else None
    try:
        with _interruptible():
            return COMMANDS[name](words[1:]) if name else _run(words)
    except KeyboardInterrupt:
        print(f"\n{PROGRAM}: interrupted", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:
        # The reader has seen enough (`| head`); what Python still wants to flush has nowhere to go.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as error:
        if os.environ.get(DEBUG):
            raise
        if is_user_error(error):
            fail(str(error))
        if isinstance(error, UnicodeEncodeError):
            fail(
                f"the name {error.object[:100]!r} is no valid UTF-8, so no record can hold it; rename the file or folder"
            )
        if isinstance(error, MemoryError):
            fail(f"the memory of this machine is exhausted ({error}); take fewer or smaller data", code=1)
        fail(f"{type(error).__name__}: {error} (this is a defect of the suite; {DEBUG}=1 shows where)", code=1)


if __name__ == "__main__":
    sys.exit(main())
