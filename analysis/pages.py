"""A page of sentences and tables of text, for the terminal or as Markdown."""

from __future__ import annotations

import textwrap
from dataclasses import dataclass

import pandas as pd
from tabulate import tabulate

WIDTH = 100  # of terminal text, in characters


@dataclass(frozen=True)
class Part:
    """A heading, sentences, and maybe a table of text."""

    title: str
    sentences: tuple[str, ...]
    table: pd.DataFrame | None = None


@dataclass(frozen=True)
class Page:
    """Parts under a title."""

    title: str
    parts: tuple[Part, ...]

    def text(self) -> str:
        """For a terminal."""
        blocks = [f"{self.title}\n{'=' * len(self.title)}"]
        for part in self.parts:
            blocks.append(f"{part.title}\n{'-' * len(part.title)}")
            lines = [textwrap.fill(f"- {sentence}", WIDTH, subsequent_indent="  ") for sentence in part.sentences]
            blocks += ["\n".join(lines)] if lines else []
            blocks += _rendered(part.table, "simple")
        return "\n\n".join(blocks) + "\n"

    def markdown(self) -> str:
        """For a file."""
        blocks = [f"# {self.title}"]
        for part in self.parts:
            blocks.append(f"## {part.title}")
            blocks += ["\n".join(f"- {sentence}" for sentence in part.sentences)] if part.sentences else []
            blocks += _rendered(part.table, "github")
        return "\n\n".join(blocks) + "\n"


def _rendered(table: pd.DataFrame | None, style: str) -> list[str]:
    if table is None or table.empty:
        return []
    cells = table.astype(str).to_dict("list")
    return [tabulate(cells, headers="keys", tablefmt=style, showindex=False, disable_numparse=True)]
