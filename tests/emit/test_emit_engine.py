"""What we emit, read and started by a real vLLM on this machine's CPU."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import urllib.request
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
from emit_plans import golden_plan, loopback_plan, on, with_instance

from moai_planner.emit.emit import emit
from moai_planner.emit.launch import LaunchOptions
from moai_planner.emit.ports import BASES

pytestmark = pytest.mark.engine

BIN = Path(sys.executable).parent
START_S, STOP_S, REQUEST_S, PARSE_S = 480, 60, 120, 240
REQUESTS = 20

PARSE = """
import glob, json, sys
from vllm.engine.arg_utils import AsyncEngineArgs
from vllm.entrypoints.cli.serve import cmd_init
from vllm.utils.argparse_utils import FlexibleArgumentParser
command = cmd_init()[0]
parser = FlexibleArgumentParser()
command.subparser_init(parser.add_subparsers())
seen = {}
for path in sorted(glob.glob(sys.argv[1] + "/hosts/*/*/config.yaml")):
    given = parser.parse_args(["serve", "--config", path])
    command.validate(given)
    made = AsyncEngineArgs.from_cli_args(given)
    seen[path.split("/")[-2]] = [made.tensor_parallel_size, made.data_parallel_size, made.max_num_seqs]
print(json.dumps(seen))
"""


def test_the_engine_s_own_parser_accepts_every_configuration(tmp_path):
    """Law: vLLM reads from each file what the plan says."""
    pytest.importorskip("vllm", reason="needs the engine environment")
    plan = golden_plan()
    report = emit(plan, "bash", tmp_path)
    command = [sys.executable, "-c", PARSE, str(tmp_path)]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=PARSE_S, check=False)
    assert ran.returncode == 0, ran.stderr[-2000:]
    read = json.loads(ran.stdout.splitlines()[-1])
    planned = {
        p.name: [p.instance.layout.tp, p.instance.layout.dp, p.instance.engine.max_num_seqs]
        for p in report.launch.processes
    }
    assert read == planned


def test_a_plan_serves_on_this_machine(tmp_path, monkeypatch):
    """A prefill–decode lane and a mixed lane of a tiny model: requests split by weight, and KV moves."""
    pytest.importorskip("vllm", reason="needs the engine environment")
    router = shutil.which("vllm-router") or shutil.which("vllm-router", path=str(BIN))
    if router is None or shutil.which("nginx") is None:
        pytest.skip("needs vllm-router (pip) and nginx (apt: nginx-light)")
    for use in ("front", "api", "router", "router_metrics"):
        monkeypatch.setitem(BASES, use, BASES[use] + 10_900)
    plan = with_instance(loopback_plan("cpu", 3, 1), "p", placements=(on(0, 0),), count=1)
    plan = with_instance(plan, "m", placements=(on(0, 3),), count=1)
    chat = replace(plan.deployments[0], model_reference="tiny")
    plan = replace(plan, deployments=(chat,))
    report = emit(plan, "bash", tmp_path / "out", LaunchOptions(shared_kv_path=str(tmp_path / "kv")))
    environment = os.environ | {
        "PATH": f"{BIN}:{os.environ['PATH']}",
        "MODEL": str(_tiny_model(tmp_path / "tiny")),
        "LOAD_FORMAT": "dummy",
        "VLLM_ROUTER": router,
        "MOAI_START_TIMEOUT_S": str(START_S),
        "MOAI_STOP_TIMEOUT_S": str(STOP_S),
    }
    host = tmp_path / "out" / "hosts" / "127-0-0-1"
    try:
        started = _run([host / "start.sh"], environment)
        assert started.returncode == 0, started.stdout + started.stderr
        front = report.launch.fronts[0]
        for number in range(REQUESTS):
            reply = _ask(f"http://127.0.0.1:{front.port}/v1/completions", number)
            assert reply["usage"]["completion_tokens"] == 4
        served = Counter()
        for process in report.launch.processes:
            served[process.instance.role] += _metric(process.url, "vllm:request_success_total")
        assert served == {"prefill": 15, "decode": 15, "mixed": 5}
        decode = next(p for p in report.launch.processes if p.instance.role == "decode")
        assert _metric(decode.url, "vllm:external_prefix_cache_hits_total") > 0
    finally:
        stopped = _run([host / "stop.sh"], environment)
    assert stopped.returncode == 0
    assert not (tmp_path / "kv" / report.plan_digest[:12] / "pd").exists()


def _tiny_model(folder: Path) -> Path:
    """Configuration and a tokenizer of whole words; the weights are made up by the engine."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    folder.mkdir()
    size = 2048
    config = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "vocab_size": size,
        "hidden_size": 256,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 64,
        "intermediate_size": 512,
        "max_position_embeddings": 4096,
        "torch_dtype": "bfloat16",
        "bos_token_id": 0,
        "eos_token_id": 1,
    }
    (folder / "config.json").write_text(json.dumps(config))
    words = {"<s>": 0, "</s>": 1, "<unk>": 2} | {f"w{number}": number for number in range(3, size)}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", unk_token="<unk>"
    ).save_pretrained(folder)
    return folder


def _run(command: list, environment: dict[str, str]) -> subprocess.CompletedProcess:
    return subprocess.run(
        command, env=environment, capture_output=True, text=True, timeout=3 * START_S, check=False
    )


def _ask(url: str, number: int) -> dict:
    prompt = " ".join(f"w{3 + (number * 331 + word) % 2000}" for word in range(300))
    body = {"model": "chat", "prompt": prompt, "max_tokens": 4, "ignore_eos": True, "temperature": 0}
    request = urllib.request.Request(url, json.dumps(body).encode(), {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=REQUEST_S) as response:
        return json.loads(response.read())


def _metric(url: str, name: str) -> float:
    """Sum of a counter over its labels."""
    with urllib.request.urlopen(url + "/metrics", timeout=REQUEST_S) as response:
        lines = response.read().decode().splitlines()
    return sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith(name + "{"))
