#!/bin/sh
# Waits for the first model, then becomes `srgnn serve`. Compose waits by itself; engines that start everything at once
# do not, and a service that dies and is started again every few seconds would slow down the very training it waits for.
trap 'exit 0' TERM INT
while [ ! -e "$SRGNN_ARTIFACT/LATEST" ] && [ ! -e "$SRGNN_ARTIFACT/manifest.json" ]; do
    [ "${told:-}" ] || echo "waiting for a model in $SRGNN_ARTIFACT" >&2
    told=1
    sleep 1
done
cp -r /opt/loops "$NUMBA_CACHE_DIR"  # numba reads what is compiled only where it could also write
NUMBA_CPU_NAME=$(processor)
exec srgnn serve
