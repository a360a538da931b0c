"""``gmm_bank``: the mixture's posterior as weight, and a memory bank (specs/hana.md section 5, specs/controls.md)."""

from __future__ import annotations

from .hana import HaNa
from .registry import register


@register
class GmmBank(HaNa):
    """HaNa with everything of its own switched off: no momentum, hardness factor, push or guard.

    What is left is ``w_i = p_i``, the posterior of the small-loss component, fitted anew in every epoch, and a frozen memory bank
    (hana.md 3.1 to 3.3)::

        L = sum_i p_i l_i / (sum_i p_i + 1e-6) + bank_lambda mean_i (l(bI_i) + l(bT_i))

    What NPC-like and HaNa-like methods add must show against this row.
    """

    label = "GMM weight + memory bank (control)"
    reference = "control of this suite; mixture and bank after NPC (AAAI 2024) and DivideMix (ICLR 2020)"
    spec_page = "hana.md section 5; controls.md"
    flags = frozenset({"control"})
    weight_range = (0.0, 1.0)
    variants = {
        "paper": HaNa.Params(momentum_beta=0.0, hardness_delta=0.0, anrl_lambda=0.0, guard_ratio=0.0),
        "guard": HaNa.Params(momentum_beta=0.0, hardness_delta=0.0, anrl_lambda=0.0),
        "no_bank": HaNa.Params(
            momentum_beta=0.0, hardness_delta=0.0, anrl_lambda=0.0, guard_ratio=0.0, bank_lambda=0.0
        ),
    }
