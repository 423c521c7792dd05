#!/bin/sh
# Runs a module of tools/ with a Python that is new enough: `bootstrap.sh environment`, `bootstrap.sh init --name=…`.
# Written in sh because a Python that is too old could not parse the modules.

module=tools.$1
shift

new_enough() {
    "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1
}

if [ -n "${PYTHON:-}" ]; then
    new_enough "$PYTHON" && exec "$PYTHON" -m "$module" "$@"
    echo "PYTHON=$PYTHON is not a working Python 3.11 or newer: name another one, or leave PYTHON out." >&2
    exit 1
fi

for python in .venv/bin/python python3 python3.14 python3.13 python3.12 python3.11 python; do
    new_enough "$python" && exec "$python" -m "$module" "$@"
done

found=$( (python3 -V || python -V) 2>&1) || found="none"
echo "Python 3.11 or newer is needed (found: $found): install it, or name it as in \`make run PYTHON=/path/to/python\`." >&2
exit 1
