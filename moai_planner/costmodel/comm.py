r"""Collectives by layout and topology: counts, latencies and bytes, at the links' full rates.

Ranks are placed as vLLM does: tensor ranks next to each other, then pipeline stages, then data-parallel
ranks. A group that is larger than the fast network reaches works in two levels.

All-reduce of b bytes over n ranks (two-shot, Thakur et al. 2005), each rank reading from all others at once:

.. math:: t = h + \frac{2 (n-1)}{n} \frac{b}{r}

Small sums go in one shot: every rank reads everything from all others, n−1 instead of 2(n−1)/n, and ranks
meet twice instead of three times. How much is small differs: vLLM and SGLang go by bytes (vLLM's
`custom_all_reduce.cuh`), ATOM and SGLang on AMD devices too (aiter's copy of it), TensorRT-LLM by tokens,
however wide (`kOneShotMaxToken` of its fused kernels). These kernels join up to eight devices of one fast
network, two over PCI Express; other groups sum by NCCL, whose latency stands for itself.

Large sums over AMD devices can travel in fewer bits (vLLM's `VLLM_ROCM_QUICK_REDUCE_QUANTIZATION`; SGLang's
images set theirs to 8): 4 to 8 bits a value and a scale for every 32, from a least number of bytes on. Beside
these bytes they take 2.8 latencies and 1.1 ps a byte to pack and unpack, by published timings of MI300X
(aiter pull request 801, vLLM 19744).

Inside the fast network h does not grow with n: small all-reduces of an 8 × H100 server take as long over two
ranks as over eight (Vidur's network profiles). Between nodes it is paid per doubling of the nodes.

Dispatch to and combine from n ranks that hold experts take

.. math:: t = a \frac{1 + \log_8 n_{node}}{2} + b \min(\log_2 N, 2)

beside their bytes: a over eight ranks of the fast network (that half of it grows with the ranks is assumed),
b for the first two doublings of N nodes; published exchanges grow little beyond four.

Norms over all heads at once (MiniMax-M2) add a sum of a few bytes a token, which costs its latency alone
(vLLM pull request 31493).

On a mesh a group of n of D devices has only (n−1)/(D−1) of a device's ports towards its members. On a torus
of two dimensions each doubling of a block of neighbours opens one more of the four ports.

>>> all_reduce_bytes_factor(8), one_shot_bytes_factor(8)
(1.75, 7.0)
>>> from moai_planner.domain.units import GIGA
>>> group_rate(Link("mesh", 448 * GIGA, 8), 2) / GIGA, group_rate(Link("switch", 450 * GIGA, 8), 2) / GIGA
(64.0, 450.0)
>>> [group_rate(Link("torus", 448 * GIGA, 256), ranks) / GIGA for ranks in (2, 4, 16, 64)]
[112.0, 224.0, 448.0, 448.0]
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from moai_planner.costmodel.configuration import Configuration
from moai_planner.domain.accelerator import Accelerator, Link
from moai_planner.domain.precision import bytes_per_element
from moai_planner.domain.units import KIBI, MEBI

TORUS_PORTS = 4
"""Of a device on a torus of two dimensions."""
ONE_SHOT_TOKENS = {"trtllm": 128}
ONE_SHOT_BYTES = {"atom": (160 * KIBI, 80 * KIBI)}
ROCM = "rocm"
AITER_ON_ROCM = ("sglang",)
"""Engines that sum by aiter's kernels on AMD devices, as ATOM does (SGLang's `SGLANG_USE_AITER_AR`, on by
default)."""
USUAL_ONE_SHOT_BYTES = (512 * KIBI, 256 * KIBI)
"""Sums below the first go in one shot over up to four ranks, below the second over more; over two ranks all
do."""
PAIR, FEW_RANKS, MOST_RANKS = 2, 4, 8
QUICK_LEAST_BYTES = {
    4: {2: MEBI, 4: 2 * MEBI, 8: 2 * MEBI},
    6: {2: 2 * MEBI, 4: 4 * MEBI, 8: 4 * MEBI},
    8: {2: 2 * MEBI, 4: 16 * MEBI, 8: 4 * MEBI},
}
"""[bits][ranks] smallest sums that are quantised (`quick_all_reduce.py` of vLLM and SGLang, values cast to
fp16 as by default); other bits and ranks have no kernels."""
AITER_MOST_BYTES = 64 * MEBI
"""Aiter's kernels take sums up to here first (`_DEFAULT_CAR_MAX_SIZE`)."""
QUICK_ARCHITECTURES = ("CDNA3", "CDNA4")
QUICK_BITS = {"sglang": 8}
"""Engines whose images turn it on."""
QUICK_HOPS = 2.8
"""Latency of a quantised sum, in those of one shot."""
QUICK_SCALE_BITS = 0.5
"""A 16-bit scale for every 32 values."""
QUICK_S_PER_BYTE = 1.1e-12
"""Packing and unpacking, by bytes of the plain sum."""
TWO_SHOT_HOPS = 1.5
"""Latency of a sum in two shots, in those of one shot: three meetings of all ranks instead of two."""
USUAL_RANKS = 8
"""Ranks whose exchange has the latency of the parameters."""
MOST_DOUBLINGS = 2.0
"""Doublings of the nodes after which the latency of exchanges hardly grows (DeepEP's table, to 256 ranks)."""
CHASSIS_DEVICES = 8
"""A fast network of more devices than this joins chassis into a rack (NVL72)."""


@dataclass(frozen=True)
class Traffic:
    """Communication of one pass; times at full link rates, before efficiencies."""

    reduce_hops: float
    reduce_network_hops: float
    reduce_s_per_token: float
    one_shot_tokens: float
    one_shot_s_per_token: float
    quick_tokens: float
    quick_s_per_token: float
    quick_packing_s_per_token: float
    reduce_network_s_per_token: float
    gather_s_per_row: float
    exchange_latencies: float
    exchange_network_hops: float
    exchange_s_per_token: float
    exchange_network_s_per_token: float
    sends: float
    send_network_share: float
    send_s_per_token: float
    send_network_s_per_token: float


def all_reduce_bytes_factor(ranks: int) -> float:
    """Bytes a rank sends per byte reduced, 2(n−1)/n."""
    return 2.0 * (ranks - 1) / ranks


def one_shot_bytes_factor(ranks: int) -> float:
    """Bytes a rank reads per byte reduced when it reads everything from all others."""
    return ranks - 1.0


def most_one_shot_tokens(engine: str, ranks: int, token_bytes: float) -> float:
    """Tokens of a step up to which its sums go in one shot.

    >>> [most_one_shot_tokens("vllm", ranks, 16 * KIBI) for ranks in (2, 4, 8)]
    [inf, 31.0, 15.0]
    >>> most_one_shot_tokens("trtllm", 8, 16 * KIBI)
    128.0
    """
    if engine in ONE_SHOT_TOKENS:
        return float(ONE_SHOT_TOKENS[engine])
    if ranks <= PAIR:
        return math.inf
    few, many = ONE_SHOT_BYTES.get(engine, USUAL_ONE_SHOT_BYTES)
    return math.ceil((few if ranks <= FEW_RANKS else many) / token_bytes) - 1.0


def quick_share(bits: int) -> float:
    """Bytes of a quantised sum over those of one in bf16.

    >>> quick_share(4)
    0.28125
    """
    return (bits + QUICK_SCALE_BITS) / 16


def most_plain_tokens(bits: int, ranks: int, token_bytes: float) -> float:
    """Tokens of a step up to which its sums are not quantised.

    >>> [most_plain_tokens(4, ranks, 14 * KIBI) for ranks in (2, 6, 8)]
    [73.0, inf, 146.0]
    """
    least = QUICK_LEAST_BYTES.get(bits, {}).get(ranks, math.inf)
    return math.ceil(least / token_bytes) - 1.0 if least < math.inf else math.inf


def latency_share(ranks: int) -> float:
    """Latency of an exchange over so many ranks of the fast network, in that over eight.

    >>> [round(latency_share(ranks), 2) for ranks in (2, 8, 64)]
    [0.67, 1.0, 1.5]
    """
    return (1 + math.log(ranks, USUAL_RANKS)) / 2


def group_rate(link: Link, ranks: int) -> float:
    """Rate of one device towards a group of `ranks` on this link. [bytes/s]"""
    if ranks >= link.devices:
        return link.bytes_per_s
    if link.kind == "torus":
        return link.bytes_per_s * min(1.0, math.log2(ranks) / TORUS_PORTS)
    return link.bytes_per_s * ((ranks - 1) / (link.devices - 1) if link.kind == "mesh" else 1.0)


def fast_domain(accelerator: Accelerator, devices_per_node: int) -> int:
    """Devices that the fast network joins: a node's, or a rack's where the link reaches that far."""
    reach = accelerator.scale_up.devices
    if reach > CHASSIS_DEVICES:
        return reach
    return max(1, devices_per_node)


def local_link(accelerator: Accelerator) -> Link:
    """The network inside a node; host memory where devices have none of their own."""
    link = accelerator.scale_up
    if link.kind == "none" or link.bytes_per_s <= 0:
        return Link("pcie", accelerator.host_link_bytes_per_s, CHASSIS_DEVICES)
    return link


def traffic(c: Configuration, fullest: float) -> Traffic:
    """All collectives of one pass of one data-parallel rank's tokens."""
    model, layout = c.model, c.layout
    width = bytes_per_element("bf16")
    token_bytes = model.hidden_size * width
    exchanging = layout.dp > 1 and model.moe
    expert_layers = fullest * sum(part.layers for part in model.feed_forward if part.experts)
    reduces = 2 * fullest * model.layers + 1 - (expert_layers if exchanging else 0)
    sums = reduces + fullest * sum(part.layers for part in model.attention if part.joint_norm)
    hops, network_hops, s_per_byte, network_s_per_byte = _all_reduce(c, layout.tp)
    one_shot_tokens, one_shot = _one_shot(c, token_bytes)
    quick_tokens, quick = _quick(c, token_bytes)
    packing_s = QUICK_S_PER_BYTE if layout.tp > 1 else 0.0
    exchange = _exchange(c, expert_layers) if exchanging else (0.0, 0.0, 0.0, 0.0)
    sends, crossing, send_s, send_network_s = _sends(c, model.residual_size * width)
    return Traffic(
        reduce_hops=sums * hops,
        reduce_network_hops=sums * network_hops,
        reduce_s_per_token=reduces * token_bytes * s_per_byte,
        one_shot_tokens=one_shot_tokens,
        one_shot_s_per_token=reduces * token_bytes * s_per_byte * one_shot,
        quick_tokens=quick_tokens,
        quick_s_per_token=reduces * token_bytes * s_per_byte * quick,
        quick_packing_s_per_token=reduces * token_bytes * packing_s,
        reduce_network_s_per_token=reduces * token_bytes * network_s_per_byte,
        gather_s_per_row=model.vocabulary_size * width * s_per_byte / 2,
        exchange_latencies=exchange[0],
        exchange_network_hops=exchange[1],
        exchange_s_per_token=exchange[2],
        exchange_network_s_per_token=exchange[3],
        sends=sends,
        send_network_share=crossing,
        send_s_per_token=send_s,
        send_network_s_per_token=send_network_s,
    )


def _one_shot(c: Configuration, token_bytes: float) -> tuple[float, float]:
    """Tokens up to which sums go in one shot, and its bytes over those of two shots; without kernels of the
    engine's own there is one way for all sizes."""
    ranks = c.layout.tp
    if ranks == 1:
        return 0.0, 1.0
    link, domain = local_link(c.accelerator), fast_domain(c.accelerator, c.devices_per_node)
    if ranks > (PAIR if link.kind == "pcie" else min(MOST_RANKS, domain)):
        return math.inf, 1.0
    factor = one_shot_bytes_factor(ranks) / all_reduce_bytes_factor(ranks)
    name = c.engine.name
    if name in AITER_ON_ROCM and c.accelerator.platform == ROCM:
        name = "atom"
    return most_one_shot_tokens(name, ranks, token_bytes), factor


def _quick(c: Configuration, token_bytes: float) -> tuple[float, float]:
    """Tokens up to which sums are not quantised, and the bytes of quantised sums over those of others."""
    if c.layout.tp == 1:
        return 0.0, 1.0
    bits = c.engine.reduce_bits or QUICK_BITS.get(c.engine.name, 0)
    inside = c.layout.tp <= fast_domain(c.accelerator, c.devices_per_node)
    if not bits or not inside or c.accelerator.architecture not in QUICK_ARCHITECTURES:
        return math.inf, 1.0
    most = most_plain_tokens(bits, c.layout.tp, token_bytes)
    if c.engine.name in AITER_ON_ROCM:
        most = max(most, math.floor(AITER_MOST_BYTES / token_bytes))
    return most, quick_share(bits)


def _all_reduce(c: Configuration, ranks: int) -> tuple[float, float, float, float]:
    """Hops and seconds per byte, inside the fast network and between nodes."""
    if ranks == 1:
        return 0.0, 0.0, 0.0, 0.0
    domain = fast_domain(c.accelerator, c.devices_per_node)
    local = min(ranks, domain)
    nodes = -(-ranks // domain)
    hops = float(local > 1)
    s_per_byte = (
        all_reduce_bytes_factor(local) / group_rate(local_link(c.accelerator), local) if local > 1 else 0.0
    )
    if nodes == 1:
        return hops, 0.0, s_per_byte, 0.0
    network_s = all_reduce_bytes_factor(nodes) / c.network_bytes_per_s
    return hops, math.log2(nodes), s_per_byte, network_s


def _exchange(c: Configuration, expert_layers: float) -> tuple[float, float, float, float]:
    r"""Dispatch and combine between the ranks that share the experts: latencies and times per token.

    A token goes once to each rank that holds one of its experts; k experts over n ranks touch
    :math:`n (1 - (1 - 1/n)^k)` of them, and across the network once to each node. Experts split
    tensor-wise (ep 1) need every token on every rank. Dispatch travels in 8 bits when the
    experts are fp8, combine in bf16; tensor ranks share the tokens of their data-parallel rank.
    """
    layout, model = c.layout, c.model
    ranks = layout.tp * layout.dp
    domain = fast_domain(c.accelerator, c.devices_per_node)
    nodes = -(-layout.devices // domain)
    local = min(domain, -(-ranks // nodes))
    chosen = max(part.experts_per_token for part in model.feed_forward if part.experts)
    copies = ranks - 1.0 if layout.ep == 1 else _touched(layout.ep, chosen) * (layout.ep - 1) / layout.ep
    narrow = bytes_per_element("fp8" if c.precision.expert_weights == "fp8" else "bf16")
    moved = model.hidden_size * (narrow + bytes_per_element("bf16"))
    inside = copies * local / ranks if nodes > 1 else copies
    s_inside = moved * inside / layout.tp / group_rate(local_link(c.accelerator), local) if local > 1 else 0.0
    s_network = 0.0
    if nodes > 1:
        remote = nodes - 1.0 if layout.ep == 1 else _touched(nodes, chosen) * (nodes - 1) / nodes
        s_network = moved * remote * local / layout.tp / c.network_bytes_per_s
    exchanges = 2.0 * expert_layers
    latencies = exchanges * latency_share(local)
    network_hops = exchanges * min(math.log2(nodes), MOST_DOUBLINGS)
    return latencies, network_hops, expert_layers * s_inside, expert_layers * s_network


def _touched(bins: float, draws: int) -> float:
    """Distinct of `bins` hit by `draws` independent uniform draws."""
    return bins * (1 - (1 - 1 / bins) ** draws) if bins > 1 else 1.0


def _sends(c: Configuration, token_bytes: float) -> tuple[float, float, float, float]:
    """Activations handed from stage to stage: sends, the share between nodes, seconds per token."""
    layout = c.layout
    if layout.pp == 1:
        return 0.0, 0.0, 0.0, 0.0
    domain = fast_domain(c.accelerator, c.devices_per_node)
    sends = layout.pp - 1
    nodes = -(-layout.tp * layout.pp // domain)
    between = min(sends, nodes - 1)
    pair_rate = group_rate(local_link(c.accelerator), 2)
    shared = token_bytes / layout.tp
    network = between * token_bytes / c.network_bytes_per_s if between else 0.0
    return float(sends), between / sends, (sends - between) * shared / pair_rate, network
