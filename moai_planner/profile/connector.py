"""A KV connector that declares a request's leading tokens already computed, so that a decode step of
batch × context costs its batch of tokens and not batch × context of prefill.

vLLM loads it by path (`kv_connector_module_path`) and asks this module for `DeclaredKvConnector`. The class
exists only then: this file imports without vLLM.

    SamplingParams(extra_args={"kv_transfer_params": {"declared_tokens": 511}})
"""

from __future__ import annotations

from typing import Any

CLASS_NAME = "DeclaredKvConnector"
PARAMETER = "declared_tokens"
_NOISE_STD = 0.02
_NOISE_ELEMENTS = 1 << 20


def __getattr__(name: str) -> Any:
    if name != CLASS_NAME:
        raise AttributeError(name)
    return _connector_class()


def _connector_class() -> type:
    from vllm.distributed.kv_transfer.kv_connector.v1.decode_bench_connector import DecodeBenchConnector

    class DeclaredKvConnector(DecodeBenchConnector):
        """vLLM's own benchmark connector, switched on per request; pages are filled once, at start."""

        def get_num_new_matched_tokens(self, request: Any, num_computed_tokens: int) -> tuple[int, bool]:
            declared = int((request.kv_transfer_params or {}).get(PARAMETER, 0))
            return max(0, min(declared, request.num_tokens - 1) - num_computed_tokens), False

        def update_state_after_alloc(self, request: Any, blocks: Any, num_external_tokens: int) -> None:
            """Nothing to load: the pages hold noise since the start."""

        def register_kv_caches(self, kv_caches: dict[str, Any]) -> None:
            super().register_kv_caches(kv_caches)
            for pages in kv_caches.values():
                for tensor in pages if isinstance(pages, (list, tuple)) else (pages,):
                    _fill_with_noise(tensor)

    return DeclaredKvConnector


def _fill_with_noise(tensor: Any) -> None:
    """Random bits draw the power of real data: constant pages would let a GPU clock higher than served."""
    import torch

    generator = torch.Generator(device="cpu").manual_seed(0)
    if tensor.dtype.is_floating_point:
        noise = torch.empty(_NOISE_ELEMENTS).normal_(0.0, _NOISE_STD, generator=generator).to(tensor.dtype)
    else:  # fp8 kept as bytes: codes below 0x39 are the numbers 0 to 1, never NaN
        noise = torch.randint(0, 0x39, (_NOISE_ELEMENTS,), generator=generator).to(tensor.dtype)
    noise = noise.to(tensor.device)
    for row in tensor:
        flat = row.reshape(-1)
        repeats = -(-flat.numel() // noise.numel())
        row.copy_(noise.repeat(repeats)[: flat.numel()].view(row.shape))
