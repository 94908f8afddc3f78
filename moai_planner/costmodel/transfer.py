"""Moving KV from a prefill to a decode instance.

Direct connectors read device memory over the network; staged ones copy through host memory on both
sides, which every pair of devices with different KV number formats or drivers needs.
"""

from __future__ import annotations

from moai_planner.costmodel.configuration import Configuration
from moai_planner.costmodel.kv import kv_bytes_per_token
from moai_planner.domain.step import KvTransfer

STAGED_CONNECTORS = ("example", "lmcache", "offloading")
"""Connectors that always pass through host memory or a shared folder."""


def kv_transfer(prefill: Configuration, decode: Configuration, connector: str = "nixl") -> KvTransfer:
    """How KV moves between two instances on different nodes.

    Each instance has its devices' share of its node's network. The slower side sets the rate; a staged
    path is also no faster than copying to the host and back.
    """
    staged = connector in STAGED_CONNECTORS or prefill.accelerator.platform != decode.accelerator.platform
    sender, receiver = prefill.parameters, decode.parameters
    if staged:
        reached = min(sender.staged_bandwidth_frac, receiver.staged_bandwidth_frac)
        slowdown = receiver.staged_slowdown_frac
    else:
        reached = min(sender.transfer_bandwidth_frac, receiver.transfer_bandwidth_frac)
        slowdown = receiver.transfer_slowdown_frac
    nic = min(_network_share(prefill), _network_share(decode))
    rate = reached * nic
    if staged:
        rate = min(rate, _host_rate(prefill), _host_rate(decode))
    return KvTransfer(
        connector=connector,
        staged=staged,
        latency_s=max(sender.transfer_s, receiver.transfer_s),
        bytes_per_s=rate,
        nic_bytes_per_s=_network_share(decode) * reached,
        bytes_per_token=wire_bytes_per_token(decode),
        decode_slowdown_frac=slowdown,
    )


def wire_bytes_per_token(decode: Configuration) -> float:
    """KV of one token as it crosses the network: what all tensor ranks of the receiver hold.

    A latent (MLA) is the same on every rank; each rank fetches its own copy.
    """
    tp = decode.layout.tp
    return tp * kv_bytes_per_token(decode.model, decode.precision, tp)


def _network_share(c: Configuration) -> float:
    """An instance's share of its nodes' network, one direction. [bytes/s]"""
    return c.network_bytes_per_s * c.layout.devices / max(1, c.devices_per_node)


def _host_rate(c: Configuration) -> float:
    """Copies between the devices of one instance and their hosts. [bytes/s]"""
    return c.accelerator.host_link_bytes_per_s * c.layout.tp
