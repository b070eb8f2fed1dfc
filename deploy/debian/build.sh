#!/usr/bin/env bash
# deploy/debian/build.sh [FOLDER]: builds tripost_VERSION_ARCH.deb for the Debian that it runs on (12 or newer) into FOLDER.
#
# The package has its Python modules in a virtual environment of its own, /usr/lib/tripost, over Debian's python3; nothing is
# fetched or built when it is installed. Two builds of one commit are the same, octet by octet (SOURCE_DATE_EPOCH is the
# commit's time unless it is set). Needs dpkg-deb, python3, git, and a package index.
set -euo pipefail
root=$(cd "$(dirname "$0")/../.." && pwd)
out=$(mkdir -p "${1:-$root/dist}" && cd "${1:-$root/dist}" && pwd)
here=$root/deploy/debian
python=/usr/bin/python3
umask 022
export SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git -C "$root" log -1 --format=%ct)} PYTHONDONTWRITEBYTECODE=1 LC_ALL=C
stage=$(mktemp -d)
trap 'rm -rf "$stage"' EXIT

version=$($python -c 'import sys, tomllib; print(tomllib.load(open(sys.argv[1], "rb"))["project"]["version"])' "$root/pyproject.toml")
minor=$($python -c 'import sys; print("%d.%d" % sys.version_info[:2])')
next=$($python -c 'import sys; print("%d.%d" % (sys.version_info[0], sys.version_info[1] + 1))')
arch=$(dpkg --print-architecture)
tree=$stage/tree
venv=$tree/usr/lib/tripost
site=$venv/lib/python$minor/site-packages

# --- the environment: what the lock file says, and our wheel ---
install -d "$site" "$venv/bin"
"$root/deploy/uv" --directory "$root" build -q --wheel -o "$stage/wheel"
"$root/deploy/uv" --directory "$root" export -q --frozen --no-dev --no-emit-project --no-hashes -o "$stage/locked.txt"
"$root/deploy/uv" pip install -q --python $python --target "$site" --link-mode copy --no-deps \
    -r "$stage/locked.txt" "$stage"/wheel/*.whl
rm -rf "$site/bin" "$site/.lock"
find "$site" -name RECORD -o -name direct_url.json -o -name INSTALLER -o -name REQUESTED -o -name uv_cache.json | xargs rm -f
ln -s $python "$venv/bin/python"
printf 'home = /usr/bin\ninclude-system-site-packages = false\nversion = %s\n' "$minor" >"$venv/pyvenv.cfg"
cat >"$venv/bin/tripost" <<'END'
#!/usr/lib/tripost/bin/python -P
import sys

from tripost.gateway.cli import main

sys.exit(main())
END
chmod 755 "$venv/bin/tripost"
# compiled here, so that nothing has to be written, or taken away again, on the machine
$python -m compileall -q -s "$tree" -p / --invalidation-mode unchecked-hash "$site"

# --- where Debian looks for things ---
install -d "$tree/usr/bin"
ln -s ../lib/tripost/bin/tripost "$tree/usr/bin/tripost"
install -Dm644 -t "$tree/lib/systemd/system" "$root/deploy/systemd/tripost.socket" "$root/deploy/systemd/tripost.service"
install -Dm644 "$root/deploy/systemd/sysusers.conf" "$tree/usr/lib/sysusers.d/tripost.conf"
install -Dm644 "$root/deploy/systemd/tmpfiles.conf" "$tree/usr/lib/tmpfiles.d/tripost.conf"
install -Dm644 "$root/deploy/logrotate.conf" "$tree/etc/logrotate.d/tripost"
install -Dm644 -t "$tree/usr/share/doc/tripost/examples" "$root/deploy/tripost.toml"
install -d "$tree/etc/tripost"
install -Dm644 -t "$tree/usr/share/doc/tripost" "$root/deploy/runbook.md" "$root/CHANGELOG.md" "$root/README.md"
cat "$root/LICENSE-MIT" "$root/LICENSE-APACHE" >"$tree/usr/share/doc/tripost/copyright"
install -Dm644 -t "$tree/usr/share/doc/tripost/prometheus" "$root"/deploy/prometheus/*.yml
install -Dm644 -t "$tree/usr/share/doc/tripost/grafana" "$root/deploy/grafana/tripost.json"
# completion, from the program itself
install -d "$tree/usr/share/bash-completion/completions" "$tree/usr/share/zsh/vendor-completions" "$tree/usr/share/fish/vendor_completions.d"
run() { PYTHONPATH=$site $python -P -c 'import sys; from tripost.gateway.cli import main; sys.exit(main(sys.argv[1:]))' "$@"; }
run completion bash >"$tree/usr/share/bash-completion/completions/tripost"
run completion zsh >"$tree/usr/share/zsh/vendor-completions/_tripost"
run completion fish >"$tree/usr/share/fish/vendor_completions.d/tripost.fish"

# --- what dpkg wants to know ---
install -d "$tree/DEBIAN"
for one in preinst postinst prerm postrm; do
    [ ! -f "$here/$one" ] || install -m755 "$here/$one" "$tree/DEBIAN/$one"
done
echo /etc/logrotate.d/tripost >"$tree/DEBIAN/conffiles"
sed -e "s/@VERSION@/$version/" -e "s/@ARCH@/$arch/" -e "s/@MINOR@/$minor/" -e "s/@NEXT@/$next/" \
    -e "s/@SIZE@/$(du -sk --apparent-size --exclude=DEBIAN "$tree" | cut -f1)/" "$here/control" >"$tree/DEBIAN/control"
(cd "$tree" && find . -path ./DEBIAN -prune -o -type f -print | sort | sed 's|^\./||' | xargs -d '\n' md5sum) >"$tree/DEBIAN/md5sums"
find "$tree" -exec touch -h -d "@$SOURCE_DATE_EPOCH" {} +
dpkg-deb --root-owner-group -Zxz --build "$tree" "$out/tripost_${version}_$arch.deb" >/dev/null
echo "$out/tripost_${version}_$arch.deb"
