#!/usr/bin/env bash
# plan d30265402e20e21f, moai-planner 0.1.0, for vLLM 0.32-0.33
# reason-h200-0-node1: mixed of reason on 10.0.0.13, h200_sxm 0, 1, 2, 3, 4, 5, 6, 7, tp1-dp16-ep16, node 2 of 2
# MODEL_REASON: another weights location. LOAD_FORMAT: `dummy` starts without weights.
# VLLM: the engine's command. Arguments given here are passed on and win over config.yaml.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=/dev/null
source "$here/env.sh"
read -ra vllm <<<"${VLLM:-vllm}"
arguments=(serve)
variables=(MODEL_REASON)
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
