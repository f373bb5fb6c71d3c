#!/bin/sh
# Runs once, when the database of docker-compose.yml's profiles mysql and mariadb is made: the capture account, which may do
# what capturing needs and no more, and a shop.
set -eu
client=$(command -v mariadb || command -v mysql)
export MYSQL_PWD="$MYSQL_ROOT_PASSWORD"
"$client" -u root -e "CREATE USER cdc IDENTIFIED BY 'cdc'; GRANT REPLICATION SLAVE, REPLICATION CLIENT, SELECT ON *.* TO cdc"
"$client" -u root --default-character-set=utf8mb4 shop </demo/shop-mysql.sql
