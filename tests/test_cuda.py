"""On a CUDA device: every method keeps the contract there too, and the benchmark for GPUs says so when there is none."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from nocobench.datasets import registry as datasets
from nocobench.methods import registry

ROOT = Path(__file__).resolve().parents[1]
METHODS = sorted({*registry.built_in(), "oracle_clean", "oracle_clean_labels"})
needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


def run(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *words], cwd=ROOT, capture_output=True, text=True, check=False)


@pytest.mark.cuda
@needs_cuda
@pytest.mark.parametrize("name", METHODS)
def test_method_keeps_the_contract_on_a_gpu(name: str) -> None:
    """In a process of its own, because the workspace of cuBLAS is settled before the device is used."""
    done = run("run_benchmark.py", "check", name, "--device", "cuda")
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_check_names_a_missing_device() -> None:
    done = run("run_benchmark.py", "check", "clip", "--device", "cuda")
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "no CUDA device" in done.stderr


@pytest.mark.slow
def test_the_benchmark_for_gpus_runs(tmp_path: Path) -> None:
    """Its logic, tried on the CPU: digests of a run among others are alike, and nothing fails."""
    done = subprocess.run(
        [sys.executable, "benchmarks/gpu.py", "--quick", "--device", "cpu", "--methods", "clip", "--parts", "alone", "log",
         "memory", "processes", "--json", str(tmp_path / "gpu.json")],
        cwd=ROOT, capture_output=True, text=True, check=False, env=os.environ | {"CUDA_VISIBLE_DEVICES": ""},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "3 alike" in done.stdout
    assert "DIFFERENT" not in done.stdout
    assert "FAILED" not in done.stdout
    assert (tmp_path / "gpu.json").exists()


def test_a_shard_of_the_benchmark_for_gpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What it measures, on the CPU and tiny data: a cell alone, without its copy, and last of three has one digest."""
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    monkeypatch.setattr(datasets, "_registered", dict(datasets._registered))
    import gpu_runs

    size = {
        "n_train": 40,
        "n_val": 20,
        "n_test": 20,
        "captions_per_image": 1,
        "image_dim": 16,
        "text_dim": 16,
        "zero_shot": 0.5,
    }
    common = {"method": "clip", "size": size, "folder": str(tmp_path), "device": "cpu", "small": True, "batch_size": 16}
    alone = gpu_runs.shard(**common, n_epochs=3)
    bare = gpu_runs.shard(**common, n_epochs=3, company=False)
    last = gpu_runs.shard(**common, n_epochs=3, places=[20, 1, 0])
    assert alone["digests"] == bare["digests"] == last["digests"][-1:]
    assert len(set(last["digests"])) == 3
    assert not last["failed"]
    assert len(alone["epochs"]) == 2
    assert alone["weights"] > 0
    assert alone["peak_mb"] == 0
    without = gpu_runs.shard(**common, n_epochs=3, log=False)
    assert not without["failed"]
    assert without["digests"] != alone["digests"]
