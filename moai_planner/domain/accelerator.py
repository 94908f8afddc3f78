"""What a device type can do, as its data sheet says."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from moai_planner.domain.provenance import Source


@dataclass(frozen=True)
class Link:
    """A network between devices, as one device sees it."""

    kind: str
    "`switch` (any pair at full rate), `mesh` (the rate is spread over the peers), `torus`, `pcie`, `none`."
    bytes_per_s: float
    "One direction, per device, all its ports together."
    devices: int
    "How many devices it joins."


@dataclass(frozen=True)
class Accelerator:
    """One device type. Peaks are dense rates (no structured sparsity)."""

    id: str
    name: str
    vendor: str
    architecture: str
    platform: str
    "`cuda` `rocm` `hpu` `tt` `xpu` `tpu` `lpu` `cpu`: decides the engine build and the KV formats."
    memory_bytes: float
    memory_bandwidth_bytes_per_s: float
    peak_flop_per_s: Mapping[str, float]
    "Number format (`bf16 fp8 fp4 int8 fp32`) → dense peak. A format that is absent is not native."
    scale_up: Link
    "The fast network inside a node or rack."
    scale_out_bytes_per_s: float
    "Per device, one direction, the network between nodes; 0 when unknown."
    host_link_bytes_per_s: float
    "Per device, one direction, to host memory."
    tdp_w: float
    all_in_w: float
    "Per device with its share of host, network and cooling."
    price_usd_per_h: float
    "Per device, used where a pool has no price; 0 when no source knows one."
    confidence: str
    "`high` `medium` `low`; low = announcement or not checked again."
    notes: str = ""
    sources: Mapping[str, Source] = field(default_factory=dict)
    "Field → where its number is from; every number above has one (or `assumed`)."

    def flop_per_s(self, number_format: str) -> float:
        """Dense peak of a matrix product in `number_format`; formats the device lacks run as bf16."""
        return self.peak_flop_per_s.get(number_format, self.peak_flop_per_s["bf16"])

    @property
    def kv_format_family(self) -> str:
        """Devices of one family read each other's KV bytes (fp8 on CDNA3 is another number format)."""
        return f"{self.platform}/{'fnuz' if self.architecture == 'CDNA3' else 'fn'}"
