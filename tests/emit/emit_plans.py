"""Small hand-made plans; figures are round, not measured."""

from __future__ import annotations

from dataclasses import replace

from moai_planner.domain.layout import Engine, Layout
from moai_planner.domain.model import Attention, FeedForward, Model
from moai_planner.domain.plan import (
    FORMAT,
    DeploymentPlan,
    Instance,
    Lane,
    ObjectiveValue,
    Placement,
    Plan,
    PoolUse,
    Relaxation,
)
from moai_planner.domain.precision import precision
from moai_planner.domain.provenance import Basis, Interval
from moai_planner.domain.step import KvTransfer
from moai_planner.domain.units import GIBI, GIGA

DENSE = Model(
    id="qwen3-32b",
    architecture="Qwen3ForCausalLM",
    layers=64,
    hidden_size=5120,
    vocabulary_size=151936,
    attention=(Attention("gqa", 64, 64, 8, 128, 128),),
    feed_forward=(FeedForward(64, 25600),),
    tied_embeddings=False,
    max_context_tokens=40960,
    native_precision="bf16",
)
EXPERTS = Model(
    id="deepseek-v3",
    architecture="DeepseekV3ForCausalLM",
    layers=61,
    hidden_size=7168,
    vocabulary_size=129280,
    attention=(
        Attention("mla", 61, 128, 1, 192, 128, kv_lora_rank=512, q_lora_rank=1536, qk_rope_head_size=64),
    ),
    feed_forward=(
        FeedForward(3, 18432),
        FeedForward(58, 2048, experts=256, experts_per_token=8, shared_intermediate_size=2048),
    ),
    tied_embeddings=False,
    max_context_tokens=163840,
    native_precision="fp8",
)
NIXL = KvTransfer("nixl", False, 0.002, 25 * GIGA, 25 * GIGA, 262144.0, 0.05)


def pool(name: str, accelerator: str, hosts: tuple[str, ...], platform="cuda", vendor="NVIDIA", devices=8):
    """A pool of `len(hosts)` nodes."""
    return PoolUse(
        name,
        accelerator,
        0,
        devices * len(hosts),
        len(hosts),
        devices,
        50 * GIGA,
        2.0,
        hosts,
        platform,
        vendor,
    )


def deployment(name: str, model: Model, reference: str, precision_id: str) -> DeploymentPlan:
    """What a plan says of a model to serve."""
    slo = {"ttft_p95": 2.0, "tpot_p95": 0.04}
    return DeploymentPlan(
        name, model, reference, precision(precision_id), "azure_2023_conv", 1.0, 10.0, slo, 16384, True
    )


def instance(
    id: str,
    pool: str,
    lane: str,
    placements: tuple[Placement, ...],
    *,
    deployment: str = "chat",
    role: str = "mixed",
    accelerator: str = "h200_sxm",
    layout: Layout | None = None,
    engine: Engine | None = None,
    kv_gib: float = 60.0,
) -> Instance:
    """Copies of one engine instance, one a placement."""
    return Instance(
        id=id,
        deployment=deployment,
        role=role,
        pool=pool,
        accelerator=accelerator,
        count=len(placements),
        layout=layout or Layout(tp=2),
        engine=engine or Engine(max_model_len=16384),
        lane=lane,
        batch=64,
        predicted={"tpot_s": Interval(0.03, 0.025, 0.036, Basis.ANALYTIC)},
        memory={"kv_bytes": kv_gib * GIBI, "kv_tokens": 400_000},
        placements=placements,
        utilization={"time": 0.8},
        rate_req_per_s=5.0,
    )


def on(host: int, *devices: int) -> Placement:
    """A copy on one host."""
    return Placement((host,), (devices,))


def plan_of(pools, deployments, instances, lanes, **fields) -> Plan:
    """A feasible plan of the parts."""
    base = Plan(
        format=FORMAT,
        tool_version="0.1.0",
        inputs={"capacity.yaml": "0" * 64},
        status="optimal",
        objective=ObjectiveValue("least-cost", 42.0, 42.0, 0.0),
        cost_usd_per_h=42.0,
        pools=pools,
        deployments=deployments,
        instances=instances,
        lanes=lanes,
        splits=(),
        windows=({"name": "all"},),
        binding=(),
        assumptions=("price of mi300x taken from its profile",),
    )
    return replace(base, **fields)


def golden_plan() -> Plan:
    """Two vendors, two models: an AMD mixed lane, an NVIDIA prefill–decode lane, experts over two nodes."""
    pools = (
        pool("h200", "h200_sxm", ("10.0.0.11", "10.0.0.12", "10.0.0.13")),
        pool("mi300x", "mi300x", ("10.0.0.21",), "rocm", "AMD"),
    )
    chat = deployment("chat", DENSE, "Qwen/Qwen3-32B", "bf16")
    reason = deployment("reason", EXPERTS, "deepseek-ai/DeepSeek-V3", "fp8")
    wide = Engine(max_num_seqs=128, max_model_len=16384, block_size_tokens=64, max_num_batched_tokens=4096)
    instances = (
        instance("chat/h200/prefill", "h200", "chat/h200", (on(0, 0, 1), on(0, 2, 3)), role="prefill"),
        instance(
            "chat/h200/decode", "h200", "chat/h200", (on(0, 4, 5, 6, 7),), role="decode", layout=Layout(tp=4)
        ),
        instance(
            "chat/mi300x",
            "mi300x",
            "chat/mi300x",
            (on(0, 0, 1), on(0, 2, 3)),
            accelerator="mi300x",
        ),
        instance(
            "reason/h200",
            "h200",
            "reason/h200",
            (Placement((1, 2), (tuple(range(8)), tuple(range(8)))),),
            deployment="reason",
            layout=Layout(tp=1, dp=16, ep=16),
            engine=wide,
        ),
    )
    lanes = (
        Lane("chat/h200", "chat", "disaggregated", 7, 0.702, ("chat/h200/prefill", "chat/h200/decode"), NIXL),
        Lane("chat/mi300x", "chat", "mixed", 3, 0.298, ("chat/mi300x",)),
        Lane("reason/h200", "reason", "mixed", 1, 1.0, ("reason/h200",)),
    )
    return plan_of(pools, (chat, reason), instances, lanes)


def loopback_plan(platform: str = "cuda", heavy: int = 7, light: int = 3) -> Plan:
    """The rehearsal: one prefill–decode lane and one mixed lane, all on this machine."""
    vendor = {"cuda": "NVIDIA", "cpu": "generic"}[platform]
    block = 128 if platform == "cpu" else 16
    engine = Engine(max_num_seqs=16, max_num_batched_tokens=2048, max_model_len=2048, block_size_tokens=block)
    pools = (pool("local", "h200_sxm" if platform == "cuda" else "cpu", ("127.0.0.1",), platform, vendor),)
    common = {"engine": engine, "layout": Layout(tp=1), "accelerator": pools[0].accelerator, "kv_gib": 1.0}
    instances = (
        instance("p", "local", "pd", (on(0, 0), on(0, 1)), role="prefill", **common),
        instance("d", "local", "pd", (on(0, 2),), role="decode", **common),
        instance("m", "local", "mixed", (on(0, 3), on(0, 4)), **common),
    )
    share = heavy / (heavy + light)
    lanes = (
        Lane("pd", "chat", "disaggregated", heavy, share, ("p", "d"), NIXL),
        Lane("mixed", "chat", "mixed", light, 1 - share, ("m",)),
    )
    return plan_of(pools, (deployment("chat", DENSE, "Qwen/Qwen3-32B", "bf16"),), instances, lanes)


def infeasible_plan() -> Plan:
    """The answer was no."""
    why = Relaxation("stock_h200", "16 devices", "8 devices", "add 8 devices of h200")
    return plan_of((), (), (), (), status="infeasible", explanation=(why,))


def with_instance(plan: Plan, id: str, **fields) -> Plan:
    """The plan with one instance changed."""
    changed = tuple(replace(i, **fields) if i.id == id else i for i in plan.instances)
    return replace(plan, instances=changed)


def with_lane(plan: Plan, id: str, **fields) -> Plan:
    """The plan with one lane changed."""
    return replace(plan, lanes=tuple(replace(x, **fields) if x.id == id else x for x in plan.lanes))
