"""A command line in this process, and what may come of it."""

from __future__ import annotations

import contextlib
import importlib.util
import io
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import ModuleType

PROGRAM = Path(__file__).resolve().parents[2] / "run_benchmark.py"
CODES = {0, 1, 2, 130}


@dataclass(frozen=True)
class Answer:
    code: int
    out: str
    err: str


@cache
def program() -> ModuleType:
    """run_benchmark.py, loaded once."""
    spec = importlib.util.spec_from_file_location("run_benchmark_under_fuzz", PROGRAM)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    path = list(sys.path)
    spec.loader.exec_module(module)
    sys.path[:] = path
    return module


def ask(*words: str | Path) -> Answer:
    """Run it with streams as a terminal gives them, which do not take every character."""
    typed = [str(word) for word in words]
    main: Callable[[Sequence[str]], int] = program().main
    out = io.TextIOWrapper(io.BytesIO(), "utf-8", write_through=True)
    err = io.TextIOWrapper(io.BytesIO(), "utf-8", "backslashreplace", write_through=True)
    before = sys.argv
    sys.argv = [str(PROGRAM), *typed]
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), _shown_warnings(err):
            code = main(typed)
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 0 if end.code is None else 1
    finally:
        sys.argv = before
    return Answer(code, _text(out), _text(err))


def checked(*words: str | Path) -> Answer:
    """Run it, and see that it ends as promised: a known code, no traceback, and for bad input one sentence."""
    answer = ask(*words)
    assert answer.code in CODES, answer
    assert "Traceback" not in answer.out + answer.err, answer
    assert "defect of the suite" not in answer.err, answer
    if answer.code == 2:
        lines = answer.err.splitlines()
        assert len(lines) == 1, answer
        assert lines[0].startswith("run_benchmark.py: error: "), answer
        assert len(lines[0]) < 2000, f"{len(lines[0])} characters are no sentence: {lines[0][:300]}"
    return answer


def check_sentence(error: Exception, *parts: str) -> None:
    """A user's error is short and names these."""
    assert len(str(error)) < 2000
    for part in parts:
        assert part in str(error)


def refused(*words: str | Path) -> str:
    """Run it with bad input; the sentence."""
    answer = checked(*words)
    assert answer.code == 2, answer
    return answer.err


@contextlib.contextmanager
def _shown_warnings(err: io.TextIOWrapper) -> Iterator[None]:
    """pytest keeps warnings to itself, a terminal shows them."""
    with warnings.catch_warnings():
        warnings.showwarning = lambda message, category, *_: print(f"{category.__name__}: {message}", file=err)  # type: ignore[assignment]
        warnings.simplefilter("always", RuntimeWarning)
        warnings.simplefilter("always", UserWarning)
        yield


def _text(stream: io.TextIOWrapper) -> str:
    return stream.buffer.getvalue().decode("utf-8")  # type: ignore[attr-defined]
