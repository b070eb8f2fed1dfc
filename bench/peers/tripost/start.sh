#!/bin/sh
# PROCESSES: for `processes`, where it is not as by default; DISCARD: all of it goes nowhere
. "$(dirname "$0")/../lib.sh"
[ -z "${PROCESSES:-}" ] || echo "processes = $PROCESSES" >"$run/tripost.toml"
fill tripost.toml "$run/rest.toml"
[ -z "${DISCARD:-}" ] || sed -i -e 's|^to = .*|to = "discard"|' -e '/^tls = /d' "$run/rest.toml"
cat "$run/rest.toml" >>"$run/tripost.toml"
exec "${PYTHON:-python3}" -m tripost serve "$run/tripost.toml" >"$run/out" 2>&1
