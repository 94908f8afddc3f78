# shellcheck shell=bash
# plan d30265402e20e21f, moai-planner 0.1.0, for vLLM 0.32-0.33
# Groups of processes: start, wait until healthy, stop. Sourced by start.sh and stop.sh, which set `state`,
# the folder of <name>.pid (process group and start time of its leader) and <name>.log.

: "${state:?}"
start_timeout_s=${MOAI_START_TIMEOUT_S:-3600}
stop_timeout_s=${MOAI_STOP_TIMEOUT_S:-60}

# PID → clock ticks at which it started; nothing when it is gone.
started_at() {
  local line
  local -a fields
  { read -r line <"/proc/$1/stat"; } 2>/dev/null || return 0
  read -ra fields <<<"${line##*) }"
  printf '%s\n' "${fields[19]}"
}

# PGID: does a process of the group run? (A dead one that nobody has reaped does not.)
group_runs() {
  local file line
  local -a fields
  kill -0 -- "-$1" 2>/dev/null || return 1
  for file in /proc/[0-9]*/stat; do
    { read -r line <"$file"; } 2>/dev/null || continue
    read -ra fields <<<"${line##*) }"
    if [[ ${fields[2]} == "$1" && ${fields[0]} != [ZX] ]]; then
      return 0
    fi
  done
  return 1
}

# NAME: is the group that we started under this name alive? A recycled number is not ours.
alive() {
  local group started now
  [[ -s $state/$1.pid ]] || return 1
  read -r group started <"$state/$1.pid" || return 1
  now=$(started_at "$group")
  [[ -z $now || $now == "$started" ]] || return 1
  group_runs "$group"
}

# NAME COMMAND…: start in a process group of its own, unless it runs already.
start_group() {
  local name=$1 group attempt
  shift
  if alive "$name"; then
    echo "$name: runs already"
    return 0
  fi
  setsid "$@" >"$state/$name.log" 2>&1 </dev/null &
  group=$!
  printf '%s %s\n' "$group" "$(started_at "$group")" >"$state/$name.pid"
  for ((attempt = 0; attempt < 50; attempt++)); do
    if kill -0 -- "-$group" 2>/dev/null || ! kill -0 "$group" 2>/dev/null; then
      break
    fi
    sleep 0.1
  done
  echo "$name: started, log in $state/$name.log"
}

# NAME [URL]: wait until the URL answers; without one, only see that the group lives.
wait_healthy() {
  local name=$1 url=${2:-} deadline=$((SECONDS + start_timeout_s))
  while true; do
    if ! alive "$name"; then
      echo "$name: ended while starting; last lines of its log:" >&2
      tail -n 20 "$state/$name.log" >&2
      return 1
    fi
    if [[ -z $url ]] || curl -sf -o /dev/null --max-time 5 "$url"; then
      echo "$name: ready"
      return 0
    fi
    if ((SECONDS >= deadline)); then
      echo "$name: not healthy after $start_timeout_s s ($url)" >&2
      return 1
    fi
    sleep 1
  done
}

# NAME…: end the groups together, politely first. Nothing to stop is fine.
stop_groups() {
  local name group started deadline=$((SECONDS + stop_timeout_s))
  for name in "$@"; do
    if alive "$name"; then
      read -r group started <"$state/$name.pid"
      kill -TERM -- "-$group" 2>/dev/null || true
    fi
  done
  for name in "$@"; do
    while alive "$name" && ((SECONDS < deadline)); do
      sleep 0.2
    done
    if alive "$name"; then
      read -r group started <"$state/$name.pid"
      echo "$name: killed after $stop_timeout_s s"
      kill -KILL -- "-$group" 2>/dev/null || true
    elif [[ -e $state/$name.pid ]]; then
      echo "$name: stopped"
    fi
    rm -f "$state/$name.pid"
  done
}
