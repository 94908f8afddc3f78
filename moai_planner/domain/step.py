"""Step times as a few arrays: what the cost model hands to the programme and to the simulator.

One engine step processes prompt chunks and one token for each decoding sequence. Its time is

    t = base + pair_s · A + kv_s · H

where A = Σ over prompt chunks of chunk · (already computed + chunk/2)   [token pairs]
      H = Σ over decoding sequences of their context length              [tokens]
      base = decode_s[B]                  pure decode of B sequences (graph padding inside)
             mixed_s(T)                   any step with prompt tokens, T = prompt + decode tokens,
                                          linear between the points of `tokens`.

Everything is per data-parallel rank (all ranks alike) and for a whole pass through all pipeline stages.
With pipeline parallelism `stages` steps are in flight at once, so a new step may start every t/stages.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from moai_planner.domain.provenance import Basis


@dataclass(frozen=True, eq=False)
class StepTimes:
    """Step time of one configuration (accelerator, model, precision, layout, engine)."""

    decode_s: np.ndarray
    "[max_num_seqs + 1] seconds of a pure decode step of B sequences with no context; [0] is unused."
    tokens: np.ndarray
    "[n] increasing token counts at which `mixed_s` is known, from 1 to at least max_num_batched_tokens."
    mixed_s: np.ndarray
    "[n] seconds of a step of that many tokens, attention over earlier context excluded."
    pair_s: float
    "Seconds per token pair of prompt attention."
    kv_s: float
    "Seconds per context token read by decode attention."
    stages: int
    "Pipeline stages."
    request_s: float
    "Outside the engine, once per request: HTTP, tokenising, first detokenising. Adds to TTFT."
    prompt_token_s: float
    "Outside the engine, per prompt token (tokenising). Adds to TTFT."
    basis: Basis
    low_frac: float
    "A step takes at least this fraction of the value (80 % interval)."
    high_frac: float
    "… and at most this fraction."
    mixed_row_s: float = 0.0
    "Engine time of each sampled sequence in a step with prompt tokens, beyond `mixed_s`."
    group_token_s: float = 0.0
    """Part of `mixed_s`, per token of a long step, that experts spend on the tokens of all data-parallel
    ranks alike: with tokens on a share f of the ranks a step is shorter by (1 − f) of this."""
    padded_ranks: bool = False
    "Ranks without a prompt run as many rows as the rank with the longest, so nothing is shorter."

    def decode_step_s(self, sequences: np.ndarray | int, kv_tokens: np.ndarray | float) -> np.ndarray:
        """Pure decode. sequences [..] integers, kv_tokens [..] summed context → [..] seconds."""
        return self.decode_s[np.asarray(sequences)] + self.kv_s * np.asarray(kv_tokens, dtype=float)

    def mixed_step_s(
        self,
        step_tokens: np.ndarray | float,
        token_pairs: np.ndarray | float = 0.0,
        kv_tokens: np.ndarray | float = 0.0,
        sequences: np.ndarray | float = 0.0,
    ) -> np.ndarray:
        """A step with prompt tokens. step_tokens [..] prompt and decode tokens together → [..] seconds."""
        base = np.interp(step_tokens, self.tokens, self.mixed_s) + self.mixed_row_s * np.asarray(sequences)
        return base + self.pair_s * np.asarray(token_pairs) + self.kv_s * np.asarray(kv_tokens)

    def slower(self, decode: float, prompt: float) -> StepTimes:
        """Decoding and prompt work that take so many times as long, in steps that hold both too.

        What each sampled row of a mixed step costs belongs to decoding, what the ranks of a group spare to
        prompts. What happens outside the engine stays.
        """
        return replace(
            self,
            decode_s=self.decode_s * decode,
            kv_s=self.kv_s * decode,
            mixed_row_s=self.mixed_row_s * decode,
            mixed_s=self.mixed_s * prompt,
            pair_s=self.pair_s * prompt,
            group_token_s=self.group_token_s * prompt,
        )


@dataclass(frozen=True)
class MemoryBudget:
    """Where one device's memory goes, and the KV cache of one data-parallel rank."""

    weights_bytes: float
    "Per device, the fullest one."
    activations_bytes: float
    graphs_bytes: float
    runtime_bytes: float
    "Driver, collectives, allocator slack."
    kv_bytes: float
    "Per device, left for KV; zero or less = the model does not fit."
    kv_bytes_per_token: float
    "Per device."
    state_bytes_per_sequence: float
    "Per device, linear-attention state."
    kv_blocks: int
    "Blocks one data-parallel rank can hold."
    kv_tokens: int
    "kv_blocks · block size."

    @property
    def fits(self) -> bool:
        return self.kv_blocks > 0


@dataclass(frozen=True)
class KvTransfer:
    """How KV moves from a prefill to a decode instance."""

    connector: str
    "`nixl`, `mooncake`, `moriio`, `example` (shared folder), …"
    staged: bool
    "True = through host memory on both sides."
    latency_s: float
    bytes_per_s: float
    "Of one request's transfer when nothing else uses the path."
    nic_bytes_per_s: float
    "Shared by all transfers of one instance, each direction."
    bytes_per_token: float
    "Whole model, all layers and ranks."
    decode_slowdown_frac: float
    "A decode step that overlaps with an incoming transfer takes (1 + this) as long."


def to_one_width(rows: Sequence[np.ndarray]) -> np.ndarray:
    """Arrays of several lengths as rows of one; past its end a row repeats its last value.

    >>> to_one_width([np.array([1.0]), np.array([2.0, 3.0])]).tolist()
    [[1.0, 1.0], [2.0, 3.0]]
    """
    found = np.empty((len(rows), max(len(row) for row in rows)))
    for i, row in enumerate(rows):
        found[i, : len(row)] = row
        found[i, len(row) :] = row[-1]
    return found
