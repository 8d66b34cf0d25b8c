#!/bin/bash
# answers PORT PATH [TEXT]: succeeds if this container answers 200 there, and TEXT is in the answer. For health checks in
# images without curl; a Python process every ten seconds would cost more than the service does at rest.
exec 3<>"/dev/tcp/127.0.0.1/$1" || exit 1
printf 'GET %s HTTP/1.0\r\nHost: localhost\r\n\r\n' "$2" >&3
read -r _ status _ <&3
[ "$status" = 200 ] || { echo "$2 answers $status"; exit 1; }
[ -z "${3:-}" ] || grep -F -- "$3" <&3 >/dev/null || { echo "$2 answers without $3"; exit 1; }
