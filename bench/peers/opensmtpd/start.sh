#!/bin/sh
# Its folders, socket and users are compiled in, and it asks the name service about every client: it gets a mount
# namespace with an /etc of its own.
. "$(dirname "$0")/../lib.sh"
fill smtpd.conf "$run/smtpd.conf"
chmod 600 "$run/smtpd.conf"
etc=$run/etc
mkdir -p "$etc"
for file in passwd group; do grep -v '^opensmtp' /etc/$file >"$etc/$file"; done
number=65001
for user in opensmtpd opensmtpq; do
    echo "$user:x:$number:$number::/nonexistent:/usr/sbin/nologin" >>"$etc/passwd"
    echo "$user:x:$number:" >>"$etc/group"
    number=$((number + 1))
done
echo '127.0.0.1 localhost relay.test' >"$etc/hosts"
echo 'lookup file' >"$etc/resolv.conf"
echo relay.test >"$etc/mailname"
printf 'passwd: files\ngroup: files\nhosts: files\n' >"$etc/nsswitch.conf"
mkdir -p "$run/smtpd"
exec unshare --mount sh -ec '
mount --bind "$1/etc" /etc
for place in /var/lib /run; do mount -t tmpfs -o mode=755 tmpfs $place; done
mkdir -p -m 755 /var/lib/opensmtpd/empty
[ -d /var/spool ]
mount --bind "$1/smtpd" /var/spool  # on the disk that counts
mkdir -m 711 /var/spool/smtpd
cd /var/spool/smtpd
mkdir -m 700 purge temporary incoming queue corrupt
mkdir -m 770 offline
chown opensmtpq purge temporary incoming queue corrupt
chgrp opensmtpq offline
exec smtpd -d -f "$1/smtpd.conf"' - "$run" >"$run/out" 2>&1
