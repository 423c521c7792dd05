#!/bin/sh
# Fills the settings into the configuration, creates a certificate if there is none, and executes Nginx.
set -eu

port=${HTTPS_PORT:-443}
if [ "$port" = 443 ]; then port=""; else port=":$port"; fi
sed -e "s/@HTTPS_PORT@/$port/" \
    -e "s/@REQUESTS_PER_SECOND@/${REQUESTS_PER_SECOND:-100}/" \
    -e "s/@CONNECTIONS_PER_ADDRESS@/${CONNECTIONS_PER_ADDRESS:-100}/" \
    /etc/nginx/template.conf > /tmp/nginx.conf

mkdir -p /tmp/tls
if [ -e /run/secrets/tls_certificate ]; then
    ln -sf /run/secrets/tls_certificate /tmp/tls/certificate.pem
    ln -sf /run/secrets/tls_key /tmp/tls/key.pem
elif [ ! -e /tmp/tls/key.pem ]; then
    echo "There is no /run/secrets/tls_certificate: using a new self-signed one, of which browsers will warn." >&2
    openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -noenc -days 30 -subj /CN=localhost \
        -addext subjectAltName=DNS:localhost,IP:127.0.0.1 -keyout /tmp/tls/key.pem -out /tmp/tls/certificate.pem 2>/dev/null
fi

exec "$@"
