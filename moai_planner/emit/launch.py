"""Plan → launch specification: which process starts on which host, with which devices and ports.

    launch = build_launch(plan, LaunchOptions(affinity="session"))
    launch.processes[0].host, launch.processes[0].devices, launch.processes[0].ports.api

A copy of an instance on one node is one process. Over several nodes it takes one of two forms: ranks of one
tensor/pipeline group (`tensor_nodes`), or data-parallel ranks (`data_hybrid`: each node answers requests;
`data_internal`: node 0 answers for all). Everything here is frozen; targets only render it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from moai_planner.domain.errors import InputError
from moai_planner.domain.plan import DeploymentPlan, Instance, Lane, Placement, Plan, PoolUse
from moai_planner.emit.digest import plan_digest
from moai_planner.emit.ports import PortBook
from moai_planner.emit.structure import structure_problems

AFFINITIES = ("none", "session")


@dataclass(frozen=True)
class LaunchOptions:
    """What the user chooses at emit time; everything else is in the plan."""

    affinity: str = "none"
    "`session`: requests with one `x-session-id` stay in one lane and on one worker."
    model_paths: Mapping[str, str] = field(default_factory=dict)
    "Deployment → weights location told to the engine instead of the plan's reference; `` = all."
    connector: str = ""
    "KV connector instead of the plan's."
    shared_kv_path: str = "/tmp/moai-kv"
    "Folder of the connector that moves KV through files (platform cpu)."


@dataclass(frozen=True)
class Ports:
    """Ports of one process; 0 = not used."""

    api: int = 0
    side_channel: int = 0
    bootstrap: int = 0
    handshake: int = 0
    notify: int = 0
    master: int = 0
    "On node 0 of the copy; the other nodes connect to it."
    dp_rpc: int = 0
    "On node 0 of the copy."


@dataclass(frozen=True)
class Process:
    """One `vllm serve` on one host."""

    name: str
    copy: str
    instance: Instance
    deployment: DeploymentPlan
    pool: PoolUse
    lane: Lane
    host: str
    node: int
    "Index of the host in its pool."
    rank: int
    "Node rank inside the copy."
    nodes: int
    head_host: str
    devices: tuple[int, ...]
    form: str
    "`single`, `tensor_nodes`, `data_hybrid` or `data_internal`."
    dp_local: int
    "Data-parallel ranks on this node."
    ports: Ports
    connector: str
    "Empty in mixed lanes."

    @property
    def serves(self) -> bool:
        """Answers HTTP requests; the other nodes of a copy are headless."""
        return self.rank == 0 or self.form == "data_hybrid"

    @property
    def url(self) -> str:
        return f"http://{self.host}:{self.ports.api}"


@dataclass(frozen=True)
class LaneRouter:
    """The router of one lane."""

    name: str
    lane: Lane
    deployment: DeploymentPlan
    host: str
    port: int
    metrics_port: int
    discovery_port: int
    members: tuple[Process, ...]
    "Processes that answer requests, in plan order."
    connector: str
    platforms: tuple[str, ...]

    @property
    def url(self) -> str:
        return f"http://{self.host}:{self.port}"

    def of_role(self, role: str) -> tuple[Process, ...]:
        return tuple(member for member in self.members if member.instance.role == role)


@dataclass(frozen=True)
class Front:
    """Where a deployment's clients connect; splits by weight over lanes."""

    deployment: DeploymentPlan
    name: str
    host: str
    port: int
    routers: tuple[LaneRouter, ...]


@dataclass(frozen=True)
class Launch:
    """Everything that is started, and where."""

    plan: Plan
    digest: str
    options: LaunchOptions
    processes: tuple[Process, ...]
    routers: tuple[LaneRouter, ...]
    fronts: tuple[Front, ...]

    @property
    def hosts(self) -> tuple[str, ...]:
        named = [process.host for process in self.processes]
        return tuple(dict.fromkeys(named))


def build_launch(plan: Plan, options: LaunchOptions | None = None) -> Launch:
    """Check the plan's structure, then give every copy its hosts, devices, name and ports."""
    options = options or LaunchOptions()
    if problems := structure_problems(plan):
        raise InputError(problems)
    book = PortBook()
    front_host = _lane_host(plan, plan.lanes[0])
    served = {lane.deployment for lane in plan.lanes}
    fronted = tuple(deployment for deployment in plan.deployments if deployment.name in served)
    front_ports = tuple(book.take(front_host, "front") for _ in fronted)
    processes = tuple(_processes(plan, options, book))
    routers = tuple(_routers(plan, processes, book))
    fronts = tuple(
        Front(
            deployment=deployment,
            name=slug(deployment.name),
            host=front_host,
            port=port,
            routers=tuple(router for router in routers if router.deployment.name == deployment.name),
        )
        for deployment, port in zip(fronted, front_ports, strict=True)
    )
    return Launch(plan, plan_digest(plan), options, processes, routers, fronts)


def slug(text: str) -> str:
    """A name for folders and configuration files.

    >>> slug("Chat/H100 sxm:tp2")
    'chat-h100-sxm-tp2'
    """
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-") or "unnamed"


def unique_slugs(texts: tuple[str, ...]) -> dict[str, str]:
    """Text → slug, with a number where two texts would share one.

    >>> unique_slugs(("a/b", "a-b"))
    {'a/b': 'a-b', 'a-b': 'a-b-2'}
    """
    names: dict[str, str] = {}
    for text in texts:
        name, number = slug(text), 2
        while name in names.values():
            name, number = f"{slug(text)}-{number}", number + 1
        names[text] = name
    return names


def connector_of(lane: Lane, platforms: tuple[str, ...], wanted: str) -> str:
    """KV connector of a lane: the user's, else files on CPUs, else the plan's, else NIXL."""
    if lane.kind != "disaggregated":
        return ""
    if wanted:
        return wanted
    if all(platform == "cpu" for platform in platforms):
        return "example"
    return lane.transfer.connector if lane.transfer else "nixl"


def _processes(plan: Plan, options: LaunchOptions, book: PortBook):
    pools = {pool.name: pool for pool in plan.pools}
    lanes = {lane.id: lane for lane in plan.lanes}
    deployments = {deployment.name: deployment for deployment in plan.deployments}
    names = unique_slugs(tuple(instance.id for instance in plan.instances))
    for instance in plan.instances:
        lane = lanes[instance.lane]
        connector = connector_of(lane, _lane_platforms(plan, lane), options.connector)
        for number, placement in enumerate(instance.placements):
            yield from _copy_processes(
                f"{names[instance.id]}-{number}",
                instance,
                placement,
                pools[instance.pool],
                deployments[instance.deployment],
                lane,
                connector,
                book,
            )


def _copy_processes(
    copy: str,
    instance: Instance,
    placement: Placement,
    pool: PoolUse,
    deployment: DeploymentPlan,
    lane: Lane,
    connector: str,
    book: PortBook,
):
    nodes = len(placement.hosts)
    head = pool.hosts[placement.hosts[0]]
    form = _form(instance, deployment, nodes)
    dp_local = instance.layout.dp // nodes if form.startswith("data") else instance.layout.dp
    master = book.take(head, "master") if form == "tensor_nodes" else 0
    dp_rpc = book.take(head, "dp_rpc") if instance.layout.dp > 1 else 0
    for rank, (node, devices) in enumerate(zip(placement.hosts, placement.devices, strict=True)):
        host = pool.hosts[node]
        serves = rank == 0 or form == "data_hybrid"
        yield Process(
            name=copy if nodes == 1 else f"{copy}-node{rank}",
            copy=copy,
            instance=instance,
            deployment=deployment,
            pool=pool,
            lane=lane,
            host=host,
            node=node,
            rank=rank,
            nodes=nodes,
            head_host=head,
            devices=tuple(sorted(devices)),
            form=form,
            dp_local=dp_local,
            ports=_ports(book, host, instance, connector, serves, master, dp_rpc),
            connector=connector,
        )


def _form(instance: Instance, deployment: DeploymentPlan, nodes: int) -> str:
    """How one copy spreads over nodes (vLLM's multi-node page, and its rules for hybrid load balancing)."""
    if nodes == 1:
        return "single"
    if instance.layout.dp == 1:
        return "tensor_nodes"
    hybrid = deployment.model.moe and instance.layout.dp // nodes > 1
    return "data_hybrid" if hybrid else "data_internal"


def _ports(
    book: PortBook, host: str, instance: Instance, connector: str, serves: bool, master: int, dp_rpc: int
) -> Ports:
    layout = instance.layout
    moriio = connector == "moriio"
    ranks = layout.dp * layout.tp
    bootstrap = connector == "mooncake" and instance.role == "prefill"
    return Ports(
        api=book.take(host, "api") if serves else 0,
        side_channel=book.take(host, "side_channel", layout.dp) if connector == "nixl" else 0,
        bootstrap=book.take(host, "bootstrap", layout.dp) if bootstrap else 0,
        handshake=book.take(host, "handshake", ranks) if moriio else 0,
        notify=book.take(host, "notify", ranks) if moriio else 0,
        master=master,
        dp_rpc=dp_rpc,
    )


def _routers(plan: Plan, processes: tuple[Process, ...], book: PortBook):
    deployments = {deployment.name: deployment for deployment in plan.deployments}
    names = unique_slugs(tuple(lane.id for lane in plan.lanes))
    for lane in plan.lanes:
        members = tuple(p for p in processes if p.lane.id == lane.id and p.serves)
        host = _lane_host(plan, lane)
        connector = members[0].connector
        yield LaneRouter(
            name=names[lane.id],
            lane=lane,
            deployment=deployments[lane.deployment],
            host=host,
            port=book.take(host, "router"),
            metrics_port=book.take(host, "router_metrics"),
            discovery_port=book.take(host, "discovery") if connector == "moriio" else 0,
            members=members,
            connector=connector,
            platforms=_lane_platforms(plan, lane),
        )


def _lane_instances(plan: Plan, lane: Lane) -> tuple[Instance, ...]:
    return tuple(instance for instance in plan.instances if instance.lane == lane.id)


def _lane_platforms(plan: Plan, lane: Lane) -> tuple[str, ...]:
    pools = {pool.name: pool.platform for pool in plan.pools}
    return tuple(dict.fromkeys(pools[instance.pool] for instance in _lane_instances(plan, lane)))


def _lane_host(plan: Plan, lane: Lane) -> str:
    """A router runs on the first host of its lane's first instance."""
    first = _lane_instances(plan, lane)[0]
    pool = next(pool for pool in plan.pools if pool.name == first.pool)
    return pool.hosts[first.placements[0].hosts[0]]
