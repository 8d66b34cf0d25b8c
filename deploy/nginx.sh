#!/bin/sh
# Runs nginx and tells it, without losing a request, when recommenders come or go. Names are looked up here and not by
# nginx: there a request waits for the answer, and an engine's name server may be away while containers change.
set -eu
cd /tmp

write_upstream() {
    {
        echo "upstream recommenders {"
        for address in ${1:-127.0.0.1}; do echo "    server $address:8000 max_fails=1 fail_timeout=1s;"; done
        # Less than the 5 s after which the service closes an idle connection, so that it is nginx who closes first.
        echo "    keepalive 32; keepalive_timeout 4s;"
        echo "}"
    } > upstream.conf
}

known=
write_upstream ""
nginx -c /etc/srgnn/nginx.conf -g 'daemon off;' &
nginx=$!
# QUIT lets requests under way finish. A shell waits for its child before it runs a trap, hence `wait` below.
trap 'kill -QUIT $nginx; wait $nginx; exit 0' TERM QUIT INT

while kill -0 $nginx 2>/dev/null; do
    found=$(getent ahostsv4 recommenders | awk '{ print $1 }' | sort -u | tr '\n' ' ') || found=
    # Nothing found says more about the name server than about the recommenders: what was known stays.
    if [ "$found" ] && [ "$found" != "$known" ]; then
        echo "recommenders: $found" >&2
        write_upstream "$found"
        kill -HUP $nginx
        known=$found
    fi
    sleep 1 &
    wait $! || true
done
exit 1
