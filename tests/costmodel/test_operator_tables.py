"""Assumed efficiencies against operation timings of others: the formulas have the right shape.

Reads tables kept beside the project (`MOAI_SHARED_DATA`, or `shared/data` next to the checkout).
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from moai_planner.catalog.accelerators import accelerator
from moai_planner.catalog.parameters import assumed_for
from moai_planner.costmodel.roofline import experts_touched, paid_rows, product_s, roofline_s
from moai_planner.domain.precision import precision
from moai_planner.domain.units import MEGA, MICRO, MILLI

BESIDE = Path(__file__).resolve().parents[3] / "shared" / "data"
OPERATORS = Path(os.environ.get("MOAI_SHARED_DATA", BESIDE)) / "operators"
pytestmark = [
    pytest.mark.shared,
    pytest.mark.skipif(not OPERATORS.is_dir(), reason="no operation timings beside the project"),
]
LONG_S = 100 * MICRO
"""Shorter kernels are mostly start and tail, which a graph hides and these timings do not."""


def _median_error(device, number_format, rows, parameters, seconds, weight_bytes_per_element) -> float:
    a = accelerator(device)
    p = assumed_for(a, "vllm", precision(number_format))
    compute = product_s(parameters, rows, p.matmul_half_tokens, a.flop_per_s(number_format), p.matmul_frac)
    memory = (
        parameters * weight_bytes_per_element / (a.memory_bandwidth_bytes_per_s * p.weight_bandwidth_frac)
    )
    predicted = roofline_s(compute, memory, p.unoverlapped_frac)
    return float(np.median(np.abs(predicted / seconds - 1)))


@pytest.mark.parametrize(("folder", "device"), [("h100", "h100_sxm"), ("a100", "a100_sxm_80gb")])
def test_linear_layers_of_nvidia(folder, device):
    """Products over 100 us, all shapes: median error under 10 %."""
    found = []
    for path in sorted((OPERATORS / "vidur_profiles" / "compute" / folder).glob("**/mlp.csv.gz")):
        d = pd.read_csv(path)
        gated = np.where(d.use_gated_mlp, 2, 1)
        for name, weights in (
            ("mlp_up_proj", d.n_embd * d.n_expanded_embd * gated / d.num_tensor_parallel_workers),
            ("mlp_down_proj", d.n_embd * d.n_expanded_embd / d.num_tensor_parallel_workers),
        ):
            seconds = d[f"time_stats.{name}.median"] * MILLI
            found.append(pd.DataFrame({"weights": weights, "rows": d.num_tokens, "s": seconds}))
    d = pd.concat(found).dropna()
    d = d[d.s > LONG_S]
    error = _median_error(
        device, "bf16", d.rows.to_numpy(float), d.weights.to_numpy(float), d.s.to_numpy(), 2.0
    )
    assert len(d) > 1000 and error < 0.10


@pytest.mark.parametrize(("units", "device"), [(304, "mi300x"), (80, "mi308x"), (256, "mi355x")])
def test_block_scaled_products_of_amd(units, device):
    """Tuned fp8 products over 100 us: median error under 20 % (MI355X mixes kernels of two speeds)."""
    d = pd.read_csv(OPERATORS / "amd_aiter_ops" / "gemm_measured.csv.gz", low_memory=False)
    d = d[
        (d.cu_num == units) & (d.kind == "fp8_blockscale") & (d.us * MICRO > LONG_S) & (d.N * d.K > 8 * MEGA)
    ]
    weights = (d.N * d.K).to_numpy(float)
    error = _median_error(device, "fp8", d.M.to_numpy(float), weights, d.us.to_numpy() * MICRO, 1.0)
    assert len(d) > 20 and error < 0.20


def test_experts_of_rtx_pro_6000():
    """Grouped products from one token to thousands, few or all experts touched: median error under 15 %."""
    model = "Qwen/Qwen3-30B-A3B-Instruct-2507"
    path = OPERATORS / "llmservingsim" / "perf" / "RTXPRO6000" / model / "bf16" / "tp1" / "moe.csv.gz"
    d = pd.read_csv(path)
    a = accelerator("rtx_pro_6000")
    p = assumed_for(a, "vllm", precision("bf16"))
    weights, chosen = 3 * 2048 * 768, 8
    touched, rows = d.activated_experts.to_numpy(float), d.tokens.to_numpy(float) * chosen
    compute = 2 * weights * paid_rows(rows, touched * p.expert_half_tokens)
    compute /= a.flop_per_s("bf16") * p.expert_matmul_frac
    memory = touched * weights * 2 / (a.memory_bandwidth_bytes_per_s * p.expert_bandwidth_frac)
    predicted = roofline_s(compute, memory, p.unoverlapped_frac)
    assert np.median(np.abs(predicted / (d.time_us * MICRO) - 1)) < 0.15
    assert float(experts_touched(128, chosen, 1)) == pytest.approx(chosen)
