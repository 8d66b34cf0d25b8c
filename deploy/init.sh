#!/bin/sh
# Writes .env from .env.example with fresh random secrets, and the hashes of the API keys among them to keys/service.
#   deploy/init.sh [FOLDER]    writes there instead of the clone
# Never overwrites anything: what is there is in use.
set -eu
cd "$(dirname "$0")/.."
to=${1:-.}
for file in "$to/.env" "$to/keys"; do
    [ ! -e "$file" ] || { echo "$file is there already; delete it for new secrets" >&2; exit 1; }
done

random() { od -An -N"$1" -tx1 /dev/urandom | tr -d ' \n'; }
digest() { if command -v sha256sum >/dev/null; then sha256sum; else shasum -a 256; fi | cut -c 1-64; }
hashed() { echo "$1 $2 $(printf %s "$3" | digest)"; }

client=srgnn_$(random 32) prometheus=srgnn_$(random 32) admin=srgnn_$(random 32)
umask 077
sed "s/^REDIS_PASSWORD=$/&$(random 24)/; s/^GRAFANA_PASSWORD=$/&$(random 24)/
    s/^CLIENT_KEY=$/&$client/; s/^PROMETHEUS_KEY=$/&$prometheus/; s/^ADMIN_KEY=$/&$admin/" .env.example > "$to/.env"
# A folder, because a file that is mounted alone stays the old one when an editor replaces it. The service, another user
# in its container, must read it; hashes of 32 random bytes tell nobody anything.
mkdir "$to/keys"
{
    echo "# NAME SCOPES SHA256 of the key. Take a line out, and its key is refused a second later."
    hashed client click,read "$client"
    hashed prometheus read "$prometheus"
    hashed admin admin "$admin"
} > "$to/keys/service"
chmod 755 "$to/keys"
chmod 644 "$to/keys/service"
echo "wrote $to/.env with random secrets and $to/keys/service; next: docker compose up" >&2
