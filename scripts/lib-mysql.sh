# shellcheck shell=bash
# What scripts/mysql and scripts/mariadb share. Sourced, never run.
#
# The caller sets KIND (mysql, mariadb), NAME (as people say it), VERSION (of the software's folder), PORT and CONF, and
# defines conf_text, accounts_text and make_data. Server and client run from $DIST, where scripts/install unpacks them: a
# server that the system has, and its service, are neither used nor touched.

# shellcheck disable=SC2034 # for who sources this
DIST=$DIST_DIR/$VERSION
HERE=$RUN_DIR/$VERSION-$PORT
DATA=$HERE/data
LOG=$HERE/server.log
SERVER=$DIST/usr/sbin/${KIND}d
CLIENT=$DIST/usr/bin/$KIND
SERVER_USER=nobody

# The pid file outlives a crash, and the number may be somebody else's by then.
pid() { cat "$DATA/server.pid" 2>/dev/null || true; }
up() {
  local p
  p=$(pid)
  [ -n "$p" ] && alive "$p" && tr '\0' '\n' 2>/dev/null <"/proc/$p/cmdline" | grep -qsxF -- "--defaults-file=$HERE/server.cnf"
}

# The settings of the first start stay; those of a later one are for that start.
make_server() {
  say "making a $NAME server"
  as_server rm -rf "$DATA" "$HERE/tmp"
  # One's own: a server that starts removes the temporary tables of all others there.
  as_server mkdir "$HERE/tmp"
  {
    cat <<CONF
[${KIND}d]
basedir=$DIST/usr
datadir=$DATA
plugin_dir=$DIST/usr/lib/mysql/plugin
lc_messages_dir=$DIST/usr/share/mysql
character_sets_dir=$DIST/usr/share/mysql/charsets
bind_address=127.0.0.1
port=$PORT
socket=server.sock
pid_file=$DATA/server.pid
skip_name_resolve=ON
max_connections=200
server_id=$PORT
log_bin=binlog
loose_binlog_format=ROW
binlog_row_image=FULL
binlog_row_metadata=FULL
innodb_buffer_pool_size=64M
performance_schema=OFF
secure_file_priv=
tmpdir=$HERE/tmp
CONF
    conf_text
    printf '%s\n' $CONF
  } >"$HERE/server.cnf"
  printf '[client]\nhost=127.0.0.1\nport=%s\nuser=root\npassword=root\n' "$PORT" >"$HERE/client.cnf"
  accounts_text >"$HERE/accounts.sql"
  make_data >"$HERE/init.log" 2>&1 || { tail_of "$HERE/init.log"; die "the data of $NAME could not be made"; }
}

start() {
  local setting options=() p tenths=3000
  if up; then status; return; fi
  "$ROOT/scripts/install" "$VERSION"
  ! port_open "$PORT" || die "something else listens on 127.0.0.1:$PORT already: choose another ${KIND^^}_PORT"
  mkdir -p "$HERE"
  [ "$(id -u)" != 0 ] || chown "$SERVER_USER:" "$HERE"
  find_rights "$HERE" "$SERVER"
  if [ -e "$HERE/ready" ]; then for setting in $CONF; do options+=("--$setting"); done; else
    make_server
    options=("--init-file=$HERE/accounts.sql")
  fi
  as_server rm -f "$DATA/server.pid"
  (
    close_extra_fds
    as_server setsid "$SERVER" "--defaults-file=$HERE/server.cnf" "${options[@]}"
  ) </dev/null >>"$LOG" 2>&1 &
  p=$!
  until up && client -e 'SELECT 1' >/dev/null 2>&1; do
    alive "$p" || { tail_of "$LOG"; die "$NAME did not start"; }
    [ "$tenths" -gt 0 ] || { tail_of "$LOG"; die "$NAME does not answer after 300 s"; }
    tenths=$((tenths - 1))
    sleep 0.1
  done
  touch "$HERE/ready"
  status
}

wait_closed() { # SECONDS
  local tenths=$(($1 * 10))
  while port_open "$PORT"; do
    [ "$tenths" -gt 0 ] || return 1
    tenths=$((tenths - 1))
    sleep 0.1
  done
}
end_by() { # SIGNAL SECONDS
  local p
  up || return 0
  p=$(pid)
  kill -CONT "$p"
  kill "-$1" "$p"
  # The first thread may be gone while the others, which hold the port, are still on their way out.
  { wait_gone "$2" "$p" && wait_closed 20; } || die "$NAME (pid $p) does not end by SIG$1"
}
kill9() {
  up || die "$NAME is not running"
  end_by KILL 20
  # While nobody has collected the dead server its number is taken: the next would hold the socket for in use.
  rm -f "$DATA/server.sock" "$DATA/server.sock.lock"
}
wipe() {
  end_by KILL 20
  [ ! -e "$DATA" ] || rm -rf "$DATA"
  rm -rf "$HERE"
}

status() {
  if up; then echo "$NAME: 127.0.0.1:$PORT, pid $(pid)"; else
    echo "$NAME: not running"
    return 3
  fi
}

# The client becomes this very process when it is all that is asked for: whoever ends the script ends it.
REPLACE=
client() {
  [ -x "$CLIENT" ] || "$ROOT/scripts/install" "$VERSION"
  $REPLACE "$CLIENT" "--defaults-file=$HERE/client.cnf" "$@"
}

main() {
  local command=${1:-help}
  shift || :
  case $command in
    start | kill9 | wipe | status) "$command" ;;
    stop) end_by TERM 120 ;;
    restart) end_by TERM 120; start ;;
    sql) REPLACE=exec; client "$@" ;;
    url)
      case ${1:-} in
        super) echo "$KIND://root:root@127.0.0.1:$PORT/lab" ;;
        *) echo "$KIND://cdc:cdc@127.0.0.1:$PORT/lab" ;;
      esac
      ;;
    log) echo "$LOG" ;;
    help | -h | --help) usage ;;
    *) usage >&2; exit 2 ;;
  esac
}
