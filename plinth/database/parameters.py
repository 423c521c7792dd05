"""What becomes of each parameter of a PostgreSQL URL: those of libpq, and those that platforms write for other drivers.

https://www.postgresql.org/docs/current/libpq-connect.html#LIBPQ-PARAMKEYWORDS
"""

import os
import ssl
from collections.abc import Mapping

TLS_MODES = {"require", "verify-ca", "verify-full"}
# Values that a parameter may have, where asyncpg or a server takes it.
CHOICES = {
    "sslmode": {"disable", "allow", "prefer", *TLS_MODES},
    "sslnegotiation": {"postgres", "direct"},
    "ssl_min_protocol_version": {"TLSv1", "TLSv1.1", "TLSv1.2", "TLSv1.3"},
    "ssl_max_protocol_version": {"TLSv1", "TLSv1.1", "TLSv1.2", "TLSv1.3"},
    "target_session_attrs": {"any", "read-write", "read-only", "primary", "standby", "prefer-standby"},
    "gsslib": {"gssapi", "sspi"},
    "load_balance_hosts": {"disable", "random"},
    # asyncpg does just this; another value would ask for something that it cannot do.
    "channel_binding": {"disable", "prefer", "require"},
    "client_encoding": {"utf8", "UTF8", "utf-8", "UTF-8", "unicode", "UNICODE", "auto"},
    "gssencmode": {"disable", "prefer"},
    "gssdelegation": {"0"},
    "min_protocol_version": {"3.0"},
    "max_protocol_version": {"3.0", "3.2", "latest"},
    "replication": {"false", "off", "no", "0"},
    "sslcertmode": {"allow"},
    "sslcompression": {"0", "1"},
    "sslsni": {"1"},
}
FILES = {"sslrootcert", "sslcert", "sslkey", "sslcrl"}
TLS = {*FILES, "sslmode", "sslpassword", "sslnegotiation", "ssl_min_protocol_version", "ssl_max_protocol_version"}
ARGUMENTS = {"user", "password", "passfile", "target_session_attrs", "krbsrvname", "gsslib"}
SERVER_SETTINGS = {"application_name", "options"}
OTHERS = {"host", "hostaddr", "port", "dbname", "connect_timeout", "channel_binding", "pgbouncer"}
UNSUPPORTED = "asyncpg does not support it"
IGNORED = {
    **dict.fromkeys(("keepalives", "keepalives_idle", "keepalives_interval", "keepalives_count"), UNSUPPORTED),
    **dict.fromkeys(("tcp_user_timeout", "sslkeylogfile"), UNSUPPORTED),
    "fallback_application_name": "APP_NAME is used",
    "connection_limit": "DATABASE_POOL_SIZE and DATABASE_READ_POOL_SIZE are used",
    "pool_timeout": "DATABASE_POOL_TIMEOUT_SECONDS is used",
    **dict.fromkeys(("supa", "workaround", "uselibpqcompat"), "it is for other drivers"),
}
REFUSED = {
    **dict.fromkeys(("require_auth", "requirepeer", "sslcrldir", "scram_client_key", "scram_server_key"), UNSUPPORTED),
    **dict.fromkeys(("oauth_issuer", "oauth_client_id", "oauth_client_secret", "oauth_scope"), UNSUPPORTED),
    **dict.fromkeys(("service", "servicefile"), "write the parameters of the service into the URL"),
}
SYNONYMS = {"database": "dbname", "ssl": "sslmode", "requiressl": "sslmode"}
STATEMENT_CACHES = {"statement_cache_size", "prepared_statement_cache_size"}
SWITCHES = {"true": "require", "1": "require", "on": "require", "false": "disable", "off": "disable", "0": "prefer"}
KNOWN = {*CHOICES, *TLS, *ARGUMENTS, *SERVER_SETTINGS, *OTHERS, *IGNORED, *REFUSED, *SYNONYMS, *STATEMENT_CACHES}


def check(name: str, value: str) -> None:
    """Raise ValueError, whose text is a sentence without the value, for one that cannot be used."""
    if name in REFUSED:
        raise ValueError(f"`{name}` cannot be used: {REFUSED[name]}")
    if name in CHOICES and value not in CHOICES[name]:
        raise ValueError(f"`{name}` must be {' or '.join(sorted(CHOICES[name]))}")
    if name in FILES and (name, value) != ("sslrootcert", "system") and not os.access(value, os.R_OK):
        raise ValueError(f"`{name}` names a file that cannot be read")


def system_context(tls: Mapping[str, str]) -> ssl.SSLContext:
    """Verify by the system's certificates. Raises ValueError for a client certificate that cannot be used."""
    context = ssl.create_default_context()
    if "sslcert" in tls:
        try:
            context.load_cert_chain(tls["sslcert"], tls.get("sslkey"), tls.get("sslpassword", ""))
        except OSError:
            raise ValueError("`sslcert`, `sslkey` and `sslpassword` are not a certificate with its key") from None
    return context
