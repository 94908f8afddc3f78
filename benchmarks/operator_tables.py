"""Public operator timings as rows of (device, number format, shape, seconds) for `operator_anchors.py`.

Tables lie beside the project (a sibling folder, or `MOAI_SHARED_DATA`). Every reader's frame has
`device`, `number_format`, `kind` (a table or kernel), `shape` (what is left out together), `s`, and
    products    rows, weights            experts     rows (token copies), touched, weights (of one expert)
    decode      kv_bytes, rows           prompts     flop           all_reduce  ranks, bytes
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd

from moai_planner.costmodel.comm import all_reduce_bytes_factor
from moai_planner.costmodel.roofline import experts_touched
from moai_planner.domain.units import MICRO, MILLI, NANO

BESIDE = Path(__file__).resolve().parents[2] / "shared" / "data"
ROOT = Path(os.environ.get("MOAI_SHARED_DATA", BESIDE)) / "operators"
UNITS = {304: "mi300x", 80: "mi308x", 256: "mi355x"}
"""Compute units → device of the AMD tables (gfx942 and gfx950 boards of the same chip share them)."""
PRODUCT_FORMATS = {"bf16": "bf16", "fp8_blockscale": "fp8", "fp8_or_int8_rowwise": "fp8"}
"""Products in fp4 are left out: the cost model counts them by the rate of 16 bits."""
EXPERT_FORMATS = {
    "bfloat16": "bf16",
    "float8_e4m3fnuz": "fp8",
    "float8_e4m3fn": "fp8",
    "float4_e2m1fn_x2": "mxfp4",
}
SMALLEST_PRODUCT = 1 << 21
"""Weights of the smallest product taken: smaller ones are all start and tail."""
REPEATED_TOKENS = 1024
"""MI308X repeats one time for longer expert batches: upper bounds, left out."""
VIDUR = {"a100": "a100_sxm_80gb", "h100": "h100_sxm"}
NETWORKS = {"a100_dgx": "a100_sxm_80gb", "h100_dgx": "h100_sxm"}
CARDS = {"RTX4090": "rtx_4090", "RTXPRO6000": "rtx_pro_6000"}
EARLIER = {"H100": "h100_sxm", "TPU-v6e-1": "tpu_v6e"}
SIZES = {
    "meta-llama/Llama-3.1-8B": (4096, 14336, 32, 8, 128),
    "meta-llama/Llama-3.1-70B": (8192, 28672, 64, 8, 128),
    "Qwen/Qwen3-32B": (5120, 25600, 64, 8, 128),
    "Qwen/Qwen3-30B-A3B-Instruct-2507": (2048, 0, 32, 4, 128),
}
"""Model → hidden size, intermediate size, heads, KV heads, head size."""


def products() -> pd.DataFrame:
    """Linear layers: tuned products of AMD, layers of NVIDIA devices and cards."""
    return pd.concat([_amd_products(), *_vidur_products(), *_card_products()], ignore_index=True)


def _amd_products() -> pd.DataFrame:
    d = pd.read_csv(ROOT / "amd_aiter_ops" / "gemm_measured.csv.gz", low_memory=False)
    d = d[d.cu_num.isin(UNITS) & d.kind.isin(PRODUCT_FORMATS) & (d.N * d.K > SMALLEST_PRODUCT) & (d.us > 0)]
    best = d.groupby(["cu_num", "kind", "M", "N", "K"], as_index=False).us.min()
    return pd.DataFrame(
        {
            "device": best.cu_num.map(UNITS),
            "number_format": best.kind.map(PRODUCT_FORMATS),
            "kind": "aiter " + best.kind,
            "shape": best.N.astype(str) + "x" + best.K.astype(str),
            "rows": best.M.astype(float),
            "weights": (best.N * best.K).astype(float),
            "s": best.us * MICRO,
        }
    )


def _vidur_products() -> list[pd.DataFrame]:
    found = []
    for folder, device in VIDUR.items():
        for path in sorted((ROOT / "vidur_profiles" / "compute" / folder).glob("**/mlp.csv.gz")):
            d = pd.read_csv(path)
            d = d[d.num_tokens > 0]
            tp, gated = d.num_tensor_parallel_workers, np.where(d.use_gated_mlp, 2, 1)
            head = d.n_embd / d.n_head
            for name, weights in {
                "mlp_up_proj": d.n_embd * d.n_expanded_embd * gated / tp,
                "mlp_down_proj": d.n_embd * d.n_expanded_embd / tp,
                "attn_pre_proj": d.n_embd * head * (d.n_head + 2 * d.n_kv_head) / tp,
                "attn_post_proj": d.n_embd * d.n_embd / tp,
            }.items():
                frame = pd.DataFrame(
                    {
                        "rows": d.num_tokens.astype(float),
                        "weights": weights,
                        "s": d[f"time_stats.{name}.median"] * MILLI,
                    }
                )
                shape = f"{path.parent.name} {name} " + tp.astype(str)
                found.append(
                    frame.assign(device=device, number_format="bf16", kind="vidur layers", shape=shape)
                )
    return [frame[frame.weights > SMALLEST_PRODUCT].dropna() for frame in found]


def _layer_weights(model: str, tp: int) -> dict[str, float]:
    hidden, inner, heads, kv_heads, size = SIZES[model]
    return {
        "qkv_proj": hidden * size * (heads + 2 * kv_heads) / tp,
        "o_proj": hidden * size * heads / tp,
        "gate_up_proj": 2 * hidden * inner / tp,
        "down_proj": hidden * inner / tp,
    }


def _card_tables(file: str) -> list[tuple[str, str, int, pd.DataFrame]]:
    found = []
    for name, device in CARDS.items():
        for path in sorted((ROOT / "llmservingsim" / "perf" / name).glob(f"**/{file}")):
            model = str(path.parents[2].relative_to(ROOT / "llmservingsim" / "perf" / name))
            found.append((device, model, int(path.parent.name[2:]), pd.read_csv(path)))
    return found


def _card_products() -> list[pd.DataFrame]:
    found = []
    for device, model, tp, d in _card_tables("dense.csv.gz"):
        for layer, weights in _layer_weights(model, tp).items():
            part = d[d.layer == layer]
            frame = pd.DataFrame({"rows": part.tokens.astype(float), "s": part.time_us * MICRO})
            shape = f"{model} {layer} {tp}"
            found.append(
                frame.assign(
                    device=device, number_format="bf16", kind="vllm layers", shape=shape, weights=weights
                )
            )
    return [frame[frame.weights > SMALLEST_PRODUCT] for frame in found if len(frame)]


def experts() -> pd.DataFrame:
    """Fused expert layers. Tables of AMD tell tokens; experts touched are the expected number."""
    d = pd.read_csv(ROOT / "amd_aiter_ops" / "fused_moe_measured.csv.gz", low_memory=False)
    d = d[d.cu_num.isin(UNITS) & (d.us > 0) & (d.use_g1u1.astype(int) == 1)]
    d = d[(d.cu_num != 80) | (d.token <= REPEATED_TOKENS)]
    keys = ["cu_num", "q_dtype_w", "q_type", "token", "model_dim", "inter_dim", "expert", "topk"]
    d = d.groupby(keys, as_index=False).us.min()
    d = d.assign(number_format=d.q_dtype_w.str.removeprefix("torch.").map(EXPERT_FORMATS)).dropna()
    amd = pd.DataFrame(
        {
            "device": d.cu_num.map(UNITS),
            "number_format": d.number_format,
            "kind": "aiter fused experts",
            "shape": d[["q_type", "model_dim", "inter_dim", "expert", "topk"]]
            .astype(str)
            .agg(" ".join, axis=1),
            "rows": (d.token * d.topk).astype(float),
            "touched": experts_touched(
                d.expert.to_numpy(float), d.topk.to_numpy(float), d.token.to_numpy(float)
            ),
            "weights": (3 * d.model_dim * d.inter_dim).astype(float),
            "width": d.inter_dim.astype(float),
            "s": d.us * MICRO,
        }
    )
    cards = []
    for device, _, _, d in _card_tables("moe.csv.gz"):
        frame = pd.DataFrame({"rows": d.tokens * 8.0, "touched": d.activated_experts.astype(float)})
        frame = frame.assign(
            s=d.time_us * MICRO, shape=d.activated_experts.astype(str), weights=3.0 * 2048 * 768, width=768.0
        )
        cards.append(frame.assign(device=device, number_format="bf16", kind="vllm experts"))
    return pd.concat([amd, *cards], ignore_index=True)


def decode_attention() -> pd.DataFrame:
    """One token for each of several equal sequences."""
    found = []
    for device, model, tp, d in _card_tables("attention.csv.gz"):
        d = d[(d.prefill_chunk == 0) & (d.n_decode > 0)]
        found.append(_decode(device, model, tp, d.n_decode, d.kv_decode, d.time_us * MICRO))
    for device, model, tp, d, seconds in _earlier_attention("decode"):
        found.append(_decode(device, model, tp, d.batch_size, d.kv_cache_size, seconds))
    return pd.concat(found, ignore_index=True)


def _earlier_attention(phase: str) -> Iterator[tuple[str, str, int, pd.DataFrame, pd.Series]]:
    """Device, model, tp, rows of one phase (`decode`, `prefill`) and their seconds."""
    for name, device in EARLIER.items():
        for path in sorted(
            (ROOT / "llmservingsim" / "v0" / "perf_models" / name).glob("**/attention.csv.gz")
        ):
            model, tp = "/".join(path.parts[-4:-2]), int(path.parent.name[2:])
            if model in SIZES:
                d = pd.read_csv(path)
                d = d[d.is_prefill.astype(bool) == (phase == "prefill")]
                seconds = d.p50_ns * NANO if "p50_ns" in d else d[f"time_stats.attn_{phase}.median"] * MILLI
                yield device, model, tp, d, seconds


def _decode(device, model, tp, sequences, context, seconds) -> pd.DataFrame:
    _, _, _, kv_heads, size = SIZES[model]
    kv_bytes = sequences * context * (2 * 2 * size * max(1, kv_heads // tp))
    frame = pd.DataFrame({"kv_bytes": kv_bytes.astype(float), "rows": sequences.astype(float), "s": seconds})
    shape = f"{model} {tp} " + sequences.astype(str)
    return (
        frame.assign(device=device, number_format="bf16", kind="decode attention", shape=shape)
        .dropna()
        .query("kv_bytes > 0")
    )


def prompt_attention() -> pd.DataFrame:
    """A chunk of one prompt over what is cached of it."""
    found = []
    for device, model, tp, d in _card_tables("attention.csv.gz"):
        d = d[(d.prefill_chunk > 0) & (d.n_decode == 0)]
        found.append(_prompt(device, model, tp, d.prefill_chunk, d.kv_prefill, d.time_us * MICRO))
    for device, model, tp, d, seconds in _earlier_attention("prefill"):
        found.append(_prompt(device, model, tp, d.prefill_chunk_size, d.kv_cache_size, seconds))
    return pd.concat(found, ignore_index=True)


def _prompt(device, model, tp, chunk, cached, seconds) -> pd.DataFrame:
    _, _, heads, _, size = SIZES[model]
    pairs = chunk * (cached + chunk / 2)
    frame = pd.DataFrame(
        {"flop": pairs * (4.0 * size * heads / tp), "rows": chunk.astype(float), "s": seconds}
    )
    return frame.assign(
        device=device,
        number_format="bf16",
        kind="prompt attention",
        shape=f"{model} {tp} " + chunk.astype(str),
    ).dropna()


def all_reduce() -> pd.DataFrame:
    """NCCL all-reduce inside a node (the slowest rank's median)."""
    found = []
    for folder, device in NETWORKS.items():
        d = pd.read_csv(ROOT / "vidur_profiles" / "network" / folder / "all_reduce.csv.gz")
        d = d[d.num_workers == d.devices_per_node]
        d = d.groupby(["num_workers", "size"], as_index=False)["time_stats.all_reduce.median"].median()
        found.append(
            pd.DataFrame(
                {
                    "device": device, "number_format": "bf16", "kind": "nccl all-reduce",
                    "shape": d.num_workers.astype(str), "ranks": d.num_workers.astype(float),
                    "bytes": d["size"] * [all_reduce_bytes_factor(n) for n in d.num_workers],
                    "s": d["time_stats.all_reduce.median"] * MILLI,
                }
            )
        )  # fmt: skip
    return pd.concat(found, ignore_index=True)
