"""How one engine instance is spread over devices, and the engine's own settings."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, order=True)
class Layout:
    """Parallel degrees of one instance. `ep` 1 = experts split tensor-wise; `ep` = tp·dp = spread whole.

    >>> Layout(tp=2, dp=4, ep=8).devices
    8
    """

    tp: int = 1
    pp: int = 1
    dp: int = 1
    ep: int = 1

    @property
    def devices(self) -> int:
        return self.tp * self.pp * self.dp

    def nodes(self, devices_per_node: int) -> int:
        """Nodes that one instance touches."""
        return -(-self.devices // devices_per_node)

    def __str__(self) -> str:
        parts = [f"{key}{value}" for key, value in vars(self).items() if value > 1 or key == "tp"]
        return "-".join(parts)


@dataclass(frozen=True)
class Engine:
    """Settings of one engine instance, every default written out. Counts are per data-parallel rank."""

    name: str = "vllm"
    max_num_seqs: int = 256
    max_num_batched_tokens: int = 8192
    max_model_len: int = 32768
    memory_utilization_frac: float = 0.90
    block_size_tokens: int = 16
    prefix_caching: bool = True
    long_prefill_token_threshold: int = 0
    "A single prompt takes at most this many tokens of a step; 0 = no limit."
    graphs: bool = True
    "Decode steps replay captured graphs, so the batch is padded to a captured size."
    async_scheduling: bool = True
    prompts_only: bool = False
    "The prefill side of a disaggregated deployment, with settings for prompts alone."
    rows_per_sequence: int = 1
    "Tokens that a decode step computes for a sequence: one, and those drafted. Graphs are captured so."
    reduce_bits: int = 0
    "Bits of a value in large sums over AMD devices: 4, 6, 8, or 16; 0 = the engine's default."


def capture_sizes(max_num_seqs: int, limit: int = 512) -> tuple[int, ...]:
    """Batch sizes vLLM captures by default: 1 2 4, then every 8 below 256, then every 16.

    Source: vLLM 0.33 `config/compilation.py`; the largest is min(2·max_num_seqs, `limit`).

    >>> capture_sizes(16)
    (1, 2, 4, 8, 16, 24, 32)
    """
    largest = min(2 * max_num_seqs, limit)
    sizes = [1, 2, 4, *range(8, 256, 8), *range(256, limit + 1, 16)]
    return tuple(size for size in sizes if size <= largest)
