#!/usr/bin/env bash
# plan d30265402e20e21f, moai-planner 0.1.0, for vLLM 0.32-0.33
# Stops everything that start.sh started on 10.0.0.11: front, routers, engines.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(cd "$here/../.." && pwd)
state=${MOAI_STATE:-$root/state}/10-0-0-11
if [[ ! -d $state ]]; then
  echo "nothing was started here"
  exit 0
fi
# shellcheck source=/dev/null
source "$root/lib.sh"
stop_groups front
stop_groups router-chat-h200
stop_groups chat-h200-prefill-0 chat-h200-prefill-1 chat-h200-decode-0
# What an earlier plan started under other names.
for file in "$state"/*.pid; do
  if [[ -e $file ]]; then
    name=${file##*/}
    stop_groups "${name%.pid}"
  fi
done
