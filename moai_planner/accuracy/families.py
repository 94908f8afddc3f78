"""Which parameters are fitted together, and what they share.

A family is one engine on one platform: every device, model and number format of it. Its parameters are a base
shared by all, small deviations of an architecture (how well its units are used) and of a number format
(how well its kernels are used). A family starts from its parent's fit, so an engine or platform with few
rows stays near what is known, and what has no rows at all takes the nearest family's base.
"""

from __future__ import annotations

from dataclasses import dataclass

from moai_planner.domain.accelerator import Accelerator


@dataclass(frozen=True)
class Family:
    """One engine on one platform."""

    platform: str
    engine: str
    parent: tuple[str, str] | None
    "The family whose base is the starting point; None = the assumed values."

    @property
    def key(self) -> tuple[str, str]:
        return (self.platform, self.engine)

    @property
    def name(self) -> str:
        return f"{self.engine}-{self.platform}"


FAMILIES = (
    Family("cuda", "vllm", None),
    Family("rocm", "vllm", ("cuda", "vllm")),
    Family("cuda", "sglang", ("cuda", "vllm")),
    Family("rocm", "sglang", ("rocm", "vllm")),
    Family("cuda", "trtllm", ("cuda", "vllm")),
    Family("rocm", "atom", ("rocm", "vllm")),
    Family("rocm", "moreh-vllm", ("rocm", "vllm")),
)
"""Parents come before their children."""

BASE_FIELDS = (
    "matmul_frac",
    "matmul_half_tokens",
    "weight_bandwidth_frac",
    "unoverlapped_frac",
    "attention_frac",
    "kv_bandwidth_frac",
    "expert_matmul_frac",
    "expert_half_tokens",
    "expert_bandwidth_frac",
    "expert_imbalance",
    "kernel_s",
    "step_s",
    "sequence_s",
    "request_s",
    "collective_hop_s",
    "collective_bandwidth_frac",
    "all_to_all_s",
    "all_to_all_bandwidth_frac",
    "transfer_s",
    "transfer_bandwidth_frac",
    "staged_bandwidth_frac",
    "draft_accept_frac",
)
ARCHITECTURE_FIELDS = (
    "matmul_frac",
    "weight_bandwidth_frac",
    "attention_frac",
    "kv_bandwidth_frac",
    "expert_matmul_frac",
    "expert_bandwidth_frac",
    "kernel_s",
    "collective_hop_s",
)
FORMAT_FIELDS = (
    "matmul_frac",
    "weight_bandwidth_frac",
    "expert_matmul_frac",
    "expert_half_tokens",
    "expert_bandwidth_frac",
)
LOOSE_FIELDS = (
    "all_to_all_s",
    "step_s",
    "transfer_bandwidth_frac",
    "staged_bandwidth_frac",
    "draft_accept_frac",
)
"""Fields that the software decides more than the device does: their priors are wider."""
LOOSE_FACTOR = 3.0
TIGHT_FIELDS = ("kv_bandwidth_frac", "attention_frac")
"""Fields that the calibration rows, all of one length, cannot tell from a cost per sequence: nearer to the
operator tables they start from."""
TIGHT_FACTOR = 0.35
PRIOR_FACTORS = dict.fromkeys(LOOSE_FIELDS, LOOSE_FACTOR) | dict.fromkeys(TIGHT_FIELDS, TIGHT_FACTOR)
BASE_SPREAD = 0.7
"""Standard deviation of the prior on a base field, in its real form (log or logit)."""
CHILD_SPREAD = 0.5
"""The same around the parent's fit."""
DEVIATION_SPREAD = 0.25
"""The same of an architecture's or a number format's deviation from the base."""


def family_of(accelerator: Accelerator, engine: str) -> Family:
    """The family of an engine on a device; its nearest relative when nobody measured it.

    An unknown engine counts as vLLM, an unknown platform as cuda.
    """
    by_key = {family.key: family for family in FAMILIES}
    tries = (
        (accelerator.platform, engine),
        (accelerator.platform, "vllm"),
        ("cuda", engine),
        ("cuda", "vllm"),
    )
    return next(by_key[key] for key in tries if key in by_key)
