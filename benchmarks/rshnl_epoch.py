"""Seconds of CPU per training epoch of ``rshnl`` at the size of its first data set, and the share spent outside matrix products.

4,000 synthetic items of 20 classes, 4096-d images and 3000-d texts, towers 4096 - 4096 - 128 bits, batches of 256 (rshnl.md sections 2, 5),
one run through the engine, one thread.

    .venv/bin/python benchmarks/rshnl_epoch.py
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from nocobench.protocols import engine
from nocobench.protocols.contract_checks import cells_of
from nocobench.protocols.protocol import load_protocol, validated
from nocobench.results.store import RecordStore
from torch.profiler import ProfilerActivity, profile

PRODUCTS = ("aten::mm", "aten::addmm", "aten::bmm", "aten::baddbmm")
SIZES = {"n_train": 4000, "n_val": 500, "n_test": 500, "image_dim": 4096, "text_dim": 3000, "n_classes": 20}


def protocol(epochs: int, hidden: int) -> Any:
    """``xmedia-labels`` on synthetic data of the same size."""
    content = load_protocol("xmedia-labels").model_dump(mode="json")
    content["dataset"] = {"name": "synthetic", "options": SIZES}
    content["backbone"]["hidden"], content["bits"] = hidden, [128]
    content["budget"]["epochs"], content["grants"]["clean_meta_set"] = epochs, None
    return validated(content, "benchmark")


def train(epochs: int, hidden: int) -> None:
    """One run."""
    this = protocol(epochs, hidden)
    cells = cells_of(this, "rshnl", "released", (0.4,), (0,))
    with tempfile.TemporaryDirectory() as folder:
        engine.run_together(
            cells, this, RecordStore(Path(folder) / "runs"), data_root=None, device="cpu",
            checkpoint_dir=Path(folder), checkpoint_every=1e9,
            command="benchmark", on_event=lambda event: None, stop=lambda: False,
        )  # fmt: skip


def seconds(epochs: int, hidden: int) -> float:
    """CPU seconds of the whole call."""
    started = time.process_time()
    train(epochs, hidden)
    return time.process_time() - started


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hidden", type=int, default=4096, help="width of the towers (default: %(default)s)")
    given = parser.parse_args()
    torch.set_num_threads(1)
    without = seconds(0, given.hidden)  # data, initialisation, one evaluation
    with profile(activities=[ProfilerActivity.CPU]) as found:
        total = seconds(1, given.hidden)
    events = found.key_averages()
    everything = sum(event.self_cpu_time_total for event in events)
    products = sum(event.self_cpu_time_total for event in events if event.key in PRODUCTS)
    print(f"one epoch and its evaluation, of one run: {total - without:.1f} CPU seconds (and {without:.1f} before)")
    print(f"outside matrix products: {100 * (1 - products / everything):.0f} % of the time in torch operations")
    others = sorted(events, key=lambda event: -event.self_cpu_time_total)
    for event in [event for event in others if event.key not in PRODUCTS][:8]:
        print(f"  {event.key}: {100 * event.self_cpu_time_total / everything:.1f} %")


if __name__ == "__main__":
    main()
