"""What a person sees while a grid runs: bars on a terminal, single plain lines elsewhere, or nothing."""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol, TextIO

from .grid import count


class Shown(Protocol):
    """What a display must know of a shard: what it is, and of how many cells it consists."""

    @property
    def title(self) -> str: ...

    @property
    def size(self) -> int: ...


class Display:
    """Shows nothing; the base of the others.

    Keeps how far each shard is, so that the whole grid has a share done and a time left.
    """

    def __init__(self, shards: Sequence[Shown], clock: Callable[[], float] = time.monotonic) -> None:
        self.shards = shards
        self.clock = clock
        self.begun = clock()
        self.share = [0.0] * len(shards)

    def __enter__(self) -> Display:
        return self

    def __exit__(self, *error: object) -> None:
        return None

    def started(self, number: int) -> None:
        """Shard ``number`` of this display has been started."""

    def event(self, number: int, event: Mapping[str, Any]) -> None:
        """A worker said something."""
        if event.get("event") == "epoch" and event.get("epochs"):
            self.share[number] = event["epoch"] / event["epochs"]

    def ended(self, number: int, how: str, complete: bool = True) -> None:
        """Shard ``number`` ended; ``how`` is ``done``, or a short sentence; ``complete``: nothing of it is left to do."""
        if complete:
            self.share[number] = 1.0

    def say(self, text: str) -> None:
        """One line to whoever watches."""

    @property
    def done_share(self) -> float:
        """Share of the grid that is done, by cells."""
        total = sum(shard.size for shard in self.shards)
        return sum(share * shard.size for share, shard in zip(self.share, self.shards, strict=True)) / max(total, 1)

    @property
    def seconds_left(self) -> float | None:
        """At the pace so far; None as long as there is no pace."""
        done = self.done_share
        return (self.clock() - self.begun) * (1 - done) / done if done > 0 else None


class PlainDisplay(Display):
    """One line per shard and ``every`` seconds at most, and one at its end; no control characters."""

    def __init__(
        self,
        shards: Sequence[Shown],
        out: TextIO,
        every: float = 10.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__(shards, clock)
        self.out = out
        self.every = every
        self.spoken = [self.begun] * len(shards)

    def started(self, number: int) -> None:
        self.spoken[number] = self.clock()

    def event(self, number: int, event: Mapping[str, Any]) -> None:
        super().event(number, event)
        if event.get("event") == "epoch" and self.clock() - self.spoken[number] >= self.every:
            self.spoken[number] = self.clock()
            self._line(number, f"epoch {event['epoch']}/{event['epochs']}")

    def ended(self, number: int, how: str, complete: bool = True) -> None:
        super().ended(number, how, complete)
        self._line(number, how, complete)

    def say(self, text: str) -> None:
        # Whoever watched is gone, or the disk with the log is full: the records are what counts.
        with contextlib.suppress(OSError):
            print(text, file=self.out, flush=True)

    def _line(self, number: int, text: str, going_on: bool = True) -> None:
        left = self.seconds_left if going_on else None
        remaining = f", about {in_words(left)} left" if left else ""
        position = f"[{number + 1}/{len(self.shards)}]"
        self.say(f"{position} {self.shards[number].title}: {text} (grid {100 * self.done_share:.0f} %{remaining})")


class BarDisplay(Display):
    """One bar per running shard and one for the whole grid, with the time left (terminals only)."""

    def __init__(self, shards: Sequence[Shown], clock: Callable[[], float] = time.monotonic) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn

        super().__init__(shards, clock)
        columns = (
            TextColumn("{task.description}"),
            BarColumn(bar_width=30),
            TextColumn("{task.fields[note]}"),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
        )
        self.progress = Progress(*columns, console=Console(stderr=True), refresh_per_second=4)
        self.total: TaskID = self.progress.add_task("whole grid", total=1.0, note="")
        self.bars: dict[int, TaskID] = {}

    def __enter__(self) -> Display:
        self.progress.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.progress.stop()

    def started(self, number: int) -> None:
        self.bars[number] = self.progress.add_task(self.shards[number].title, total=1.0, note="starting")

    def event(self, number: int, event: Mapping[str, Any]) -> None:
        super().event(number, event)
        if event.get("event") == "epoch":
            note = f"epoch {event['epoch']}/{event['epochs']}"
            self.progress.update(self.bars[number], completed=self.share[number], note=note)
            self._whole()

    def ended(self, number: int, how: str, complete: bool = True) -> None:
        super().ended(number, how, complete)
        bar = self.bars.pop(number, None)
        if bar is not None:
            self.progress.remove_task(bar)
        if how != "done":
            self.say(f"{self.shards[number].title}: {how}")
        self._whole()

    def say(self, text: str) -> None:
        self.progress.console.print(text, markup=False, highlight=False)

    def _whole(self) -> None:
        finished = sum(share == 1.0 for share in self.share)
        note = f"{finished} of {count(len(self.shards), 'shard')}"
        self.progress.update(self.total, completed=self.done_share, note=note)


def display_for(shards: Sequence[Shown], quiet: bool) -> Display:
    """Bars on a terminal, plain lines elsewhere, nothing when ``quiet``."""
    if quiet:
        return Display(shards)
    if sys.stderr.isatty() and os.environ.get("TERM", "dumb") != "dumb":
        return BarDisplay(shards)
    return PlainDisplay(shards, sys.stderr)


def in_words(seconds: float) -> str:
    """``40 s``, ``12 min``, ``3.4 h``."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 5400:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"
