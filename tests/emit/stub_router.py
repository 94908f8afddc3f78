"""Stands in for `vllm-router`: the flags that we emit, round robin, prefill before decode."""

from __future__ import annotations

import argparse
import itertools
import json
import threading
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

POLICIES = ("random", "round_robin", "cache_aware", "power_of_two", "consistent_hash")


def main() -> None:
    """Unknown flags end the process, as in the real one."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--host", required=True)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--worker-urls", nargs="*", default=[])
    parser.add_argument("--vllm-pd-disaggregation", action="store_true")
    parser.add_argument("--prefill", nargs="+", action="append", default=[])
    parser.add_argument("--decode", action="append", default=[])
    for name in ("--policy", "--prefill-policy", "--decode-policy"):
        parser.add_argument(name, choices=POLICIES)
    parser.add_argument("--kv-connector", choices=("nixl", "mooncake", "moriio"))
    parser.add_argument("--prometheus-host")
    parser.add_argument("--prometheus-port", type=int)
    parser.add_argument("--worker-startup-check-interval", type=int)
    parser.add_argument("--worker-startup-timeout-secs", type=int)
    given = parser.parse_args()
    Router.prefill = itertools.cycle([line[0] for line in given.prefill])
    Router.decode = itertools.cycle(given.decode or given.worker_urls)
    Router.disaggregated = given.vllm_pd_disaggregation
    ThreadingHTTPServer((given.host, given.port), Router).serve_forever()


class Router(BaseHTTPRequestHandler):
    """One request to one worker of each role."""

    protocol_version = "HTTP/1.1"
    prefill = decode = iter(())
    disaggregated = False
    turn = threading.Lock()

    def do_GET(self) -> None:
        self._reply(b"{}")

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with self.turn:
            prefill = next(self.prefill) if self.disaggregated else ""
            decode = next(self.decode)
        if prefill:
            first = json.loads(self._ask(prefill, body | {"max_tokens": 1}))
            body = body | {"kv_transfer_params": first["kv_transfer_params"]}
        self._reply(self._ask(decode, body))

    def _ask(self, url: str, body: dict) -> bytes:
        request = urllib.request.Request(
            url + self.path, json.dumps(body).encode(), {"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=20) as response:
            return response.read()

    def _reply(self, content: bytes) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *words: object) -> None:
        """Keep the log for errors."""


if __name__ == "__main__":
    main()
