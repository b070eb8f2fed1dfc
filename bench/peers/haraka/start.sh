#!/bin/sh
# From npm: `npm install Haraka`, and node_modules/.bin on PATH. A process for each core, as its documentation advises.
. "$(dirname "$0")/../lib.sh"
mkdir -p "$run/config" "$run/plugins" "$run/queue"
cp "$here/all_to_sink.js" "$run/plugins/"
cp "$here/connection.ini" "$run/config/"
cd "$run/config"
echo relay.test >me
echo all_to_sink >plugins
echo "127.0.0.1:$sink" >relay_to
printf 'listen=127.0.0.1:%s\nnodes=cpus\n' "$port" >smtp.ini
printf 'local_mx_ok=true\nenable_tls=false\ninet_prefer=v4\nconcurrency_max=100\n' >outbound.ini
printf '[main]\nlevel=NOTICE\nformat=default\n' >log.ini
cd "$run"
exec haraka -c "$run" >"$run/out" 2>&1 </dev/null
