#!/bin/sh
# Puts a model into /artifacts, where the service looks for one. Runs in the train image:
#   make-model first   before the service starts: the user's ARTIFACT, else a model of the user's CLICKS, else the demo;
#                      what is already there is not made again, and the demo never replaces anything
#   make-model train   trains on CLICKS (else on the demo's simulated clicks) and makes that the newest model
#   make-model exported
#                      the same on what `srgnn export-clicks` has put into /clicks
#   make-model resume  goes on with a `train` that was stopped, which leaves a checkpoint
# Compose mounts what ARTIFACT and CLICKS name under /input; the variables bring the names the files had outside.
set -eu
cp -r /opt/loops "$NUMBA_CACHE_DIR"  # numba reads what is compiled only where it could also write
NUMBA_CPU_NAME=$(processor)
DEVICE=${DEVICE:-auto}

say() { echo "make-model: $*" >&2; }
fail() { say "$*"; exit 2; }

install_artifact() {
    from=/input/artifact
    name=$(basename "$ARTIFACT")
    [ -r "$from" ] || fail "ARTIFACT=$ARTIFACT cannot be read by user $(id -u): chmod -R a+rX it"
    if [ -f "$from/LATEST" ]; then name=$(cat "$from/LATEST"); from=$from/$name; fi
    [ -f "$from/manifest.json" ] \
        || fail "ARTIFACT=$ARTIFACT holds neither manifest.json nor LATEST: give what 'srgnn train' wrote"
    if [ ! -d "/artifacts/$name" ]; then
        rm -rf "/artifacts/.incoming"
        mkdir "/artifacts/.incoming"
        cp -r "$from" "/artifacts/.incoming/$name"
        srgnn inspect "/artifacts/.incoming/$name" \
            || fail "ARTIFACT=$ARTIFACT is not usable, see above; nothing was changed"
        sync -f /artifacts  # a power cut must not leave a name without its files
        mv "/artifacts/.incoming/$name" "/artifacts/$name"
        rmdir "/artifacts/.incoming"
    fi
    echo "$name" > /artifacts/.latest
    sync -f /artifacts
    mv /artifacts/.latest /artifacts/LATEST
    say "serving $name"
}

# As process 1 this shell would keep a stop to itself, and the training would be killed without its checkpoint.
run() {
    "$@" &
    child=$!
    trap 'kill -TERM $child' TERM INT
    status=0
    wait $child || status=$?
    if kill -0 $child 2>/dev/null; then wait $child || status=$?; fi # the signal only ended the first wait
    trap - TERM INT
    return $status
}

recipe() { echo "${RECIPE:-$([ -n "${CLICKS:-}" ] && echo default || echo demo)}"; }

prepare() {
    set --
    if [ -n "${CLICKS:-}" ]; then
        [ -r /input/clicks ] || fail "CLICKS=$CLICKS cannot be read by user $(id -u): chmod a+r it"
        # The reader goes by the name: .csv, .csv.gz, .parquet
        ln -sf /input/clicks "/tmp/$(basename "$CLICKS")"
        set -- --input "/tmp/$(basename "$CLICKS")"
    fi
    # SET is unquoted on purpose, here and below: it holds several words.
    # shellcheck disable=SC2086
    TMPDIR=/corpus run srgnn prepare --config "$(recipe)" "$@" --output /corpus/now ${SET:-}
}

train() {
    # shellcheck disable=SC2086
    run srgnn train --config "$(recipe)" --corpus /corpus/now --output /artifacts --device "$DEVICE" "$@" ${SET:-}
}

refuse_unfinished() {
    [ ! -e /artifacts/checkpoint.safetensors ] || fail "a training was stopped before its end: go on with" \
        "'docker compose --profile train run --rm train make-model resume', or drop it with" \
        "'docker compose --profile train run --rm train rm /artifacts/checkpoint.safetensors'"
}

case "${1:-}" in
first)
    wanted=demo
    [ -z "${CLICKS:-}" ] || wanted="$(sha256sum < /input/clicks) ${SET:-}"
    if [ -n "${ARTIFACT:-}" ]; then
        install_artifact
    elif [ -f /artifacts/LATEST ] && { [ "$wanted" = demo ] || [ "$wanted" = "$(cat /artifacts/.made-of 2>&1)" ]; }
    then
        say "there is a model already: $(cat /artifacts/LATEST)"
    else
        rm -f /artifacts/checkpoint.safetensors # of an earlier start that was stopped; this one begins again
        prepare
        train
        echo "$wanted" > /artifacts/.made-of
    fi
    ;;
train)
    refuse_unfinished
    prepare
    train
    ;;
exported)
    refuse_unfinished
    RECIPE=${RECIPE:-default}
    # shellcheck disable=SC2086
    TMPDIR=/corpus run srgnn prepare --config "$RECIPE" --input /clicks --output /corpus/now ${SET:-}
    train
    ;;
resume) train --resume ;;
*) fail "what to do is '${1:-}': expected first, train, exported or resume" ;;
esac
