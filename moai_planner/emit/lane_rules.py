"""What prefill and decode instances of one lane must agree on: a router pairs any of them with any other.

Rule ids as in `rules`; sources: vLLM 0.33 `kv_connector` package, its NIXL pages, llm-d operations page.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import product

from moai_planner.domain.units import show
from moai_planner.emit.engine_args import cross_vendor
from moai_planner.emit.launch import LaneRouter, Launch, Process
from moai_planner.emit.platforms import CONNECTOR_CLASS, CROSS_VENDOR, FP8_FNUZ, PLATFORMS
from moai_planner.emit.rules import Finding, refuse, warn

TCP_PORTS = range(1, 65536)


def check_lanes(launch: Launch) -> tuple[Finding, ...]:
    """All findings on lanes, and on the ports of all hosts."""
    found = [f for router in launch.routers for rule in LANE_RULES for f in rule(router, launch)]
    return (*found, *k05_ports_distinct(launch))


def disaggregation_supported(router: LaneRouter, launch: Launch) -> Iterator[Finding]:
    """A connector exists for the platform, and is one of ours."""
    if not router.connector:
        return
    where = _where(router)
    if router.connector not in CONNECTOR_CLASS:
        known = ", ".join(CONNECTOR_CLASS)
        yield refuse("N00", where, f"connector {router.connector} is not known; known: {known}")
    for platform in router.platforms:
        if not PLATFORMS[platform].disaggregated:
            yield refuse("N00", where, f"platform {platform} has no KV connector: mixed lanes only")
    if router.connector == "moriio" and set(router.platforms) != {"rocm"}:
        yield refuse("N00", where, "MoRI-IO moves KV between AMD devices only")
    if router.connector == "mooncake" and set(router.platforms) != {"cuda"}:
        yield refuse("N00", where, "Mooncake moves KV between NVIDIA devices only")
    if router.connector in ("moriio", "mooncake"):
        yield warn("N00", where, f"{router.connector} settings follow its documentation and were not tried")


def h01_one_vendor(router: LaneRouter, launch: Launch) -> Iterator[Finding]:
    """Prefill and decode share a platform unless the plan says otherwise and a recipe exists."""
    if len(router.platforms) < 2 or not router.connector:
        return
    where, names = _where(router), " and ".join(router.platforms)
    if not launch.plan.options.get("cross_vendor_kv"):
        yield refuse("H01", where, f"platforms {names} in one lane; allow it with the option cross_vendor_kv")
        return
    mix = cross_vendor(router)
    if mix is None:
        known = ", ".join(f"{p}→{d}" for p, d in CROSS_VENDOR)
        yield refuse("H01", where, f"no settings are known for prefill and decode on {names}; known: {known}")
    elif router.connector != "nixl":
        yield refuse("H01", where, "platforms differ: only NIXL can carry the KV")
    else:
        sure = "documented by a vendor" if mix.published else "deduced from source, never seen running"
        yield warn("H01", where, f"unverified transport between {names}: {sure}; same vLLM and NIXL release")


def h02_same_fp8(router: LaneRouter, launch: Launch) -> Iterator[Finding]:
    """fp8 KV of CDNA3 devices means other numbers elsewhere, and no handshake notices."""
    if router.deployment.precision.kv != "fp8" or not router.connector:
        return
    kinds = {member.instance.accelerator.startswith(FP8_FNUZ) for member in router.members}
    if len(kinds) > 1:
        yield refuse(
            "H02", _where(router), "fp8 KV between e4m3fnuz and e4m3fn devices; plan it with kv bf16"
        )


def n01_ranks_divide(router: LaneRouter, launch: Launch) -> Iterator[Finding]:
    """The larger tensor-parallel size is a multiple of the smaller."""
    for prefill, decode in _pairs(router):
        large, small = max(_tp(prefill), _tp(decode)), min(_tp(prefill), _tp(decode))
        if large % small:
            yield refuse("N01", _where(router), f"tp {_tp(prefill)} → tp {_tp(decode)} do not divide")
        elif large != small and router.connector == "mooncake":
            yield refuse("N01", _where(router), "Mooncake is documented for equal tensor-parallel sizes only")


def n02_prefill_ranks_hold_heads(router: LaneRouter, launch: Launch) -> Iterator[Finding]:
    """More prefill ranks than decode ranks only while each has KV heads of its own."""
    if router.connector != "nixl":
        return
    model = router.deployment.model
    latent = all(part.kind in ("mla", "linear") for part in model.attention)
    for prefill, decode in _pairs(router):
        if _tp(prefill) <= _tp(decode):
            continue
        if not latent and _tp(prefill) > model.kv_heads:
            message = f"prefill tp {_tp(prefill)} above decode tp {_tp(decode)} and {model.kv_heads} KV heads"
            yield refuse("N02", _where(router), message)
        elif _block(prefill) != _block(decode):
            yield refuse("N02", _where(router), "prefill tp above decode tp needs equal block sizes")
        else:
            yield warn("N02", _where(router), "prefill tp above decode tp: llm-d advises the reverse")


def n03_blocks_fit(router: LaneRouter, launch: Launch) -> Iterator[Finding]:
    """Block sizes are equal, or decode's a multiple of prefill's without a host buffer."""
    for prefill, decode in _pairs(router):
        if _block(prefill) == _block(decode):
            continue
        staged = len(router.platforms) > 1 or PLATFORMS[router.platforms[0]].kv_buffer_device == "cpu"
        if _block(decode) % _block(prefill) or staged or router.connector != "nixl" or _hybrid(router):
            yield refuse("N03", _where(router), f"block sizes {_block(prefill)} → {_block(decode)}")


def v12_same_formats(router: LaneRouter, launch: Launch) -> Iterator[Finding]:
    """The connector checks that both sides were started alike."""
    lengths = {member.instance.engine.max_model_len for member in router.members}
    if router.connector and len(lengths) > 1:
        yield refuse("V12", _where(router), f"max_model_len differs: {sorted(lengths)}")


def v13_no_pipeline(router: LaneRouter, launch: Launch) -> Iterator[Finding]:
    """Pull transfers do not cross pipeline stages of models with several kinds of KV."""
    if not router.connector or all(member.instance.layout.pp == 1 for member in router.members):
        return
    if _hybrid(router):
        yield refuse("V13", _where(router), "pipeline parallelism with several kinds of KV layers")
    else:
        yield warn("V13", _where(router), "pipeline parallelism in a lane that transfers KV is little tried")


def n06_members_alike(router: LaneRouter, launch: Launch) -> Iterator[Finding]:
    """A router has no weights, so unequal members of one role get equal load."""
    for role in ("mixed", "prefill", "decode"):
        kinds = {(m.instance.accelerator, m.instance.layout) for m in router.of_role(role)}
        if len(kinds) > 1:
            message = f"{role} members of {len(kinds)} kinds; the router balances by live load, not by plan"
            yield warn("N06", _where(router), message)


def n07_operation(router: LaneRouter, launch: Launch) -> Iterator[Finding]:
    """What operators of a disaggregated lane must know."""
    if router.connector == "nixl":
        message = (
            "restart the decode instances after a prefill restart; prompts below one block stay on decode"
        )
        yield warn("N07", _where(router), message)


def n08_host_buffer(router: LaneRouter, launch: Launch) -> Iterator[Finding]:
    """A host buffer mirrors the whole KV cache in host memory."""
    mix = cross_vendor(router)
    if not mix or mix.kv_buffer_device != "cpu":
        return
    for member in router.members:
        kv_bytes = member.instance.memory.get("kv_bytes", 0.0) * len(member.devices)
        if kv_bytes > 0:
            yield warn(
                "N08", f"process {member.name}", f"reserve {show(kv_bytes, 'bytes')} of host memory for KV"
            )


def n09_shared_folder(router: LaneRouter, launch: Launch) -> Iterator[Finding]:
    """KV through files, where engines have no network transport worth the name."""
    if router.connector == "example":
        folder = launch.options.shared_kv_path
        yield warn(
            "N09", _where(router), f"KV goes through {folder}, which its hosts must share; it grows with use"
        )


def k03_weight_zero(router: LaneRouter, launch: Launch) -> Iterator[Finding]:
    """A front cannot hold a lane of weight 0."""
    if router.lane.weight == 0:
        yield warn("K03", _where(router), "weight 0: its engines start, the front sends it nothing")


def k05_ports_distinct(launch: Launch) -> Iterator[Finding]:
    """No port is used twice on a host, and all are TCP ports."""
    users: dict[tuple[str, int], str] = {}
    for host, port, user in used_ports(launch):
        other = users.setdefault((host, port), user)
        if other != user:
            yield refuse("K05", f"host {host}", f"port {port} is used by {other} and {user}")
        if port not in TCP_PORTS:
            yield refuse("K05", f"host {host}", f"port {port} of {user} does not exist")


def used_ports(launch: Launch) -> Iterator[tuple[str, int, str]]:
    """(host, port, user) of everything that listens."""
    for process in launch.processes:
        ports, layout = process.ports, process.instance.layout
        ranks = layout.dp * layout.tp
        for name, first, count in (
            ("api", ports.api, 1),
            ("side channel", ports.side_channel, layout.dp),
            ("bootstrap", ports.bootstrap, layout.dp),
            ("handshake", ports.handshake, ranks),
            ("notify", ports.notify, ranks),
            ("master", ports.master if process.rank == 0 else 0, 1),
            ("data-parallel", ports.dp_rpc if process.rank == 0 else 0, 1),
        ):
            for port in range(first, first + count) if first else ():
                yield process.host, port, f"{process.name} {name}"
    for router in launch.routers:
        yield router.host, router.port, f"router {router.name}"
        yield router.host, router.metrics_port, f"router {router.name} metrics"
        if router.discovery_port:
            yield router.host, router.discovery_port, f"router {router.name} discovery"
    for front in launch.fronts:
        yield front.host, front.port, f"front {front.name}"


def _pairs(router: LaneRouter) -> Iterator[tuple[Process, Process]]:
    """Each kind of prefill with each kind of decode instance."""
    prefill = {member.instance.id: member for member in router.of_role("prefill")}
    decode = {member.instance.id: member for member in router.of_role("decode")}
    return product(prefill.values(), decode.values())


def _hybrid(router: LaneRouter) -> bool:
    parts = router.deployment.model.attention
    return len({(part.kind, part.window_tokens) for part in parts}) > 1


def _tp(process: Process) -> int:
    return process.instance.layout.tp


def _block(process: Process) -> int:
    return process.instance.engine.block_size_tokens


def _where(router: LaneRouter) -> str:
    return f"lane {router.lane.id}"


LANE_RULES: tuple[Callable[[LaneRouter, Launch], Iterator[Finding]], ...] = (
    disaggregation_supported,
    h01_one_vendor,
    h02_same_fp8,
    n01_ranks_divide,
    n02_prefill_ranks_hold_heads,
    n03_blocks_fit,
    v12_same_formats,
    v13_no_pipeline,
    n06_members_alike,
    n07_operation,
    n08_host_buffer,
    n09_shared_folder,
    k03_weight_zero,
)
