# Read by every start script: start.sh PORT SINK FOLDER. It must end in exec, in the foreground.
set -eu
port=$1 sink=$2 run=$3
here=$(cd "$(dirname "$0")" && pwd)
fill() { # TEMPLATE FILE
    sed -e "s|@port@|$port|g" -e "s|@sink@|$sink|g" -e "s|@run@|$run|g" "$here/$1" >"$2"
}
