"""Stands in for `vllm serve --config FILE`: answers at once, checks its flags, says who it is.

Replies name the process (`system_fingerprint` = port:role). A producer answers with `kv_transfer_params`;
a consumer refuses a request without them, as a sign that the router kept the order.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import yaml

from moai_planner.emit.validate import argument_problems


def main() -> None:
    """Read the configuration as the engine would, then serve until told to stop."""
    parser = argparse.ArgumentParser()
    parser.add_argument("command", choices=["serve"])
    parser.add_argument("model", nargs="?")
    parser.add_argument("--config", required=True)
    parser.add_argument("--load-format")
    given = parser.parse_args()
    with open(given.config) as file:
        config = yaml.safe_load(file)
    if problems := list(argument_problems(config)):
        sys.exit("; ".join(problems))
    transfer = config.get("kv-transfer-config", {})
    Engine.role = transfer.get("kv_role", "mixed")
    if transfer.get("kv_connector") == "NixlConnector" and "VLLM_NIXL_SIDE_CHANNEL_PORT" not in os.environ:
        sys.exit("no side channel")
    Engine.name = f"{config['port']}:{Engine.role}"
    Engine.model = given.model or config["model"]
    ThreadingHTTPServer((config["host"], config["port"]), Engine).serve_forever()


class Engine(BaseHTTPRequestHandler):
    """The few paths that routers and clients use."""

    protocol_version = "HTTP/1.1"
    name = role = model = ""

    def do_GET(self) -> None:
        if self.path == "/v1/models":
            self._reply({"object": "list", "data": [{"id": self.model, "object": "model"}]})
        else:
            self._reply({"status": "ok"})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers.get("Content-Length", 0))) or b"{}")
        reply = {
            "id": self.headers.get("X-Request-Id", ""),
            "object": "text_completion",
            "model": body.get("model", ""),
            "system_fingerprint": self.name,
            "choices": [{"index": 0, "text": "ok", "finish_reason": "length"}],
            "usage": {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2},
        }
        if self.role == "kv_producer":
            reply["kv_transfer_params"] = {"do_remote_prefill": True, "remote_engine_id": self.name}
        if self.role == "kv_consumer":
            params = body.get("kv_transfer_params") or {}
            reply["prefilled_by"] = params.get("remote_engine_id")
        self._reply(reply)

    def _reply(self, value: dict) -> None:
        content = json.dumps(value).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *words: object) -> None:
        """Keep the log for errors."""


if __name__ == "__main__":
    main()
