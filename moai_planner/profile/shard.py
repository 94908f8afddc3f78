"""One rank's share of a model as a model of its own, divided as vLLM divides it.

A tensor-parallel rank holds 1/tp of the query heads, of the KV heads (at least one: beyond that they are
copied), of every feed-forward width and of the vocabulary; hidden size, layers and latent ranks stay whole.
An expert-parallel rank holds whole experts, 1/ep of them, and as many tokens per expert as in the real thing:
with ep ranks each sending their batch, a rank computes batch · experts_per_token rows on its own experts.

What is left out is the collective after each layer: the cost model adds it.
"""

from __future__ import annotations

from typing import Any

from moai_planner.domain.errors import InputError, Problem
from moai_planner.domain.measured import Shard

_EXPERT_COUNTS = ("num_experts", "n_routed_experts", "num_local_experts")
_DENSE_WIDTHS = ("intermediate_size", "shared_expert_intermediate_size", "intermediate_size_mlp")
_EXPERT_WIDTHS = ("moe_intermediate_size",)


def divide(config: dict[str, Any], shard: Shard) -> dict[str, Any]:
    """The config of one rank; InputError where vLLM would refuse to divide it so.

    >>> whole = {"num_attention_heads": 32, "num_key_value_heads": 8, "hidden_size": 4096,
    ...          "intermediate_size": 14336, "vocab_size": 128256}
    >>> part = divide(whole, Shard(tp=4))
    >>> [part[k] for k in ("num_attention_heads", "num_key_value_heads", "head_dim", "intermediate_size")]
    [8, 2, 128, 3584]
    """
    problems: list[Problem] = []
    part = dict(config)
    if "num_attention_heads" in config and not config.get("head_dim") and not config.get("kv_lora_rank"):
        part["head_dim"] = config["hidden_size"] // config["num_attention_heads"]
    if shard.tp > 1:
        _split(part, "num_attention_heads", shard.tp, problems)
        kv_heads = config.get("num_key_value_heads")
        if config.get("kv_lora_rank"):
            part["num_key_value_heads"] = part["num_attention_heads"]
        elif kv_heads:
            part["num_key_value_heads"] = max(1, kv_heads // shard.tp)
        experts_whole = shard.ep > 1
        widths = _DENSE_WIDTHS + (() if experts_whole else _EXPERT_WIDTHS)
        for name in widths:
            if config.get(name):
                _split(part, name, shard.tp, problems)
        if config.get("vocab_size"):
            # vLLM pads the vocabulary to a multiple of 64 before dividing it
            padded = -(-config["vocab_size"] // 64) * 64
            part["vocab_size"] = -(-padded // shard.tp)
    if shard.ep > 1:
        _take_experts(part, config, shard.ep, problems)
    if problems:
        raise InputError(problems)
    _drop_out_of_range_tokens(part)
    return part


def _split(part: dict[str, Any], name: str, ways: int, problems: list[Problem]) -> None:
    if part[name] % ways:
        remedy = f"choose a degree that divides {part[name]}"
        problems.append(Problem("--tp", name, f"{part[name]} does not divide by {ways}", remedy))
    else:
        part[name] //= ways


def _take_experts(part: dict[str, Any], config: dict[str, Any], ways: int, problems: list[Problem]) -> None:
    name = next((name for name in _EXPERT_COUNTS if config.get(name)), None)
    if name is None:
        problems.append(Problem("--ep", "", str(ways), "the model has no experts: leave --ep out"))
        return
    _split(part, name, ways, problems)
    per_token = "num_experts_per_tok" if "num_experts_per_tok" in config else "experts_per_token"
    part[per_token] = min(config.get(per_token, 1), part[name])
    for groups in ("n_group", "topk_group"):
        if config.get(groups):
            part[groups] = 1  # groups are chosen among all experts of the model, not of a rank


def _drop_out_of_range_tokens(part: dict[str, Any]) -> None:
    vocabulary = part.get("vocab_size")
    for name in ("bos_token_id", "eos_token_id", "pad_token_id"):
        value = part.get(name)
        if vocabulary and isinstance(value, int) and value >= vocabulary:
            part[name] = 0
        elif vocabulary and isinstance(value, list):
            part[name] = [0]
