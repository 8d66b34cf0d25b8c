#!/bin/bash
# Replaces every running recommender by a new container, one at a time, and only while all others are ready and reach
# Redis: how a rebuilt image or a changed setting goes live (a new model needs no new container). With --profile scale no
# request is lost.
#   deploy/roll.sh [options of compose, such as -p NAME or --env-file FILE]
set -euo pipefail
cd "$(dirname "$0")/.."
source deploy/engine.sh
READY_SECONDS=${READY_SECONDS:-120}
project=$(project_name "$@")

wait_ready() {
    local waiting id
    for ((i = 0; i < READY_SECONDS; i++)); do
        waiting=
        for id in $(containers "$project" srgnn) $(containers "$project" replica); do
            "$ENGINE" exec "$id" answers 8000 /readyz '"store":"ok"' >/dev/null 2>&1 || waiting=$id
        done
        [ -n "$waiting" ] || return 0
        sleep 1
    done
    echo "roll: not ready after $READY_SECONDS s, nothing more is replaced; see: $ENGINE logs $waiting" >&2
    exit 1
}

replaced=0
for service in replica srgnn; do
    for id in $(containers "$project" "$service"); do
        wait_ready
        echo "roll: replacing $service $id" >&2
        "$ENGINE" stop -t 15 "$id" >/dev/null
        "$ENGINE" rm "$id" >/dev/null
        # podman writes harmless errors where there is no systemd; a container that did not start is seen below.
        "${COMPOSE[@]}" "$@" --profile scale up -d --no-deps --no-recreate "$service" >/dev/null 2>&1 || true
        wait_ready
        sleep 3 # until nginx, which looks every second, knows the new one
        replaced=$((replaced + 1))
    done
done
[ "$replaced" -gt 0 ] || { echo "roll: no recommender of project '$project' is running" >&2; exit 1; }
