"""Laws of splitting a model: shards add up, copies are counted, traffic follows the topology."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from moai_planner.costmodel import operations
from moai_planner.costmodel.arrays import work_of
from moai_planner.costmodel.breakdown import breakdown
from moai_planner.costmodel.checks import layout_problems
from moai_planner.costmodel.comm import (
    QUICK_HOPS,
    QUICK_S_PER_BYTE,
    TWO_SHOT_HOPS,
    all_reduce_bytes_factor,
    group_rate,
    quick_share,
    traffic,
)
from moai_planner.costmodel.launch import PROMPT_LAYER_S, UNTILED_EXPERTS_S
from moai_planner.costmodel.memory import memory_budget, weight_bytes_per_device
from moai_planner.costmodel.roofline import experts_touched
from moai_planner.costmodel.serving import kv_transfer, step_times
from moai_planner.costmodel.weights import checkpoint_bytes
from moai_planner.domain.accelerator import Link
from moai_planner.domain.layout import Layout
from tests.costmodel.cases import (
    ALL,
    DENSE,
    EXPERTS,
    LATENT,
    WINDOWED,
    configuration,
    with_parameters,
)


@pytest.mark.parametrize("which", ALL)
@pytest.mark.parametrize("tp", [1, 2, 4])
def test_shards_add_up_to_the_checkpoint(which, tp):
    """All devices together hold the checkpoint, and copies of what cannot be split (under 6 %); experts
    in native MXFP4 are padded to whole tiles (up to 14 % for gpt-oss in quarters)."""
    c = configuration(which, tp=tp)
    whole = checkpoint_bytes(c.model, c.precision)
    held = tp * weight_bytes_per_device(c)
    padded = 1.14 if which == WINDOWED else 1.0
    assert whole * 0.999 <= held <= whole * 1.06 * padded


@pytest.mark.parametrize("which", [WINDOWED, LATENT, EXPERTS])
def test_spreading_experts_whole_or_in_slices_stores_the_same(which):
    """Expert parallelism moves experts between ranks; it neither adds nor loses any. Slices in native MXFP4
    fill their tiles worse."""
    sliced = weight_bytes_per_device(configuration(which, tp=8, ep=1))
    whole = weight_bytes_per_device(configuration(which, tp=8, ep=8))
    if which == WINDOWED:
        assert whole < sliced < 1.05 * whole
    else:
        assert whole == pytest.approx(sliced, rel=1e-9)


def test_data_parallel_ranks_share_experts_and_copy_the_rest():
    """A rank of DP8 holds an eighth of the experts and all of the attention."""
    one = configuration(LATENT, tp=1)
    spread = configuration(LATENT, tp=1, dp=8, ep=8)
    assert weight_bytes_per_device(spread) < weight_bytes_per_device(one) / 6
    assert work_of(spread).projection_bytes == work_of(one).projection_bytes


@pytest.mark.parametrize("pp", [2, 4])
def test_pipeline_stages_split_layers(pp):
    """Even stages: per device a pp-th of the layers, and one vocabulary matrix at most."""
    whole, staged = configuration(DENSE, tp=2), configuration(DENSE, tp=2, pp=pp)
    assert weight_bytes_per_device(staged) == pytest.approx(weight_bytes_per_device(whole) / pp, rel=0.08)
    assert work_of(staged).dense_bytes == pytest.approx(work_of(whole).dense_bytes)
    assert step_times(staged).stages == pp


def test_kv_heads_are_copied_beyond_their_number():
    """Eight KV heads: 8 ranks hold one each, 16 ranks hold one each too; a latent is on every rank."""
    per_rank = [memory_budget(configuration(DENSE, tp=tp)).kv_bytes_per_token for tp in (4, 8, 16)]
    assert per_rank == [2 * per_rank[1], per_rank[1], per_rank[1]]
    latent = [memory_budget(configuration(LATENT, tp=tp)).kv_bytes_per_token for tp in (1, 8)]
    assert latent[0] == latent[1] == 61 * 576 * 2


@pytest.mark.parametrize("which", ALL)
def test_memory_parts_add_up(which):
    """What the engine may use is weights, activations, graphs, runtime and KV; blocks fit in KV."""
    c = configuration(which)
    m = memory_budget(c)
    used = m.weights_bytes + m.activations_bytes + m.graphs_bytes + m.runtime_bytes + m.kv_bytes
    assert used == pytest.approx(c.accelerator.memory_bytes * c.engine.memory_utilization_frac)
    assert m.kv_tokens * m.kv_bytes_per_token <= m.kv_bytes
    assert m.kv_tokens == m.kv_blocks * c.engine.block_size_tokens


def test_a_fraction_of_free_memory_leaves_that_fraction_whatever_the_weights_take():
    """TensorRT-LLM: KV is proportional to the fraction; under vLLM each tenth is a tenth of the device."""
    c = configuration(LATENT, "b200_sxm", tp=4, name="trtllm", memory_utilization_frac=0.8)
    whole, half = (
        memory_budget(replace(c, engine=replace(c.engine, memory_utilization_frac=frac)))
        for frac in (0.8, 0.4)
    )
    assert half.kv_bytes == pytest.approx(whole.kv_bytes / 2) and whole.fits
    held = whole.weights_bytes + whole.activations_bytes + whole.graphs_bytes + whole.runtime_bytes
    assert whole.kv_bytes == pytest.approx(0.8 * (c.accelerator.memory_bytes - held))
    other = memory_budget(replace(c, engine=replace(c.engine, name="vllm")))
    assert not other.fits and other.kv_bytes == pytest.approx(0.8 * c.accelerator.memory_bytes - held)
    too_small = memory_budget(configuration(LATENT, "h100_sxm", tp=8, name="trtllm"))
    assert not too_small.fits and too_small.kv_tokens == 0


def test_a_model_that_is_too_large_has_no_blocks():
    """Weights beyond the memory leave nothing, and the budget says so."""
    m = memory_budget(configuration(LATENT, "h100_sxm", tp=8))
    assert not m.fits and m.kv_tokens == 0 and m.kv_bytes < 0


def test_published_block_count_of_llama_8b_on_h100():
    """vLLM logs about 54 GiB for KV, 440,000 tokens, for Llama-3.1-8B in bf16 on one H100 80 GB."""
    m = memory_budget(configuration(("meta-llama/Llama-3.1-8B-Instruct", "bf16"), "h100_sxm", tp=1))
    assert m.kv_tokens == pytest.approx(440_000, rel=0.05)


def test_experts_touched():
    """One token touches k, very many touch all, and never more than there are."""
    tokens = np.arange(1, 5000)
    touched = experts_touched(256, 8, tokens)
    assert touched[0] == pytest.approx(8)
    assert np.all(np.diff(touched) >= 0) and touched[-1] == pytest.approx(256)
    draws = np.random.default_rng(0).random((400, 32, 64)).argsort(axis=-1)[..., :4]
    seen = np.mean([len(np.unique(draw)) for draw in draws])
    assert float(experts_touched(64, 4, 32)) == pytest.approx(seen, rel=0.01)


def test_experts_see_the_tokens_of_all_data_parallel_ranks():
    """The same batch a rank touches more experts when more ranks share them."""
    alone = work_of(configuration(EXPERTS, tp=1))
    shared = work_of(configuration(EXPERTS, tp=1, dp=8, ep=8))
    assert (alone.group_ranks, shared.group_ranks) == (1, 8)
    assert shared.experts_per_rank == alone.experts_per_rank / 8


def test_mesh_gives_a_small_group_few_ports():
    """Two of eight devices on a mesh see a seventh of a device's rate; all eight see all of it."""
    mesh, switch = Link("mesh", 448.0, 8), Link("switch", 448.0, 8)
    assert group_rate(mesh, 2) == pytest.approx(64) and group_rate(mesh, 8) == 448
    assert group_rate(switch, 2) == group_rate(switch, 8) == 448


def test_all_reduce_matches_bytes_by_hand():
    """70B, TP8, one token: 161 all-reduces of 16 KiB at 7/4 over 450 GB/s."""
    c = configuration(DENSE, "h200_sxm", tp=8)
    found = traffic(c, 1.0)
    assert found.reduce_hops == 161
    assert found.reduce_s_per_token == pytest.approx(161 * 8192 * 2 * 1.75 / 450e9)
    assert all_reduce_bytes_factor(2) == 1.0


@pytest.mark.parametrize(
    ("engine", "tp", "most"),
    [
        ("vllm", 8, 15),
        ("vllm", 4, 31),
        ("atom", 8, 4),
        ("atom", 4, 9),
        ("trtllm", 8, 128),
        ("trtllm", 4, 128),
    ],
)
def test_small_sums_go_in_one_shot(engine, tp, most):
    """70B, 16 KiB a token: up to the limit n−1 times the bytes in one latency, far above it 2(n−1)/n in 1.5,
    and between them never less than at the limit."""
    c = configuration(DENSE, "h200_sxm", name=engine, tp=tp)
    w, p = work_of(c), c.parameters
    rate = 450e9 * p.collective_bandwidth_frac
    sums, token_bytes, far = 161, 8192 * 2, 8 * most
    for tokens, bytes_factor, hops in ((most, tp - 1, 1.0), (far, 2 * (tp - 1) / tp, TWO_SHOT_HOPS)):
        expected = sums * (hops * p.collective_hop_s + tokens * token_bytes * bytes_factor / rate)
        assert float(operations.all_reduce_s(w, p, tokens)) == pytest.approx(expected)
    assert np.all(np.diff(operations.all_reduce_s(w, p, np.arange(1.0, far))) >= 0)


@pytest.mark.parametrize(("on", "tp"), [("rtx_4090", 8), ("h200_sxm", 16), ("gb200_nvl72", 16)])
def test_groups_without_kernels_of_their_own_sum_one_way(on, tp):
    """Over PCI Express, over nodes, or of more than eight: one latency and 2(n−1)/n bytes at every size."""
    c = configuration(DENSE, on, tp=tp)
    w, p = work_of(c), c.parameters
    none, one, many = (float(operations.all_reduce_s(w, p, tokens)) for tokens in (0.0, 1.0, 4096.0))
    assert none == pytest.approx(w.reduce_hops * p.collective_hop_s + w.reduce_network_hops * p.network_hop_s)
    assert many - none == pytest.approx(4096 * (one - none))


@pytest.mark.parametrize(
    ("tp", "bytes_", "measured_us"),
    [(2, 2**22, 41.37), (2, 2**26, 459.58), (2, 2**29, 3493.84), (4, 2**21, 28.49), (4, 2**23, 64.23)],
)
def test_quantised_sums_take_what_was_published(tp, bytes_, measured_us):
    """4 bits on MI300X (aiter pull request 801, vLLM 19744), with the published rates of plain sums in fp16
    there: 20.7 ps a byte over two ranks, 14.1 over four, 7.2 us for next to nothing."""
    plain_ps, latency_us = {2: 20.7, 4: 14.1}[tp], 7.2
    expected_us = QUICK_HOPS * latency_us
    expected_us += bytes_ * (plain_ps * 1e-6 * quick_share(4) + QUICK_S_PER_BYTE * 1e6)
    assert expected_us == pytest.approx(measured_us, rel=0.2)


def test_large_sums_are_quantised_where_the_engine_does():
    """SGLang's images do on AMD devices; others when told; never for less than a least size, elsewhere, or
    over ranks without a kernel; and a token more never takes less time."""
    small, large = 2048, 8192
    plain, seconds = {}, {}
    for name, bits in (("sglang", 0), ("sglang", 4), ("sglang", 16), ("vllm", 0), ("vllm", 4), ("vllm", 6)):
        c = configuration(DENSE, "mi300x", name=name, tp=8, reduce_bits=bits)
        found = operations.all_reduce_s(work_of(c), c.parameters, np.arange(0.0, large + 1.0))
        assert np.all(np.diff(found) >= 0)
        plain[name, bits], seconds[name, bits] = found[small], found[large]
    told, none = seconds["vllm", 4], seconds["vllm", 0]
    assert told < seconds["vllm", 6] < seconds["sglang", 0] < seconds["sglang", 16] == pytest.approx(none)
    assert told <= seconds["sglang", 4] < seconds["sglang", 0]
    assert plain["vllm", 4] < 0.7 * plain["vllm", 0]
    assert plain["sglang", 4] == pytest.approx(plain["sglang", 16])  # aiter's kernels take 32 MiB first
    for on, tp in (("h200_sxm", 8), ("mi250x", 8), ("mi300x", 6), ("mi300x", 1)):
        told, plain = (work_of(configuration(DENSE, on, tp=tp, reduce_bits=bits)) for bits in (4, 0))
        p = configuration(DENSE, on, tp=tp).parameters
        assert operations.all_reduce_s(told, p, 8192.0) == operations.all_reduce_s(plain, p, 8192.0)


def test_two_ranks_sum_in_one_shot_whatever_its_size():
    """Both shots would move the same bytes."""
    c = configuration(DENSE, "h200_sxm", tp=2)
    w, p = work_of(c), c.parameters
    few, many = (float(operations.all_reduce_s(w, p, tokens)) for tokens in (1.0, 8192.0))
    latency = w.reduce_hops * p.collective_hop_s
    assert many - latency == pytest.approx(8192 * (few - latency))


def test_a_step_just_above_what_is_captured_is_launched():
    """512 rows are replayed in pieces, 513 are launched by the host: no step between pays half."""
    c = configuration(DENSE, "h200_sxm", tp=1)
    times, w = step_times(c), work_of(c)
    replayed, launched = (float(times.mixed_step_s(tokens, 0, 0, 0)) for tokens in (512, 513))
    assert launched - replayed == pytest.approx(w.kernels * c.parameters.host_kernel_s, rel=0.1)


def test_a_group_over_nodes_pays_the_network():
    """TP16 on nodes of 8 adds hops and bytes on the network; on a rack of 72 it does not."""
    over = traffic(configuration(DENSE, "h200_sxm", tp=16), 1.0)
    inside = traffic(configuration(DENSE, "gb200_nvl72", tp=16), 1.0)
    assert over.reduce_network_hops > 0 and over.reduce_network_s_per_token > 0
    assert inside.reduce_network_hops == 0 and inside.reduce_network_s_per_token == 0


@pytest.mark.parametrize(
    ("ranks", "on", "inside", "doublings"),
    [
        (2, "h200_sxm", 2 / 3, 0),
        (8, "h200_sxm", 1, 0),
        (32, "h200_sxm", 1, 2),
        (128, "h200_sxm", 1, 2),
        (64, "gb200_nvl72", 1.5, 0),
    ],
)
def test_exchanges_take_longer_over_more_ranks_and_nodes(ranks, on, inside, doublings):
    """Latency by the logarithm of the ranks in a fast network; more for the first two doublings of nodes."""
    c = configuration(LATENT, on, tp=1, dp=ranks, ep=ranks)
    w, p = work_of(c), c.parameters
    latency = 2 * 58 * (inside * p.all_to_all_s + doublings * p.exchange_network_s)
    assert float(operations.exchange_s(w, p, 0.0)) == pytest.approx(latency)


def test_stages_between_ranks_send_experts_over_the_network():
    """tp4 pp2 dp2 on servers of eight: ranks of a stage lie in two servers."""
    c = configuration(LATENT, "h200_sxm", tp=4, pp=2, dp=2, ep=8)
    assert traffic(c, 1.0).exchange_network_hops == 2 * 58
    assert traffic(c, 1.0).exchange_network_s_per_token > 0


def test_passes_through_experts_begin_where_they_begin():
    """256 rows go through the experts at once, 257 twice: the table has the jump as the breakdown does."""
    c = configuration(LATENT, "mi300x", name="moreh-vllm", tp=1, dp=8, ep=8, max_num_seqs=64)
    times = step_times(c)
    for tokens in (256, 257, 512, 513):
        parts = sum(part.seconds for part in breakdown(c, "prefill", tokens, 0))
        assert float(times.mixed_step_s(tokens, tokens**2 / 2)) == pytest.approx(parts, rel=0.01)


def test_one_device_does_not_communicate():
    """No peers, no collectives."""
    found = traffic(configuration(EXPERTS, tp=1), 1.0)
    assert all(value == 0 for value in vars(found).values())


def test_pipeline_sends_cross_where_stages_do():
    """Two stages of eight devices sit on two nodes; of four, on one."""
    assert traffic(configuration(DENSE, tp=8, pp=2), 1.0).send_network_share == 1
    assert traffic(configuration(DENSE, tp=4, pp=2), 1.0).send_network_share == 0


def test_transfer_rates():
    """Vendors differ → through host memory, slower and harder on decoding; half a node, half the network."""
    here, there = configuration(WINDOWED, "h100_sxm", tp=4), configuration(WINDOWED, "mi300x", tp=4)
    direct, staged = kv_transfer(here, here), kv_transfer(here, there)
    assert staged.staged and not direct.staged
    assert staged.bytes_per_s < direct.bytes_per_s
    assert staged.decode_slowdown_frac > direct.decode_slowdown_frac
    assert direct.bytes_per_token == 2 * 36 * 8 * 64 * 2
    assert kv_transfer(here, configuration(WINDOWED, "h100_sxm", tp=2)).bytes_per_s == pytest.approx(
        direct.bytes_per_s / 2
    )


@pytest.mark.parametrize(
    ("which", "layout", "field"),
    [
        (DENSE, Layout(tp=3), "tp"),
        (DENSE, Layout(tp=0), "tp"),
        (DENSE, Layout(tp=1, pp=81), "pp"),
        (DENSE, Layout(tp=8, ep=8), "ep"),
        (EXPERTS, Layout(tp=4, ep=3), "ep"),
        (EXPERTS, Layout(tp=4, ep=8), "ep"),
    ],
)
def test_impossible_layouts_are_named(which, layout, field):
    """The problem names the degree that is wrong."""
    problems = layout_problems(replace(configuration(which), layout=layout).model, layout)
    assert [problem.field for problem in problems] == [field]


@pytest.mark.parametrize(
    "layout", [Layout(8), Layout(8, ep=8), Layout(1, dp=8, ep=8), Layout(2, pp=2, dp=4, ep=8)]
)
def test_possible_layouts_have_no_problem(layout):
    """What vLLM runs is not refused."""
    assert layout_problems(configuration(LATENT).model, layout) == []


def test_more_rows_than_experts_exchange_at_once_take_several_passes():
    """Twice the rows a buffer holds: the experts' weights are read twice, and two exchanges each way."""
    spread = configuration(LATENT, tp=1, dp=8, ep=8)
    engine = replace(spread.engine, name="moreh-vllm", max_num_seqs=256)
    whole, halves = work_of(spread), work_of(replace(spread, engine=engine))
    assert halves.expert_chunk_tokens == 256
    p = spread.parameters
    for seconds in (operations.experts_s, operations.exchange_s):
        assert float(seconds(halves, p, 256.0)) == float(seconds(whole, p, 256.0))
        assert float(seconds(halves, p, 512.0)) == pytest.approx(2.0 * float(seconds(whole, p, 256.0)))
    assert float(operations.experts_s(halves, p, 512.0)) > float(operations.experts_s(whole, p, 512.0))


@pytest.mark.parametrize(("half_width", "ratio"), [(1.0, 1.0), (256.0, (2048 + 256) / 2048 * 256 / 512)])
def test_slices_of_experts_multiply_slower_than_whole_ones(half_width, ratio):
    """R1 on eight devices, many rows: slices of 256 at half the rate, whole experts of 2,048 at 8/9 of it."""
    values = {"expert_half_width": half_width, "expert_imbalance": 1.0, "unoverlapped_frac": 0.0}
    sliced, whole = (with_parameters(configuration(LATENT, tp=8, ep=ep), **values) for ep in (1, 8))
    rows = 1e6
    slow, fast = (float(operations.experts_s(work_of(c), c.parameters, rows)) for c in (sliced, whole))
    assert fast / slow == pytest.approx(ratio, rel=0.02)


@pytest.mark.parametrize(
    ("on", "number_format", "tp", "ep", "more"),
    [
        ("mi300x", "fp8", 4, 1, 1.0),  # slices of 384
        ("mi300x", "fp8", 2, 1, 0.0),  # of 768
        ("mi300x", "fp8", 4, 4, 0.0),  # whole experts of 1,536
        ("mi300x", "bf16", 4, 1, 0.0),
        ("mi355x", "fp8", 4, 1, 0.0),
        ("h200_sxm", "fp8", 4, 1, 0.0),
    ],
)
def test_slices_that_their_fused_kernel_does_not_take_cost_the_same_whatever_the_rows(
    on, number_format, tp, ep, more
):
    """MiniMax-M2.5: what such a slice adds is alike for one row and for a thousand."""
    c = configuration(("MiniMaxAI/MiniMax-M2.5", number_format), on, tp=tp, ep=ep)
    w = work_of(c)
    taken = replace(w, expert_start_s=np.zeros_like(w.expert_start_s))
    for tokens in (1.0, 1000.0):
        added = operations.experts_s(w, c.parameters, tokens) - operations.experts_s(
            taken, c.parameters, tokens
        )
        assert float(added) == pytest.approx(more * c.model.layers * UNTILED_EXPERTS_S)


def test_norms_over_all_heads_sum_once_more_a_layer():
    """MiniMax-M2.5: nothing on one rank, a sum a layer on several, the bytes of which do not count."""
    which = ("MiniMaxAI/MiniMax-M2.5", "fp8")
    for tp, more in ((1, 0.0), (4, 1.0)):
        c = configuration(which, tp=tp)
        (part,) = c.model.attention
        plain = replace(c, model=replace(c.model, attention=(replace(part, joint_norm=False),)))
        joint, usual = traffic(c, 1.0), traffic(plain, 1.0)
        assert joint.reduce_hops - usual.reduce_hops == more * c.model.layers
        assert joint.reduce_s_per_token == usual.reduce_s_per_token


def test_a_prompt_among_ranks_that_decode_in_chunks_costs_beside_its_tokens():
    """Not where prompts run alone, nor on an engine or a layout that exchanges experts otherwise."""
    spread = {"tp": 1, "dp": 8, "ep": 8}
    chunked = configuration(LATENT, name="moreh-vllm", **spread)
    assert work_of(chunked).prompt_step_s == pytest.approx(58 * PROMPT_LAYER_S)
    found = step_times(chunked)
    alone_s = breakdown(chunked, "prefill", 8192, 0)
    assert found.mixed_s[-1] + found.pair_s * 8192**2 / 2 == pytest.approx(sum(o.seconds for o in alone_s))
    for other in (
        configuration(LATENT, name="moreh-vllm", prompts_only=True, **spread),
        configuration(LATENT, name="moreh-vllm", tp=8),
        configuration(LATENT, **spread),
    ):
        assert work_of(other).prompt_step_s == 0
