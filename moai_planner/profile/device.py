"""The device this machine runs on: what it is, with which driver, and who else is using it.

Nothing here needs torch or vLLM unless they are installed; a machine without a GPU is the device `cpu`.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import platform
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from moai_planner.domain.errors import InputError, Problem
from moai_planner.domain.units import MEBI

_PROFILE_OF_NAME = (
    ("GB300", "gb300_nvl72"),
    ("GB200", "gb200_nvl72"),
    ("B300", "b300_sxm"),
    ("B200", "b200_sxm"),
    ("H200", "h200_sxm"),
    ("H100 PCIe", "h100_pcie"),
    ("H100", "h100_sxm"),
    ("H800", "h800_sxm"),
    ("H20", "h20"),
    ("A100-SXM4-40GB", "a100_sxm_40gb"),
    ("A100-SXM4-80GB", "a100_sxm_80gb"),
    ("L40S", "l40s"),
    ("L4", "l4"),
    ("RTX 4090", "rtx_4090"),
    ("RTX PRO 6000", "rtx_pro_6000"),
    ("MI300X", "mi300x"),
    ("MI308X", "mi308x"),
    ("MI325X", "mi325x"),
    ("MI350X", "mi350x"),
    ("MI355X", "mi355x"),
    ("MI250X", "mi250x"),
    ("MI250", "mi250"),
    ("MI210", "mi210"),
)
"""Words in a device's own name → accelerator profile; the first that occurs decides."""

_INSTALL = {
    "cpu": "engine/install.sh .venv-engine, then run .venv-engine/bin/moai-plan profile",
    "cuda": "pip install 'vllm>=0.26'",
    "rocm": "pip install vllm --extra-index-url https://wheels.vllm.ai/rocm/",
}


@dataclass(frozen=True)
class Device:
    """One device as the driver names it."""

    platform: str
    "cpu | cuda | rocm"
    name: str
    accelerator: str
    "Id of its accelerator profile; empty when the name is unknown."
    driver: str
    count: int
    memory_bytes: float


def require_engine(platform_name: str, engine: str = "vllm") -> str:
    """Version of the installed engine; InputError with the one command that installs it for this device."""
    if engine == "torch":
        if importlib.util.find_spec("torch") is None:
            raise InputError(Problem("torch", "", "is not installed here", "pip install torch"))
        return importlib.metadata.version("torch").partition("+")[0]
    if importlib.util.find_spec("vllm") is None or importlib.util.find_spec("torch") is None:
        how = _INSTALL.get(platform_name, _INSTALL["cuda"])
        raise InputError(Problem("vllm", "", "is not installed here", f"install it for this device: {how}"))
    return importlib.metadata.version("vllm").partition("+")[0]


def detect() -> Device:
    """The device that vLLM would take: the first GPU where the driver shows one, else the processor."""
    query = "name,driver_version,memory.total"
    rows = _run("nvidia-smi", f"--query-gpu={query}", "--format=csv,noheader,nounits")
    if rows:
        name, driver, memory_mib = (cell.strip() for cell in rows[0].split(","))
        return Device("cuda", name, accelerator_id(name), driver, len(rows), float(memory_mib) * MEBI)
    if Path("/dev/kfd").exists():
        names = [
            line.split(":")[-1].strip() for line in _run("rocm-smi", "--showproductname") if "Card" in line
        ]
        name = names[0] if names else "AMD GPU"
        return Device("rocm", name, accelerator_id(name), "", max(1, len(names)), 0.0)
    pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return Device("cpu", _processor_name(), "cpu", "", 1, float(pages))


def accelerator_id(name: str) -> str:
    """
    >>> accelerator_id("NVIDIA H200"), accelerator_id("Something else")
    ('h200_sxm', '')
    """
    return next((found for word, found in _PROFILE_OF_NAME if word in name), "")


def other_users(platform_name: str) -> list[str]:
    """What else keeps the device busy now: GPU processes, or load on the processor."""
    if platform_name == "cuda":
        rows = _run(
            "nvidia-smi", "--query-compute-apps=pid,process_name,used_memory", "--format=csv,noheader"
        )
        return [row for row in rows if not row.startswith(f"{os.getpid()},")]
    if platform_name == "cpu":
        load = os.getloadavg()[0]
        return [f"load average {load:.1f} on {os.cpu_count()} cores"] if load > 0.5 else []
    return []


def versions(platform_name: str) -> dict[str, str]:
    """Software that decides step times, by name."""
    names = ("vllm", "torch", "triton", "transformers", "flashinfer-python", "intel-openmp")
    found = {"python": platform.python_version(), "kernel": platform.release()}
    for name in names:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def _processor_name() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return f"{line.partition(':')[2].strip()}, {os.cpu_count()} cores"
    return f"{platform.machine()}, {os.cpu_count()} cores"


def _run(*command: str) -> list[str]:
    """Lines a tool prints; none where it is missing or fails."""
    if shutil.which(command[0]) is None:
        return []
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    return [line for line in done.stdout.splitlines() if line.strip()] if done.returncode == 0 else []
