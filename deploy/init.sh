#!/bin/sh
# Writes .env from .env.example with fresh random secrets. Never overwrites one: its password is in use.
set -eu
cd "$(dirname "$0")/.."
[ ! -e .env ] || { echo ".env is there already; delete it for new secrets" >&2; exit 1; }
secret() { od -An -N24 -tx1 /dev/urandom | tr -d ' \n'; }
umask 077
sed "s/^REDIS_PASSWORD=$/&$(secret)/; s/^GRAFANA_PASSWORD=$/&$(secret)/" .env.example > .env
echo "wrote .env with random secrets; next: docker compose up" >&2
