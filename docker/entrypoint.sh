#!/bin/sh
# Runs the app's own commands by `app`, and any other command as it is.
# `exec` makes the command process 1, which receives the signals.
set -eu

case "${1:-serve}" in
    serve | migrate | seed | dev) exec app "$@" ;; # add new process types, such as a job worker, here
    *) exec "$@" ;;
esac
