#!/bin/sh
# Runs once, when the database of docker-compose.yml is made: the capture account, and a shop that it owns.
set -eu
psql -v ON_ERROR_STOP=1 -U postgres -d shop -c "CREATE ROLE cdc LOGIN REPLICATION PASSWORD 'cdc'" \
  -c 'ALTER DATABASE shop OWNER TO cdc'
psql -v ON_ERROR_STOP=1 -q -U cdc -d shop -f /demo/shop.sql
