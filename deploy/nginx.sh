#!/bin/sh
# nginx resolves names at run time only through a resolver it is told by address; the engine puts its own in resolv.conf.
set -eu
servers=$(awk '$1 == "nameserver" { print ($2 ~ /:/) ? "[" $2 "]" : $2 }' /etc/resolv.conf | tr '\n' ' ')
echo "resolver $servers valid=1s ipv6=off;" > /tmp/resolver.conf
exec nginx -c /etc/srgnn/nginx.conf -g 'daemon off;'
