"""Whether code has changed since a record was written: a digest over tokens, blind to comments, docstrings and blank lines."""

from __future__ import annotations

import ast
import functools
import hashlib
import io
import tokenize
from collections.abc import Iterable, Mapping
from pathlib import Path

from .files import StoreError
from .record import RunRecord

_SILENT = {tokenize.COMMENT, tokenize.NL, tokenize.ENCODING, tokenize.ENDMARKER}
_MARKS = {tokenize.INDENT: "<indent>", tokenize.DEDENT: "<dedent>", tokenize.NEWLINE: "<newline>"}
Position = tuple[int, int]


def source_digest(paths: Iterable[Path]) -> str:
    """sha256 over the tokens of Python files, in the order given; comments, docstrings, blank lines and indent width do not count.

    Raises:
        StoreError: a file is missing or not Python.
    """
    digest = hashlib.sha256()
    for path in paths:
        try:
            stat = path.stat()
            digest.update(_digest_of_file(path, stat.st_mtime_ns, stat.st_size).encode())
        except (OSError, SyntaxError, UnicodeDecodeError, tokenize.TokenError) as error:
            raise StoreError(
                f"source {path} cannot be read ({error}); restore it, or the record cannot say what made it"
            ) from error
    return digest.hexdigest()


def changed_sources(record: RunRecord, today: Mapping[str, str]) -> tuple[str, ...]:
    """Names of the parts whose digest in the record differs from ``today``'s: the record is stale if there are any."""
    recorded = record.circumstances.sources
    return tuple(name for name in sorted(today) if recorded.get(name) != today[name])


@functools.lru_cache(maxsize=1024)
def _digest_of_file(path: Path, modified: int, size: int) -> str:
    with tokenize.open(path) as file:
        words = _words(file.read())
    return hashlib.sha256("\0".join(words).encode("utf-8", "surrogatepass")).hexdigest()


def _words(source: str) -> list[str]:
    """Token texts; an f-string is one word as written, because Python versions cut it up differently."""
    docstrings, words, depth, start = _docstrings(source), [], 0, (0, 0)
    lines = source.splitlines(keepends=True)
    after_docstring = False
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type in _SILENT or token.start in docstrings:
            after_docstring = after_docstring or token.start in docstrings
            continue
        if after_docstring and (token.type == tokenize.NEWLINE or token.string == ";"):
            after_docstring = False
            continue
        after_docstring = False
        kind = tokenize.tok_name[token.type]
        if kind.endswith("STRING_START"):
            start, depth = (token.start if depth == 0 else start), depth + 1
        elif kind.endswith("STRING_END"):
            depth -= 1
            if depth == 0:
                words.append(_between(lines, start, token.end))
        elif depth == 0:
            words.append(_MARKS.get(token.type, token.string))
    return words


def _docstrings(source: str) -> set[Position]:
    """Where the string tokens of docstrings start."""
    places: set[Position] = set()
    spans = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            first = node.body[0] if node.body else None
            if (
                isinstance(first, ast.Expr)
                and isinstance(first.value, ast.Constant)
                and isinstance(first.value.value, str)
            ):
                spans.append(((first.lineno, first.col_offset), (first.end_lineno or 0, first.end_col_offset or 0)))
    lines = source.encode().splitlines(keepends=True)
    as_characters = lambda at: (at[0], len(lines[at[0] - 1][: at[1]].decode()))  # noqa: E731  (ast counts bytes, tokenize characters)
    spans = [(as_characters(start), as_characters(end)) for start, end in spans]
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.STRING and any(start <= token.start and token.end <= end for start, end in spans):
            places.add(token.start)
    return places


def _between(lines: list[str], start: Position, end: Position) -> str:
    if start[0] == end[0]:
        return lines[start[0] - 1][start[1] : end[1]]
    return "".join([lines[start[0] - 1][start[1] :], *lines[start[0] : end[0] - 1], lines[end[0] - 1][: end[1]]])
