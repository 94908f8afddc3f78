"""Instances of a plan → what the simulator knows of them."""

from __future__ import annotations


def instance_models(plan) -> dict:
    """Instance id → InstanceModel, from the catalog's accelerators and parameters and measured profiles."""
    from moai_planner.catalog.parameters import parameters_for
    from moai_planner.cli.measured_profiles import profile_for
    from moai_planner.costmodel.configuration import Configuration
    from moai_planner.costmodel.serving import step_times_many
    from moai_planner.simulate.instance import instance_of

    pools = {pool.name: pool for pool in plan.pools}
    deployments = {deployment.name: deployment for deployment in plan.deployments}
    configurations = []
    for instance in plan.instances:
        pool, deployment = pools[instance.pool], deployments[instance.deployment]
        device = _device(plan, instance.accelerator)
        engine_name, precision = instance.engine.name, deployment.precision
        configurations.append(
            Configuration(
                accelerator=device,
                model=deployment.model,
                precision=deployment.precision,
                layout=instance.layout,
                engine=instance.engine,
                devices_per_node=pool.devices_per_node,
                network_bytes_per_s=pool.network_bytes_per_s,
                parameters=parameters_for(device, engine_name, precision),
                measured=profile_for(device, engine_name, deployment.model, precision, instance.layout),
            )
        )
    return {
        instance.id: instance_of(configuration, times)
        for instance, configuration, times in zip(
            plan.instances, configurations, step_times_many(configurations), strict=True
        )
    }


def _device(plan, accelerator_id: str):
    """The accelerator by its id; one of the user's own by the file that the plan's inputs name."""
    from pathlib import PurePath

    from moai_planner.catalog.accelerators import FOLDER, accelerator, accelerator_ids
    from moai_planner.domain.errors import InputError

    names = (
        []
        if accelerator_id in accelerator_ids() and f"{FOLDER}/{accelerator_id}.yaml" in plan.inputs
        else [
            name
            for name in plan.inputs
            if PurePath(name).suffix in (".yaml", ".yml") and PurePath(name).stem == accelerator_id
        ]
    )
    for name in names[:-1]:  # a capacity file or a trace's description may share the name
        try:
            return accelerator(name)
        except InputError:
            continue
    return accelerator(names[-1] if names else accelerator_id)
