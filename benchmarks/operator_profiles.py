"""Write hardware_profiles/operators: operator timings of public tables, reduced to what interpolation needs.

    python benchmarks/operator_profiles.py

Reads `llmservingsim/perf` beside the project (see `operator_tables.py`); sums the dense kernels of a
layer, keeps the fewest token counts between which a straight line is within LINE of every timing, and
thins the attention grids to the points listed here. Attention over contexts that differ is kept as one
share a batch size.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import operator_tables
import pandas as pd
import yaml

from moai_planner.cli.output import write_text

OUT = Path(__file__).resolve().parent.parent / "hardware_profiles" / "operators"
LINE = 0.02
CHUNKS = (16, 64, 256, 512, 1024, 2048)
CONTEXTS = (16, 128, 256, 512, 1024, 2048, 4096, 8192, 16384)
CACHED = (0, 256, 1024, 2048, 4096, 8192, 16384)
MIXED = ((128, 512, 2048), (8, 32, 64, 128), (256, 1024, 2048, 4096))
LAYER = {
    "layernorm": 2,
    "qkv_proj": 1,
    "rotary_emb": 1,
    "o_proj": 1,
    "gate_up_proj": 1,
    "act_fn": 1,
    "down_proj": 1,
}
NORMS = {"qk_norm": 1}
ENGINE = "vllm-0.19.0"
SHIPPED = {
    "Qwen/Qwen3-30B-A3B-Instruct-2507": "Qwen/Qwen3-30B-A3B",
    "meta-llama/Llama-3.1-8B": "meta-llama/Llama-3.1-8B-Instruct",
}
COLUMNS = ("operator", "tokens", "sequences", "context", "experts", "us_or_share")


def main() -> None:
    for name, device in operator_tables.CARDS.items():
        folder, tables = OUT / device / ENGINE, {}
        folder.mkdir(parents=True, exist_ok=True)
        for path in sorted((operator_tables.ROOT / "llmservingsim" / "perf" / name).glob("**/dense.csv.gz")):
            model = str(path.parents[2].relative_to(operator_tables.ROOT / "llmservingsim" / "perf" / name))
            tp = int(path.parent.name[2:])
            if "A3B" in model and tp > 1:
                continue
            label = f"{model.split('/')[1].lower()}-tp{tp}"
            tables[label] = {"model": SHIPPED.get(model, model), "tp": tp, "precision": "bf16"}
            write_text(folder / f"{label}.csv", _csv(path.parent))
        write_text(folder / "meta.yaml", _meta(device, tables))


def _meta(device: str, tables: dict) -> str:
    head = {
        "format": "moai-operators/1",
        "accelerator": device,
        "engine": ENGINE.split("-")[0],
        "engine_version": ENGINE.split("-")[1],
        "source": {
            "title": "LLMServingSim operator tables (CASYS Lab KAIST, MIT)",
            "where": "summed by layer and thinned by benchmarks/operator_profiles.py",
            "kind": "measurement",
        },
        "tables": tables,
    }
    return yaml.safe_dump(head, sort_keys=False)


def _csv(folder: Path) -> str:
    rows = [*_dense(folder), *_attention(folder), *_spread(folder), *_experts(folder)]
    lines = [",".join(COLUMNS)]
    lines += [",".join(_text(row.get(column)) for column in COLUMNS) for row in rows]
    return "\n".join(lines) + "\n"


def _text(value) -> str:
    return "" if value is None else value if isinstance(value, str) else f"{value:.5g}"


def _dense(folder: Path):
    d = pd.read_csv(folder / "dense.csv.gz").pivot_table(index="tokens", columns="layer", values="time_us")
    d = d.interpolate(method="index").dropna()
    weights = {name: times for name, times in (LAYER | NORMS).items() if name in d}
    layer = sum(times * d[name] for name, times in weights.items())
    for name, series in (("layer", layer), ("tail", d["embedding"] + d["final_layernorm"])):
        yield from ({"operator": name, "tokens": t, "us_or_share": us} for t, us in _thinned(series))
    rows = pd.read_csv(folder / "per_sequence.csv.gz")
    rows = rows.pivot_table(index="sequences", columns="layer", values="time_us").interpolate(method="index")
    head = (rows["lm_head"] + rows["sampler"]).dropna()
    yield from ({"operator": "head", "sequences": n, "us_or_share": us} for n, us in _thinned(head))


def _thinned(series: pd.Series) -> list[tuple[float, float]]:
    """Ends first, then the worst point between lines until none is off by more than LINE."""
    x, y = series.index.to_numpy(float), series.to_numpy(float)
    kept = {0, len(x) - 1}
    while True:
        order = sorted(kept)
        off = np.abs(np.interp(x, x[order], y[order]) / y - 1)
        worst = int(off.argmax())
        if off[worst] <= LINE:
            return [(x[i], y[i]) for i in order]
        kept.add(worst)


def _attention(folder: Path):
    d = pd.read_csv(folder / "attention.csv.gz")
    d.columns = ["chunk", "cached", "n", "context", "us"]
    alone = d[(d.chunk == 0) & (d.n > 0) & d.context.isin(CONTEXTS)]
    for row in alone.itertuples():
        yield {"operator": "decode", "sequences": row.n, "context": row.context, "us_or_share": row.us}
    prompts = d[(d.n == 0) & d.chunk.isin(CHUNKS) & d.cached.isin(CACHED)]
    for row in prompts.itertuples():
        yield {"operator": "prompt", "tokens": row.chunk, "context": row.cached, "us_or_share": row.us}
    both = d[(d.cached == 0) & d.chunk.isin(MIXED[0]) & d.n.isin(MIXED[1]) & d.context.isin(MIXED[2])]
    for row in both.itertuples():
        yield {
            "operator": "mixed",
            "tokens": row.chunk,
            "sequences": row.n,
            "context": row.context,
            "us_or_share": row.us,
        }


def _spread(folder: Path):
    """Share that a batch takes longer when contexts differ: median over mixtures of two contexts."""
    d = pd.read_csv(folder / "skew.csv.gz")
    d = d[(d.regime == "pure") & (d.kvs >= 256) & (d.kv_big <= 8192)]
    share = (d.t_skew_us / d.t_mean_us - 1).groupby(d.n).median().clip(lower=0)
    for n, value in share.items():
        yield {"operator": "spread", "sequences": float(n), "us_or_share": float(value)}


def _experts(folder: Path):
    path = folder / "moe.csv.gz"
    if path.exists():
        for row in pd.read_csv(path).itertuples():
            yield {
                "operator": "experts",
                "tokens": row.tokens,
                "experts": row.activated_experts,
                "us_or_share": row.time_us,
            }


if __name__ == "__main__":
    main()
