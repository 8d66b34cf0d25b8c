# Sourced by smoke.sh and roll.sh: docker with its compose plugin where its engine runs, else podman-compose.
if docker compose version >/dev/null 2>&1 && docker info >/dev/null 2>&1; then
    ENGINE=docker
    COMPOSE=(docker compose)
    UP=(up -d)
elif command -v podman >/dev/null && command -v podman-compose >/dev/null; then
    ENGINE=podman
    COMPOSE=(podman-compose)
    export BUILDAH_FORMAT=docker # images in OCI format would lose their health check
    # podman restarts no container while one it was started after is not running, as the job that made the model is not.
    UP=(up -d --no-deps)
else
    echo "no container engine: expected 'docker compose' with a running engine, or podman and podman-compose" >&2
    exit 2
fi

# project_name OPTIONS...: the project that these options of compose mean
project_name() {
    local name=${COMPOSE_PROJECT_NAME:-srgnn}
    while [ $# -gt 0 ]; do
        case $1 in
        -p | --project-name) name=$2 && shift ;;
        esac
        shift
    done
    echo "$name"
}

# containers PROJECT SERVICE: ids of its running containers
containers() {
    "$ENGINE" ps -q --filter "label=com.docker.compose.project=$1" --filter "label=com.docker.compose.service=$2"
}
