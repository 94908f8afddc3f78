"""The same model through the front door: `vllm serve` on loopback, `vllm bench serve` against it.

    with serving(request) as server:
        result = bench(server, Load(rate_req_per_s=4.0, prompts=60, isl_tokens=256, osl_tokens=64))

Everything is bounded in time; the server runs in a process group of its own, which is ended as a whole.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from moai_planner.domain.units import NANO

_START_LIMIT_S = 300.0
_STOP_LIMIT_S = 20.0
_SERVED_NAME = "profiled"
_VLLM = (sys.executable, "-m", "vllm.entrypoints.cli.main")


class ServerFailed(RuntimeError):
    """The server did not come up, or a benchmark did not end well; the message has the log's last lines."""


@dataclass(frozen=True)
class ServeSettings:
    """What the server is started with: the settings of the micro-profile."""

    folder: Path
    "Model folder with config.json and tokenizer."
    platform: str
    max_model_len: int
    max_num_seqs: int
    max_num_batched_tokens: int
    graphs: bool
    quantization: str = ""
    kv_cache_gib: int = 1


@dataclass(frozen=True)
class Server:
    """A running server."""

    url: str
    settings: ServeSettings
    log: Path
    start_s: float
    process_group: int = 0


@dataclass(frozen=True)
class Load:
    """One benchmark run. `concurrency` 0 = open loop."""

    rate_req_per_s: float
    prompts: int
    isl_tokens: int
    osl_tokens: int
    concurrency: int = 0
    seed: int = 0


def write_model(folder: Path, config: Mapping[str, Any]) -> None:
    """A model folder to serve with dummy weights."""
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(dict(config)))
    write_tokenizer(folder, config["vocab_size"])


def write_tokenizer(folder: Path, vocabulary: int) -> None:
    """A tokenizer of one word a token, so that prompts of exact length survive text and back."""
    words = {"<s>": 0, "</s>": 1, "<pad>": 2, "<unk>": 3}
    words |= {f"w{index}": index for index in range(4, vocabulary)}
    special = [
        {"id": index, "content": word, "single_word": False, "lstrip": False, "rstrip": False,
         "normalized": False, "special": True}
        for word, index in list(words.items())[:4]
    ]  # fmt: skip
    tokenizer = {
        "version": "1.0", "truncation": None, "padding": None, "added_tokens": special, "normalizer": None,
        "pre_tokenizer": {"type": "WhitespaceSplit"}, "post_processor": None, "decoder": None,
        "model": {"type": "WordLevel", "vocab": words, "unk_token": "<unk>"},
    }  # fmt: skip
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast", "bos_token": "<s>", "eos_token": "</s>",
        "pad_token": "<pad>", "unk_token": "<unk>", "model_max_length": 1 << 20,
    }  # fmt: skip
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    (folder / "tokenizer_config.json").write_text(json.dumps(config))


@contextmanager
def serving(settings: ServeSettings, log: Path) -> Iterator[Server]:
    """Start `vllm serve` on a free loopback port; end its whole process group afterwards."""
    port = _free_port()
    command = [
        *_VLLM, "serve", str(settings.folder), "--host", "127.0.0.1", "--port", str(port),
        "--served-model-name", _SERVED_NAME, "--load-format", "dummy", "--dtype", "bfloat16",
        "--max-model-len", str(settings.max_model_len), "--max-num-seqs", str(settings.max_num_seqs),
        "--max-num-batched-tokens", str(settings.max_num_batched_tokens), "--no-enable-prefix-caching",
        "--seed", "0",
    ]  # fmt: skip
    command += [] if settings.graphs else ["--enforce-eager"]
    command += ["--quantization", settings.quantization] if settings.quantization else []
    began = time.monotonic()
    with open(log, "wb") as output:
        process = subprocess.Popen(
            command,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=environment(settings),
            start_new_session=True,
        )
        try:
            url = f"http://127.0.0.1:{port}"
            _wait_healthy(process, url, log)
            yield Server(url, settings, log, time.monotonic() - began, process.pid)
        finally:
            _end_group(process)


def bench(server: Server, load: Load, limit_s: float) -> dict[str, Any]:
    """Run `vllm bench serve` and return its result file, per-request lists included."""
    target = server.log.parent / f"bench-{load.rate_req_per_s:g}-{load.concurrency}-{load.seed}.json"
    command = [
        *_VLLM, "bench", "serve", "--backend", "openai", "--base-url", server.url, "--model", _SERVED_NAME,
        "--tokenizer", str(server.settings.folder), "--dataset-name", "random",
        "--random-input-len", str(load.isl_tokens), "--random-output-len", str(load.osl_tokens),
        "--random-range-ratio", "0", "--num-prompts", str(load.prompts), "--ignore-eos", "--disable-tqdm",
        "--request-rate", "inf" if load.rate_req_per_s == float("inf") else f"{load.rate_req_per_s:.6g}",
        "--percentile-metrics", "ttft,tpot,itl,e2el", "--metric-percentiles", "50,90,99",
        "--num-warmups", "2", "--seed", str(load.seed), "--save-result", "--save-detailed",
        "--result-dir", str(target.parent), "--result-filename", target.name,
    ]  # fmt: skip
    command += ["--max-concurrency", str(load.concurrency)] if load.concurrency else []
    log = target.with_suffix(".log")
    with open(log, "wb") as output:
        process = subprocess.Popen(
            command,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=environment(server.settings),
            start_new_session=True,
        )
        try:
            code = process.wait(limit_s)
        except subprocess.TimeoutExpired:
            raise ServerFailed(f"the benchmark did not end within {limit_s:.0f} s") from None
        finally:
            _end_group(process)
    if code != 0 or not target.exists():
        raise ServerFailed(f"vllm bench serve ended with {code}:\n{_tail(log)}")
    result = json.loads(target.read_text())
    if result.get("completed") != load.prompts:
        raise ServerFailed(f"{result.get('completed')} of {load.prompts} requests completed\n{_tail(log)}")
    return result


def thread_times(server: Server) -> dict[str, tuple[float, float]]:
    """Thread of the server → seconds it ran, seconds it was ready and waited for a core (Linux schedstat)."""
    found = {}
    for process in Path("/proc").iterdir():
        if not process.name.isdigit():
            continue
        with suppress(OSError, ValueError):
            if os.getpgid(int(process.name)) != server.process_group:
                continue
            for thread in (process / "task").iterdir():
                ran_ns, waited_ns, _ = (thread / "schedstat").read_text().split()
                found[thread.name] = (float(ran_ns) * NANO, float(waited_ns) * NANO)
    return found


def stretch(before: Mapping[str, tuple[float, float]], after: Mapping[str, tuple[float, float]]) -> float:
    """How much longer the busiest thread took than it ran, waiting for a core: 1 on a machine of its own.

    >>> stretch({"1": (0.0, 0.0)}, {"1": (10.0, 1.0), "2": (0.1, 5.0)})
    1.1
    """
    spent = [
        (ran - before.get(thread, (0.0, 0.0))[0], waited - before.get(thread, (0.0, 0.0))[1])
        for thread, (ran, waited) in after.items()
    ]
    ran, waited = max(spent, default=(0.0, 0.0))
    return 1.0 + waited / ran if ran > 0 else 1.0


def environment(settings: ServeSettings) -> Mapping[str, str]:
    """The environment of the micro-profile, for another process."""
    own = {
        **os.environ,
        "HF_HUB_OFFLINE": "1",
        "VLLM_NO_USAGE_STATS": "1",
        "VLLM_LOGGING_LEVEL": "WARNING",
        "NO_PROXY": "127.0.0.1,localhost",
    }
    own.pop("VLLM_ENABLE_V1_MULTIPROCESSING", None)  # served as users serve
    if settings.platform == "cpu":
        own |= {
            # scheduler and worker as two processes would spin on two cores and leave none to the clients
            "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
            "OMP_NUM_THREADS": "1",
            "VLLM_CPU_OMP_THREADS_BIND": "nobind",
            "VLLM_CPU_KVCACHE_SPACE": str(settings.kv_cache_gib),
        }
    return own


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _wait_healthy(process: subprocess.Popen, url: str, log: Path) -> None:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    deadline = time.monotonic() + _START_LIMIT_S
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise ServerFailed(f"vllm serve ended with {process.returncode}:\n{_tail(log)}")
        with suppress(urllib.error.URLError, OSError), opener.open(f"{url}/health", timeout=5):
            return
        time.sleep(0.5)
    raise ServerFailed(f"vllm serve was not up after {_START_LIMIT_S:.0f} s:\n{_tail(log)}")


def _end_group(process: subprocess.Popen) -> None:
    """Ask the group to end, then make it: engine processes outlive a killed parent."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGTERM)
    with suppress(subprocess.TimeoutExpired):
        process.wait(_STOP_LIMIT_S)
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    with suppress(subprocess.TimeoutExpired):
        process.wait(_STOP_LIMIT_S)


def _tail(log: Path, lines: int = 12) -> str:
    return "\n".join(log.read_text(errors="replace").splitlines()[-lines:])
