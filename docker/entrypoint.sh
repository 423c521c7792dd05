#!/bin/sh
# What a container of the image does: `serve` and `migrate` are the app's own, everything else is run as it is.
# `exec`, so that the command is process 1 and gets the signals.
set -eu

case "${1:-serve}" in
    serve | migrate | seed | dev) exec app "$@" ;; # whoever adds a process type (a job worker, say) names it here
    *) exec "$@" ;;
esac
