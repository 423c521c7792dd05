#!/bin/sh
# Writes PgBouncer's configuration, which contains the password, to memory, and executes PgBouncer.
set -eu
umask 077

password=${POSTGRES_PASSWORD:-}
if [ -n "${POSTGRES_PASSWORD_FILE:-}" ]; then password=$(cat "$POSTGRES_PASSWORD_FILE"); fi
if [ -z "$password" ]; then
    echo "Set POSTGRES_PASSWORD or POSTGRES_PASSWORD_FILE: PgBouncer signs in to PostgreSQL with it." >&2
    exit 1
fi

printf '"%s" "%s"\n' "$POSTGRES_USER" "$(printf %s "$password" | sed 's/"/""/g')" > /tmp/users
cat > /tmp/pgbouncer.ini <<END
[databases]
; PgBouncer does not forward a client's startup settings; these replace the service's own.
* = host=${POSTGRES_HOST:-postgres} port=${POSTGRES_PORT:-5432} connect_query='SET statement_timeout = ''${STATEMENT_TIMEOUT:-10s}''; SET jit = off'

[pgbouncer]
listen_addr = *
listen_port = 6432
unix_socket_dir =
auth_type = scram-sha-256
auth_file = /tmp/users

pool_mode = transaction
default_pool_size = ${SERVER_CONNECTIONS:-20}
max_client_conn = ${CLIENT_CONNECTIONS:-1000}
; asyncpg prepares every statement and keeps ${PREPARED_STATEMENTS:-500}; PgBouncer renames them per server connection.
max_prepared_statements = ${PREPARED_STATEMENTS:-500}
; Limited, because a server keeps prepared statements that a migration has invalidated.
server_lifetime = ${SERVER_LIFETIME_SECONDS:-600}
; Reads ask for read-only connections; where that is ignored, each one is a read-only transaction.
ignore_startup_parameters = statement_timeout,jit,extra_float_digits,default_transaction_read_only

; Clients get an error with its cause within seconds when PostgreSQL is down.
query_wait_timeout = 5
server_login_retry = 1
server_connect_timeout = 5

log_connections = 0
log_disconnections = 0
END
exec pgbouncer /tmp/pgbouncer.ini
