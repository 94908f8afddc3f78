#!/usr/bin/env bash
# plan d30265402e20e21f, moai-planner 0.1.0, for vLLM 0.32-0.33
# chat-h200-decode-0: decode of chat on 10.0.0.11, h200_sxm 4, 5, 6, 7, tp4
# MODEL_CHAT: another weights location. LOAD_FORMAT: `dummy` starts without weights.
# VLLM: the engine's command. Arguments given here are passed on and win over config.yaml.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=/dev/null
source "$here/env.sh"
if [[ ${PYTORCH_CUDA_ALLOC_CONF:-} == *expandable_segments:True* ]]; then
  echo "unset PYTORCH_CUDA_ALLOC_CONF: expandable segments cannot be registered for KV transfer" >&2
  exit 2
fi
read -ra vllm <<<"${VLLM:-vllm}"
arguments=(serve)
variables=(MODEL_CHAT)
for variable in "${variables[@]}"; do
  if [[ -n ${!variable:-} ]]; then
    arguments+=("${!variable}")
    break
  fi
done
arguments+=(--config "$here/config.yaml")
if [[ -n ${LOAD_FORMAT:-} ]]; then
  arguments+=(--load-format "$LOAD_FORMAT")
fi
exec "${vllm[@]}" "${arguments[@]}" "$@"
