"""Instances of a plan → what the simulator knows of them."""

from __future__ import annotations


def instance_models(plan) -> dict:
    """Instance id → InstanceModel, from the catalog's accelerators and parameters and measured profiles."""
    from moai_planner.catalog.accelerators import accelerator
    from moai_planner.catalog.parameters import parameters_for
    from moai_planner.cli.measured_profiles import profile_for
    from moai_planner.costmodel.configuration import Configuration
    from moai_planner.costmodel.serving import memory_budget, step_times_many
    from moai_planner.simulate.instance import InstanceModel

    pools = {pool.name: pool for pool in plan.pools}
    deployments = {deployment.name: deployment for deployment in plan.deployments}
    configurations = []
    for instance in plan.instances:
        pool, deployment = pools[instance.pool], deployments[instance.deployment]
        device = accelerator(instance.accelerator)
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
        instance.id: InstanceModel(
            step_times=times,
            engine=instance.engine,
            memory=memory_budget(configuration),
            dp=instance.layout.dp,
            lockstep=instance.layout.dp > 1 and configuration.model.moe,
        )
        for instance, configuration, times in zip(
            plan.instances, configurations, step_times_many(configurations), strict=True
        )
    }
