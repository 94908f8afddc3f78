"""What the calibration fits, and among whom each number is shared.

Every (device, engine, number format) has the assumed parameters plus the corrections of its parts
(`domain/corrections`). Each correction is pulled towards zero by a prior whose standard deviation, in the
field's real form (log or logit), is below; so a part with few rows stays near what its relatives say (partial
pooling: Gelman and Hill 2007, chapter 12). What the silicon decides is shared by architecture and number
format across engines; what the software decides is shared by engine across platforms.
"""

from __future__ import annotations

from moai_planner.domain.corrections import (
    ARCHITECTURE,
    ENGINE,
    ENGINE_PRODUCTS,
    EVERYWHERE,
    FAMILY,
    FAMILY_PRODUCTS,
    FORMAT_KERNELS,
    NUMBER_FORMAT,
    PLATFORM,
    Part,
)

BASE_FIELDS = (
    "matmul_frac",
    "weight_bandwidth_frac",
    "kv_bandwidth_frac",
    "expert_matmul_frac",
    "expert_bandwidth_frac",
    "expert_skew",
    "kernel_s",
    "host_kernel_s",
    "step_s",
    "sequence_s",
    "context_token_s",
    "request_s",
    "warmup_s",
    "collective_hop_s",
    "network_hop_s",
    "all_to_all_s",
    "draft_accept_frac",
)
ARCHITECTURE_FIELDS = (
    "matmul_frac",
    "weight_bandwidth_frac",
    "kv_bandwidth_frac",
    "expert_bandwidth_frac",
    "kernel_s",
    "collective_hop_s",
    "all_to_all_s",
    "warmup_s",
)
FORMAT_FIELDS = (
    "matmul_frac",
    "weight_bandwidth_frac",
    "expert_matmul_frac",
    "expert_bandwidth_frac",
)
PRODUCT_FIELDS = ("matmul_frac", "weight_bandwidth_frac")
"""Of layers without experts; products of experts are an engine's own in every format."""
ENGINE_FIELDS = tuple(name for name in BASE_FIELDS if name not in PRODUCT_FIELDS)
LEVEL_FIELDS = {
    ARCHITECTURE: ARCHITECTURE_FIELDS,
    NUMBER_FORMAT: FORMAT_FIELDS,
    FORMAT_KERNELS: FORMAT_FIELDS,
    ENGINE_PRODUCTS: PRODUCT_FIELDS,
    FAMILY_PRODUCTS: PRODUCT_FIELDS,
    ENGINE: ENGINE_FIELDS,
    FAMILY: ENGINE_FIELDS,
}
"""Levels that move some fields only."""
LENGTH_FIELDS = ("context_token_s",)
"""Fields that only runs of several lengths tell from a cost per sequence: a family moves them where it has
such runs, and nothing wider does."""
COMMON_FIELDS = ("expert_skew", "network_hop_s")
"""Fields that models or the network between nodes decide, not what runs there: moved for all together."""
SEVERAL_LENGTHS = 2.0
"""Longest over shortest context from which lengths count as several."""
LENGTH_SPREAD = 3.0
SPREADS = {
    EVERYWHERE: 0.7,
    PLATFORM: 0.3,
    ARCHITECTURE: 0.25,
    NUMBER_FORMAT: 0.25,
    FORMAT_KERNELS: 0.25,
    ENGINE_PRODUCTS: 0.7,
    FAMILY_PRODUCTS: 1.0,
    ENGINE: 0.7,
    FAMILY: 1.0,
}
"""Standard deviation of the prior on a correction, by level."""
LOOSE_FIELDS = (
    "all_to_all_s",
    "network_hop_s",
    "step_s",
    "draft_accept_frac",
    "warmup_s",
)
"""Fields whose assumed values say little."""
LOOSE_FACTOR = 3.0
TIGHT_FIELDS = ("kv_bandwidth_frac", "matmul_frac", "expert_matmul_frac", "host_kernel_s")
"""Fields that the calibration rows, nearly all of one length, cannot tell from a cost per sequence or per
request: nearer to the operator tables they start from."""
TIGHT_FACTOR = 0.35


def spread_of(part: Part, name: str) -> float:
    """Standard deviation of a part's correction of a field; 0 = it has none."""
    level = part[0]
    if name in LENGTH_FIELDS:
        return LENGTH_SPREAD if level == FAMILY else 0.0
    if name in COMMON_FIELDS and level != EVERYWHERE:
        return 0.0
    if name not in LEVEL_FIELDS.get(level, BASE_FIELDS):
        return 0.0
    spread = SPREADS[level]
    if name in LOOSE_FIELDS:
        spread *= LOOSE_FACTOR
    if name in TIGHT_FIELDS:
        spread *= TIGHT_FACTOR
    return spread
