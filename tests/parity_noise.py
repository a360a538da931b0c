"""Parity with the released noise injections of NCR and NPC; sizes and rates are discovered from the array names."""

from __future__ import annotations

import numpy as np
from nocobench.datasets.noise import legacy_caption_shuffle
from parity import Oracle, consumes


@consumes("ncr__noise_index")
def ncr_noise_index(oracle: Oracle) -> None:
    for match in list(oracle.inputs(r"in_numpy_seed_((\w+)_([\d.]+))")):
        case, structure, rate = match.groups()
        images, captions = (int(oracle[f"in_{name}_{structure}"]) for name in ("n_images", "captions_per_image"))
        true = np.arange(images).repeat(captions)
        generator = np.random.RandomState(int(oracle[match[0]]))
        assigned = legacy_caption_shuffle(true, float(rate), generator)
        oracle.check(f"out_image_index_{case}", assigned)
        oracle.check(f"out_clean_{case}", (assigned == true).astype(np.int64))


@consumes("npc__noise_captions")
def npc_noise_captions(oracle: Oracle) -> None:
    """NPC exchanges the captions themselves, by the same draws."""
    captions = np.arange(int(oracle["in_n_captions"]))
    for match in list(oracle.inputs(r"in_numpy_seed_([\d.]+)")):
        generator = np.random.RandomState(int(oracle[match[0]]))
        oracle.check(f"out_caption_index_{match[1]}", legacy_caption_shuffle(captions, float(match[1]), generator))
