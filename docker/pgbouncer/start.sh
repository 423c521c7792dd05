#!/bin/sh
# Writes PgBouncer's configuration, which has to hold the password, to memory; then becomes PgBouncer.
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
; PgBouncer does not pass a client's settings on; these stand in for the service's own.
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
; asyncpg prepares every statement and keeps ${PREPARED_STATEMENTS:-500}: PgBouncer gives them names of its own.
max_prepared_statements = ${PREPARED_STATEMENTS:-500}
; Not for ever: a server keeps a statement as it was before a migration changed its columns.
server_lifetime = ${SERVER_LIFETIME_SECONDS:-600}
; Reads ask for read-only connections; where that is ignored, each one is a read-only transaction.
ignore_startup_parameters = statement_timeout,jit,extra_float_digits,default_transaction_read_only

; A client hears within seconds that PostgreSQL is away, and why.
query_wait_timeout = 5
server_login_retry = 1
server_connect_timeout = 5

log_connections = 0
log_disconnections = 0
END
exec pgbouncer /tmp/pgbouncer.ini
