# shellcheck shell=bash
# What the scripts share. Sourced, never run.
#
# Where things are:
#   SEACHANGE_RUN_DIR   state of the throw-away servers (default: .run in the project)
#   SEACHANGE_DIST_DIR  server software that Debian does not carry (default: .run/dist in the project)

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
RUN_DIR=${SEACHANGE_RUN_DIR:-$ROOT/.run}
DIST_DIR=${SEACHANGE_DIST_DIR:-$ROOT/.run/dist}

ME=$(basename "$0")
say() { echo "$ME: $*" >&2; }
die() { say "$*"; exit 1; }

# usage: the comment at the head of the calling script.
usage() { sed -n '2,/^[^#]/{/^#/s/^# \{0,1\}//p}' "$0"; }

# locked FILE COMMAND...: one at a time, whoever started it. The lock is not inherited by what COMMAND leaves running.
locked() {
  local file=$1 fd rc=0
  shift
  mkdir -p "$(dirname "$file")"
  exec {fd}>"$file"
  flock "$fd"
  "$@" || rc=$?
  exec {fd}>&-
  return "$rc"
}

# The last lines of a log, for an error message.
tail_of() {
  local file=$1 lines=${2:-15}
  [ -s "$file" ] || { say "(no output in $file)"; return 0; }
  say "the end of $file:"
  tail -n "$lines" "$file" | sed 's/^/    /' >&2
}

# port_open PORT: does something listen on 127.0.0.1?
port_open() { (: <"/dev/tcp/127.0.0.1/$1") 2>/dev/null; }

# alive PID: running, and not merely waiting to be collected.
alive() { [ -n "${1:-}" ] && [ -d "/proc/$1" ] && ! grep -qs '^State:.Z' "/proc/$1/status"; }

# children_of PID: direct children, from /proc (a minimal system has no ps).
children_of() {
  local stat rest
  for stat in /proc/[0-9]*/stat; do
    rest=$(cat "$stat" 2>/dev/null) || continue
    rest=${rest##*) } # the name may hold blanks and brackets
    # shellcheck disable=SC2086
    set -- "$1" $rest
    [ "${3:-}" != "$1" ] || { stat=${stat#/proc/}; echo "${stat%/stat}"; }
  done
}

# wait_gone SECONDS PID...: until none of them is alive.
wait_gone() {
  local tenths=$(($1 * 10)) pid
  shift
  for pid in "$@"; do
    while alive "$pid"; do
      [ "$tenths" -gt 0 ] || return 1
      tenths=$((tenths - 1))
      sleep 0.1
    done
  done
}

# close_extra_fds: what stays running must not hold the caller's pipes and locks open.
close_extra_fds() {
  local fd
  for fd in /proc/self/fd/*; do
    fd=${fd##*/}
    [ "$fd" -le 2 ] || eval "exec $fd>&-" 2>/dev/null || :
  done
}

as_root() {
  if [ "$(id -u)" = 0 ]; then "$@"; else
    command -v sudo >/dev/null || die "root or sudo is needed for: $*"
    sudo "$@"
  fi
}

# Database servers refuse to run as root: started by root, they run as SERVER_USER, which the script sets. That user may
# be unable to pass through a 0700 home above the project: then it keeps just the capability to do so (no_setuid_fixup,
# because access(2) must honour it as well), or, where a container does not have that one, the wider one.
RIGHTS=
find_rights() { # FOLDER PROGRAM: what must be reached
  [ "$(id -u)" = 0 ] || return 0
  local cap
  for cap in none +dac_read_search +dac_override; do
    RIGHTS=$cap
    # shellcheck disable=SC2016
    as_server sh -c 'cd "$1" && test -x "$2"' sh "$1" "$2" 2>/dev/null && return
  done
  die "the user $SERVER_USER cannot reach $1: set SEACHANGE_RUN_DIR to a folder it can pass to"
}
as_server() {
  [ "$(id -u)" = 0 ] || { "$@"; return; }
  local drop=(setpriv "--reuid=$SERVER_USER" "--regid=$(id -g "$SERVER_USER")" --clear-groups)
  [ "${RIGHTS:-none}" = none ] || drop+=(--securebits=+no_setuid_fixup --inh-caps="$RIGHTS" --ambient-caps="$RIGHTS")
  "${drop[@]}" "$@"
}

# apt_install PACKAGE...: quiet; the package lists are fetched anew once if it does not work without.
apt_install() {
  command -v apt-get >/dev/null || die "no apt-get here. Install by your own means: $*"
  local log apt=(env DEBIAN_FRONTEND=noninteractive apt-get -qq -o DPkg::Lock::Timeout=300)
  log=$(mktemp)
  say "installing $*"
  if ! as_root "${apt[@]}" install -y --no-install-recommends "$@" >"$log" 2>&1; then
    as_root "${apt[@]}" update >>"$log" 2>&1 || :
    as_root "${apt[@]}" install -y --no-install-recommends "$@" >"$log" 2>&1 ||
      { tail_of "$log" 20; rm -f "$log"; die "apt-get could not install: $*"; }
  fi
  rm -f "$log"
}

# java_: a Java 17 or newer, or nothing.
java_() {
  local java version
  for java in ${SEACHANGE_JAVA:-} /usr/lib/jvm/java-17-openjdk-*/bin/java "$(command -v java || true)"; do
    [ -x "$java" ] || continue
    version=$("$java" -version 2>&1 | sed -n 's/.*version "\([0-9]*\).*/\1/p;q')
    [ "${version:-0}" -ge 17 ] && { echo "$java"; return; }
  done
  return 1
}

KAFKA_VERSION=${KAFKA_VERSION:-4.4.0}
KAFKA_DIST=$DIST_DIR/kafka-$KAFKA_VERSION

# pg_bin VERSION: folder of that server's programs. Debian 12 carries 15, the rest are Maven artifacts.
pg_bin() { if [ "$1" = 15 ]; then echo /usr/lib/postgresql/15/bin; else echo "$DIST_DIR/postgres-$1/bin"; fi; }

# certificate DIR NAME COMMON-NAME [EXTENSIONS]: NAME.key and NAME.crt of the CA in DIR; NAME ca is that CA.
certificate() {
  local dir=$1 name=$2 by
  openssl req -new -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -subj "/CN=$3" \
    -keyout "$dir/$name.key" -out "$dir/$name.csr" 2>/dev/null
  if [ "$name" = ca ]; then by=(-signkey "$dir/ca.key"); else by=(-CA "$dir/ca.crt" -CAkey "$dir/ca.key" -CAcreateserial); fi
  openssl x509 -req -in "$dir/$name.csr" "${by[@]}" -days 30 -out "$dir/$name.crt" \
    -extfile <(printf '%s\n' "${4:-basicConstraints=CA:FALSE}") 2>/dev/null
}
