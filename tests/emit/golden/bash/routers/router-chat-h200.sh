#!/usr/bin/env bash
# plan d30265402e20e21f, moai-planner 0.1.0, for vLLM 0.32-0.33
# router of lane chat/h200 (disaggregated) of chat
# VLLM_ROUTER: the router's command. Arguments given here are passed on.
set -euo pipefail
read -ra router <<<"${VLLM_ROUTER:-vllm-router}"
arguments=(
  --host 0.0.0.0
  --port 30000
  --vllm-pd-disaggregation
  --prefill http://10.0.0.11:8200
  --prefill http://10.0.0.11:8201
  --decode http://10.0.0.11:8202
  --prefill-policy cache_aware
  --decode-policy round_robin
  --kv-connector nixl
  --prometheus-host 0.0.0.0
  --prometheus-port 29000
  --worker-startup-check-interval 1
  --worker-startup-timeout-secs "${MOAI_START_TIMEOUT_S:-3600}"
)
exec "${router[@]}" "${arguments[@]}" "$@"
