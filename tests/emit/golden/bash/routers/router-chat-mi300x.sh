#!/usr/bin/env bash
# plan d30265402e20e21f, moai-planner 0.1.0, for vLLM 0.32-0.33
# router of lane chat/mi300x (mixed) of chat
# VLLM_ROUTER: the router's command. Arguments given here are passed on.
set -euo pipefail
read -ra router <<<"${VLLM_ROUTER:-vllm-router}"
arguments=(
  --host 0.0.0.0
  --port 30000
  --worker-urls http://10.0.0.21:8200 http://10.0.0.21:8201
  --policy cache_aware
  --prometheus-host 0.0.0.0
  --prometheus-port 29000
  --worker-startup-check-interval 1
  --worker-startup-timeout-secs "${MOAI_START_TIMEOUT_S:-3600}"
)
exec "${router[@]}" "${arguments[@]}" "$@"
