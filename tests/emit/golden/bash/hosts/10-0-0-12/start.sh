#!/usr/bin/env bash
# plan d30265402e20e21f, moai-planner 0.1.0, for vLLM 0.32-0.33
# Starts what runs on 10.0.0.12 in the background and waits until it is healthy. Run it again at will.
# Usage: start.sh [all|engines|routers|front]
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(cd "$here/../.." && pwd)
state=${MOAI_STATE:-$root/state}/10-0-0-12
mkdir -p "$state"
state=$(cd "$state" && pwd)
# shellcheck source=/dev/null
source "$root/lib.sh"
command -v curl >/dev/null || { echo "curl is needed to see when an engine is ready" >&2; exit 2; }

engines() {
  echo "engines of 10.0.0.12"
  start_group reason-h200-0-node0 "$here"/reason-h200-0-node0/run.sh
  wait_healthy reason-h200-0-node0 http://127.0.0.1:8200/health
}

routers() {
  echo "routers of 10.0.0.12"
  start_group router-reason-h200 "$root"/routers/router-reason-h200.sh
  wait_healthy router-reason-h200 http://127.0.0.1:30000/health
}

front() {
  echo "front of 10.0.0.12"
}

case ${1:-all} in
  all)
    engines
    routers
    front
    ;;
  engines) engines ;;
  routers) routers ;;
  front) front ;;
  *)
    echo "usage: start.sh [all|engines|routers|front]" >&2
    exit 2
    ;;
esac
