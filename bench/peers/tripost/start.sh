#!/bin/sh
. "$(dirname "$0")/../lib.sh"
fill tripost.toml "$run/tripost.toml"
exec "${PYTHON:-python3}" -m tripost serve "$run/tripost.toml" >"$run/out" 2>&1
