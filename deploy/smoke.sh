#!/bin/bash
# The whole of docker-compose.yml, for real: builds, brings up, breaks, replaces, swaps, tears down. A line that begins
# with "ok" was seen; the first thing that is not as promised ends it with "MISSED" and a non-zero exit code.
#
#   deploy/smoke.sh                            needs docker (or podman and podman-compose), curl, python3
#   SMOKE_WITHOUT="grafana" deploy/smoke.sh    leaves out what an image on this machine cannot show, and says so
#
# It works under a project name and on ports of its own, with secrets of its own, and removes what it made.
set -euo pipefail
cd "$(dirname "$0")/.."
source deploy/engine.sh

PROJECT=srgnn-smoke
WORK=$(mktemp -d)
chmod 755 "$WORK" # the jobs' user reads from it
export PORT=${SMOKE_PORT:-18000} GATEWAY_PORT=${SMOKE_GATEWAY_PORT:-18080} BIND=127.0.0.1 REPLICAS=2
export PROMETHEUS_PORT=${SMOKE_PROMETHEUS_PORT:-19090} GRAFANA_PORT=${SMOKE_GRAFANA_PORT:-13000}
export ARTIFACT='' CLICKS='' RECIPE=''
# The demo's simulator and recipe, smaller, so that a training takes seconds.
SMALL="--set synthetic.sessions=6000 --set training.epochs=2"
export SET=$SMALL
SERVICE=http://127.0.0.1:$PORT GATEWAY=http://127.0.0.1:$GATEWAY_PORT PROMETHEUS=http://127.0.0.1:$PROMETHEUS_PORT

deploy/init.sh "$WORK"
export KEYS_FOLDER=$WORK/keys
secret() { sed -n "s/^$1=//p" "$WORK/.env"; }
REDIS_SECRET=$(secret REDIS_PASSWORD)
(
    umask 077 # through files, because an argument would show the key in ps
    secret CLIENT_KEY > "$WORK/key"
    echo "Authorization: Bearer $(secret CLIENT_KEY)" > "$WORK/header"
    echo "Authorization: Bearer $(secret PROMETHEUS_KEY)" > "$WORK/prometheus-header"
)

compose() { "${COMPOSE[@]}" -p "$PROJECT" --env-file "$WORK/.env" "$@" >> "$WORK/compose.log" 2>&1; }
of() { containers "$PROJECT" "$1"; }
ok() { echo "ok    $*"; }
missed() { echo "MISSED $*" >&2; exit 1; }
left_out() { [[ " ${SMOKE_WITHOUT:-} " == *" $1 "* ]]; }
# ask ARGUMENTS of curl: with the shop's key
ask() { curl -sS -H "@$WORK/header" "$@"; }
# status ARGUMENTS of curl: what it answers
status() { curl -sS -o /dev/null -w '%{http_code}' "$@"; }
# json EXPRESSION: of the JSON on stdin, which is called it
json() { python3 -c "import json, sys; it = json.load(sys.stdin); print($1)"; }
# click URL SESSION ITEM
click() {
    ask --fail-with-body "$1/sessions/$2/click" -H 'content-type: application/json' \
        -d "{\"item_id\": \"$3\", \"event_id\": \"$RANDOM$RANDOM\"}"
}
# inside ID COMMAND...; redis-cli takes its password from the environment, never from an argument
inside() { "$ENGINE" exec "$@"; }
redis() { inside "$(of redis)" sh -c 'REDISCLI_AUTH="$REDIS_PASSWORD" redis-cli "$@"' redis-cli "$@"; }
model_at() { ask --fail-with-body "$1/model" | json 'it["model"]'; }
latest() { inside "$(of srgnn)" cat /artifacts/LATEST; }

has_store() { curl -sf "$1/readyz" | grep '"store":"ok"'; }
replicas_ready() {
    local id
    [ "$(of replica | wc -l)" = "$1" ] || return 1
    for id in $(of replica); do inside "$id" answers 8000 /readyz '"store":"ok"' || return 1; done
}

# within SECONDS WHAT COMMAND...: until the command succeeds
within() {
    local seconds=$1 what=$2 start=$SECONDS
    shift 2
    until "$@" >/dev/null 2>&1; do
        [ $((SECONDS - start)) -lt "$seconds" ] || missed "$what: not within $seconds s"
        sleep 0.5
    done
}

load_start() {
    python3 deploy/load.py --url "$GATEWAY" --key-file "$WORK/key" --items "$WORK/items" \
        --rate "${SMOKE_RATE:-40}" --seconds 600 > "$WORK/load" 2> "$WORK/load-errors" &
    LOAD=$!
    sleep 3
}
load_end() { # what happened meanwhile
    sleep 3
    kill "$LOAD"
    wait "$LOAD" || {
        cat "$WORK/load-errors" "$WORK/load" >&2
        missed "$1: requests failed, or clicks were lost or doubled"
    }
    LOAD=
    ok "$1: $(cat "$WORK/load")"
}

LOAD=
finish() {
    local status=$?
    [ -z "$LOAD" ] || kill "$LOAD" 2>/dev/null || true
    if [ $status -ne 0 ]; then
        tail -n 30 "$WORK/compose.log" >&2
        for id in $("$ENGINE" ps -aq --filter "label=com.docker.compose.project=$PROJECT"); do
            "$ENGINE" ps -a --filter "id=$id" --format '--- {{.Names}} {{.Status}}' >&2
            "$ENGINE" logs --tail 8 "$id" >&2 || true
        done
    fi
    down || true
    rm -rf "$WORK"
    exit $status
}
down() { compose --profile scale --profile monitoring --profile train down -v; }
trap finish EXIT
trap 'exit 130' INT TERM

echo "engine: $ENGINE $("$ENGINE" version --format '{{.Client.Version}}')"

for tool in curl python3; do command -v $tool >/dev/null || { echo "smoke.sh needs $tool" >&2; exit 2; }; done

# --- build ------------------------------------------------------------------------------------------------------------
down || true
start=$SECONDS
# One after the other: podman-compose would build the stages that both need twice, and the images would share nothing.
compose build srgnn || missed "compose build srgnn"
compose build model || missed "compose build model"
ok "built in $((SECONDS - start)) s"
for image in srgnn:0.1.0 srgnn-train:0.1.0; do
    size=$("$ENGINE" image inspect "$image" --format '{{.Size}}' | json 'round(it / 1e6)')
    ok "$image has $size MB, its base image included"
done
label='{{index .Config.Labels "org.opencontainers.image.version"}}'
[ "$("$ENGINE" image inspect srgnn:0.1.0 --format "$label")" = 0.1.0 ] || missed "OCI label version"
"$ENGINE" run --rm --network none srgnn:0.1.0 sh -c '! command -v gcc && ! command -v pip' >/dev/null || {
    left_out slim-base || missed "the image holds a compiler or pip"
    echo "LEFT OUT: no compiler and no pip in the image: this machine's base image brings its own"
}
# --- up ---------------------------------------------------------------------------------------------------------------
start=$SECONDS
compose "${UP[@]}" || missed "compose up"
within 600 "ready" has_store "$SERVICE"
ok "up and ready $((SECONDS - start)) s after 'up', the demo model trained on the way: $(model_at "$SERVICE")"
inside "$(of srgnn)" sh -c '[ "$(find /opt/loops -type f | wc -l)" = "$(find /tmp/loops -type f | wc -l)" ]' \
    || missed "a container compiled loops at its start that the image has not"
inside "$(of srgnn)" sh -c 'cat "/artifacts/$(cat /artifacts/LATEST)/vocabulary.txt"' | sed -n 1,400p > "$WORK/items"
FIRST_ITEM=$(head -n 1 "$WORK/items")

for n in 1 2 3; do answer=$(click "$SERVICE" visitor "$(sed -n "${n}p" "$WORK/items")"); done
found=$(json '(it["clicks"], it["source"], it["degraded"], len(it["items"]))' <<< "$answer")
[ "$found" = "(3, 'model', None, 20)" ] || missed "a session of three clicks: $answer"
ok "a session of three clicks is answered by the model"

# --- closed as it stands ----------------------------------------------------------------------------------------------
for service in srgnn redis; do
    id=$(of $service)
    inside "$id" sh -c 'test "$(id -u)" != 0' || missed "$service runs as root"
    inside "$id" sh -c '! touch /usr/bin/x' 2>/dev/null || missed "$service can write to its image"
    inside "$id" grep -q "^CapBnd:[[:space:]]*0*$" /proc/1/status || missed "$service has capabilities"
    inside "$id" grep -q "^NoNewPrivs:[[:space:]]*1" /proc/1/status || missed "$service may gain privileges"
    limited=$("$ENGINE" inspect "$id" --format '{{and (gt .HostConfig.Memory 0) (gt .HostConfig.PidsLimit 0)}}')
    [ "$limited" = true ] || missed "$service has no limits"
done
inside "$(of srgnn)" sh -c '! touch /artifacts/x' 2>/dev/null || missed "the service can write to the artifacts"
ok "service and redis: no root, no capabilities, no new privileges, limits, a read-only image"
[ -z "$("$ENGINE" port "$(of redis)" 2>/dev/null)" ] || missed "redis has a port on this machine"
inside "$(of redis)" redis-cli get x 2>&1 | grep NOAUTH >/dev/null || missed "redis asks for no password"
[ "$(status "$SERVICE/model")" = 401 ] || missed "the service asks for no key"
[ "$(status -H 'Authorization: Bearer wrong' "$SERVICE/model")" = 401 ] || missed "the service takes any key"
[ "$(status -H "@$WORK/prometheus-header" "$SERVICE/model")" = 200 ] || missed "the key with scope read"
[ "$(status -H "@$WORK/prometheus-header" -X DELETE "$SERVICE/sessions/visitor")" = 403 ] \
    || missed "a key with scope read deletes sessions"
[ "$(status -H "@$WORK/header" -X POST "$SERVICE/admin/model")" = 403 ] || missed "the shop's key opens /admin/"
answers_with() { [ "$(status -H "@$WORK/header" "$SERVICE/model")" = "$1" ]; }
cp "$WORK/keys/service" "$WORK/keys-before"
grep -v '^client ' "$WORK/keys-before" > "$WORK/keys/service"
within 10 "a key that was taken away is refused" answers_with 401
cat "$WORK/keys-before" > "$WORK/keys/service"
within 10 "a key that was put back is taken" answers_with 200
ok "keys: asked for, by scope, taken away without a restart"
for service in srgnn redis; do
    "$ENGINE" top "$(of $service)" | grep "$REDIS_SECRET" >/dev/null && missed "the password is in ps of $service"
    "$ENGINE" logs "$(of $service)" 2>&1 | grep -e "$REDIS_SECRET" -f "$WORK/key" >/dev/null \
        && missed "the password or a key is in $service's log"
done
ok "redis: password asked for, not in ps or logs, no port on this machine"
inside "$(of srgnn)" answers 8000 /livez || missed "health check of the service"
redis ping | grep PONG >/dev/null || missed "health check of redis"
[ "$(redis config get maxmemory-policy | tail -n 1)" = volatile-ttl ] || missed "maxmemory-policy"
ok "both health checks succeed; redis evicts by volatile-ttl"

# --- redis restarts ---------------------------------------------------------------------------------------------------
before=$(ask "$SERVICE/sessions/visitor")
"$ENGINE" restart -t 10 "$(of redis)" >/dev/null 2>&1
start=$SECONDS
within 60 "ready after redis restarted" has_store "$SERVICE"
recovery=$((SECONDS - start))
[ "$(ask "$SERVICE/sessions/visitor")" = "$before" ] || missed "the session after redis restarted: was $before"
sleep 1.5
redis=$(of redis)
"$ENGINE" kill "$redis" >/dev/null 2>&1
answer=$(click "$SERVICE" other "$FIRST_ITEM")
found=$(json 'it["degraded"] in (None, "store_unavailable")' <<< "$answer")
[ "$found" = True ] || missed "a click while redis is away: $answer"
sleep 1
"$ENGINE" start "$redis" >/dev/null 2>&1 # podman has it back by itself, docker takes a kill for a stop
within 60 "ready after redis was killed" has_store "$SERVICE"
[ "$(ask "$SERVICE/sessions/visitor")" = "$before" ] || missed "the session after redis was killed: was $before"
ok "the session survives a restart of redis (ready $recovery s later), and its kill -9 a second after the last click"

# --- restart policy, signals ------------------------------------------------------------------------------------------
id=$(of srgnn)
inside "$id" sh -c 'kill -TERM 1'
served() { "$ENGINE" logs "$id" 2>/dev/null | grep '"served"' >/dev/null; }
within 12 "the service ends at SIGTERM" served
within 60 "the service is started again" has_store "$SERVICE"
ok "the service ends in order at SIGTERM, and is started again"

# --- replicas behind nginx --------------------------------------------------------------------------------------------
compose --profile scale "${UP[@]}" || missed "compose --profile scale up"
within 120 "nginx answers" has_store "$GATEWAY"
within 120 "two replicas" replicas_ready 2
inside "$(of nginx)" bash /usr/local/bin/answers 8080 /healthz || missed "health check of nginx"
for path in /metrics /admin/model; do
    [ "$(status -H "@$WORK/header" "$GATEWAY$path")" = 404 ] || missed "nginx passes $path on"
done
# asked ID PATH: one recommender's answer, past nginx
asked() {
    inside -i "$1" python -c 'import sys, urllib.request as u
headers = {"Authorization": "Bearer " + sys.stdin.read().strip()}
print(u.urlopen(u.Request(sys.argv[1], headers=headers)).read().decode())' "http://127.0.0.1:8000$2" < "$WORK/key"
}
everyone_knows() {
    for id in $(of srgnn) $(of replica); do [ "$(asked "$id" /sessions/visitor)" = "$before" ] || return 1; done
}
within 60 "every recommender knows the session" everyone_knows
[ "$(ask "$GATEWAY/sessions/visitor")" = "$before" ] || missed "the session behind nginx"
ok "nginx in front of three recommenders, any of them knows the session"

load_start
victim=$(of replica)
victim=${victim%%$'\n'*} # head -n 1 would break the pipe, which pipefail takes for a failure
"$ENGINE" kill -s KILL "$victim" >/dev/null 2>&1
"$ENGINE" rm -f "$victim" >/dev/null 2>&1
sleep 3
compose --profile scale up -d --no-deps --no-recreate replica
within 120 "the replacement" replicas_ready 2
load_end "a replica killed (SIGKILL) and replaced under load"

# --- a newly trained model --------------------------------------------------------------------------------------------
all_serve() {
    for id in $(of srgnn) $(of replica); do
        [ "$(asked "$id" /model | json 'it["model"]')" = "$1" ] || return 1
    done
}
old=$(model_at "$GATEWAY")
load_start
SET="$SMALL --set training.seed=2" compose --profile train run --rm train || missed "training a second model"
new=$(latest)
[ "$new" != "$old" ] || missed "a second model: LATEST is still $old"
within 60 "every recommender swaps to $new" all_serve "$new"
load_end "trained, and all three recommenders swapped to the new model, under load"
load_start
deploy/roll.sh -p "$PROJECT" --env-file "$WORK/.env" 2>> "$WORK/compose.log" || missed "deploy/roll.sh"
load_end "every recommender replaced by a new container under load"
all_serve "$new" || missed "a new container serves another model than $new"
within 60 "every recommender knows the session after all that" everyone_knows
ok "all three recommenders serve $new instead of $old, and still know the session"

# --- monitoring -------------------------------------------------------------------------------------------------------
if left_out grafana; then
    compose --profile monitoring "${UP[@]}" prometheus || missed "compose up prometheus"
    echo "LEFT OUT: grafana, on request"
else
    compose --profile monitoring "${UP[@]}" || missed "compose --profile monitoring up"
    within 120 "grafana" curl -sf "http://127.0.0.1:$GRAFANA_PORT/api/health"
    curl -sf -u "admin:$(secret GRAFANA_PASSWORD)" -o /dev/null \
        "http://127.0.0.1:$GRAFANA_PORT/api/dashboards/uid/srgnn" || missed "grafana's dashboard"
    ok "grafana has the dashboard"
fi
within 60 "prometheus" curl -sf "$PROMETHEUS/-/ready"
inside "$(of prometheus)" promtool query instant http://localhost:9090 "vector(1)" >/dev/null \
    || missed "health check of prometheus"
inside "$(of prometheus)" promtool check rules /etc/srgnn/alerts.yml >/dev/null || missed "deploy/alerts.yml"
[ "$(curl -sS "$PROMETHEUS/api/v1/rules?type=alert" | json 'len(it["data"]["groups"][0]["rules"])')" -gt 0 ] \
    || missed "prometheus evaluates the alerts"
query() { curl -sS --get "$PROMETHEUS/api/v1/query" --data-urlencode "query=$1"; }
three_up() { [ "$(query 'sum(up{job="srgnn"})' | json 'it["data"]["result"][0]["value"][1]')" = 3 ]; }
within 60 "prometheus sees three recommenders" three_up
python3 deploy/load.py --url "$GATEWAY" --key-file "$WORK/key" --items "$WORK/items" \
    --rate 20 --seconds 20 > "$WORK/load" \
    || missed "load for the dashboard"
json '"\n".join(target["expr"] for panel in it["panels"] for target in panel["targets"])' \
    < deploy/grafana/dashboard.json > "$WORK/queries"
while read -r expression; do
    found=$(query "$expression" | json 'len(it["data"]["result"]) if it["status"] == "success" else it')
    case "$found:$expression" in
    0:*degraded* | 0:*5..* | 0:*store_failures*) ;; # nothing went wrong, so there is nothing to draw
    [1-9]*) ;;
    *) missed "dashboard: $expression finds $found" ;;
    esac
done < "$WORK/queries"
ok "prometheus scrapes all three; the dashboard's $(wc -l < "$WORK/queries") queries are valid and find what there is"

# --- the click log ----------------------------------------------------------------------------------------------------
compose --profile export run --rm --no-deps -T export srgnn export-clicks --output /clicks --once || missed "export-clicks"
exported=$(grep -a '^{"files"' "$WORK/compose.log" | tail -n 1)
[ "$(json 'it["clicks"] > 1000 and it["lost"] == 0' <<< "$exported")" = True ] || missed "export of the clicks: $exported"
old=$(latest)
SET="--set training.epochs=1" compose --profile train run --rm train make-model exported || missed "training on what was exported"
[ "$(latest)" != "$old" ] || missed "a model of what was exported: LATEST is still $old"
ok "the clicks of all that load exported, and a model trained on them: $exported"

# --- the user's own model ---------------------------------------------------------------------------------------------
python3 - > "$WORK/my clicks.csv" <<'PYTHON'
import random
random.seed(1)
print("sku,session_id,timestamp")
for session in range(600):
    item = random.randrange(50)
    for n in range(random.randrange(2, 7)):
        item = (item + random.choice((1, 1, 1, 7))) % 50
        print(f"sku-{item},{session},2026-01-{1 + session // 20:02d}T{session % 20:02d}:{n:02d}:00")
PYTHON
chmod a+r "$WORK/my clicks.csv"
first_model() { SET="--set columns.item=sku --set training.epochs=1" compose run --rm model; }
CLICKS="$WORK/my clicks.csv" first_model || missed "CLICKS="
mine=$(latest)
[[ $mine == default-* ]] || missed "CLICKS=: LATEST is $mine"
CLICKS="$WORK/my clicks.csv" first_model || missed "CLICKS= a second time"
[ "$(latest)" = "$mine" ] || missed "the same CLICKS= were trained twice"
mkdir "$WORK/artifact" "$WORK/artifact/$old"
inside "$(of srgnn)" tar -C /artifacts -c "$old" | tar -x -C "$WORK/artifact"
chmod -R a+rX "$WORK/artifact"
ARTIFACT="$WORK/artifact/$old" first_model || missed "ARTIFACT="
[ "$(latest)" = "$old" ] || missed "ARTIFACT=: LATEST is $(latest), not $old"
ok "CLICKS= trains $mine, once; ARTIFACT= installs $old"

# --- tear down --------------------------------------------------------------------------------------------------------
down
left=$("$ENGINE" ps -aq --filter "label=com.docker.compose.project=$PROJECT")
left+=$("$ENGINE" volume ls -q | grep "^${PROJECT}_" || true)
[ -z "$left" ] || missed "containers or volumes are left: $left"
ok "torn down, nothing is left"
echo "smoke passed in $SECONDS s${SMOKE_WITHOUT:+; left out: $SMOKE_WITHOUT}"
