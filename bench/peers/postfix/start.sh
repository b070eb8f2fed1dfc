#!/bin/sh
. "$(dirname "$0")/../lib.sh"
mkdir -p "$run/conf" "$run/queue" "$run/data"
chown postfix "$run/data"
fill main.cf "$run/conf/main.cf"
fill master.cf "$run/conf/master.cf"
[ ! -e /etc/postfix/dynamicmaps.cf ] || cp /etc/postfix/dynamicmaps.cf "$run/conf/"
[ -e /etc/postfix/main.cf ] || echo 'compatibility_level = 3.6' >/etc/postfix/main.cf
exec postfix -c "$run/conf" start-fg >"$run/out" 2>&1
