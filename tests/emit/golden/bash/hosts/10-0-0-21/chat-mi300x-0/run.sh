#!/usr/bin/env bash
# plan d30265402e20e21f, moai-planner 0.1.0, for vLLM 0.32-0.33
# chat-mi300x-0: mixed of chat on 10.0.0.21, mi300x 0, 1, tp2
# MODEL_CHAT: another weights location. LOAD_FORMAT: `dummy` starts without weights.
# VLLM: the engine's command. Arguments given here are passed on and win over config.yaml.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=/dev/null
source "$here/env.sh"
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
