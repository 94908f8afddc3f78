"""Candidates → a `Problem`: one stream a deployment, one column a candidate, lanes between those that match.

Routers split traffic by static weights and cannot see how long an answer will be, so all cells of a
deployment take the same shares: a deployment is one stream, and a column's use is the mean over its cells.
"""

from __future__ import annotations

from moai_planner.domain.cluster import CapacityRequest
from moai_planner.solver.candidates import Option
from moai_planner.solver.lane_rules import latent_kv, layouts_match
from moai_planner.solver.notation import Column, Lane, Pool, Problem, Stream


def to_problem(request: CapacityRequest, options: tuple[Option, ...]) -> Problem:
    """The programme's view of a request."""
    seen = {option.candidate.deployment: option.traffic for option in options}
    windows = max((t.windows for t in seen.values()), default=1)
    streams = tuple(
        Stream(
            name,
            name,
            _stretched(seen[name].rates_by_window(), windows) if name in seen else (1.0,) * windows,
        )
        for name in (d.name for d in request.deployments)
    )
    return Problem(
        streams=streams,
        columns=tuple(_column(option, windows) for option in options),
        pools=tuple(Pool(p.name, p.nodes, p.devices_per_node) for p in request.pools),
        lanes=_lanes(request, options),
        objective=request.objective,
        simplicity_usd_per_h=request.options.simplicity_usd_per_h,
        windows=windows,
    )


def _column(option: Option, windows: int) -> Column:
    c = option.candidate
    use = {
        resource: _stretched(option.traffic.by_window(per_cell), windows)
        for resource, per_cell in c.use.items()
    }
    return Column(
        id=c.id,
        deployment=c.deployment,
        pool=c.pool,
        role=c.role,
        devices=c.layout.devices,
        price_usd_per_h=c.layout.devices * option.pool.price_usd_per_h,
        use={c.deployment: use},
        power_w=option.power_w,
    )


def _stretched(values: tuple[float, ...], windows: int) -> tuple[float, ...]:
    """Deployments with fewer windows keep their last one to the end."""
    return values + values[-1:] * (windows - len(values))


def _lanes(request: CapacityRequest, options: tuple[Option, ...]) -> tuple[Lane, ...]:
    latent = {d.name: latent_kv(d) for d in request.deployments}
    prefill = [o.candidate for o in options if o.candidate.role == "prefill"]
    decode = [o.candidate for o in options if o.candidate.role == "decode"]
    return tuple(
        Lane(p.id, d.id)
        for p in prefill
        for d in decode
        if p.deployment == d.deployment
        and p.kv_group == d.kv_group
        and layouts_match(p.layout, d.layout, latent[p.deployment])
    )
