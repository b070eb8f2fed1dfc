#!/bin/sh
. "$(dirname "$0")/../lib.sh"
mkdir -p "$run/spool" "$run/log"
fill exim.conf "$run/exim.conf"
chown -R Debian-exim "$run/spool" "$run/log"
# -q10s: what was not delivered at once is tried again every ten seconds
exec exim4 -C "$run/exim.conf" -bdf -q10s >"$run/out" 2>&1
