#!/bin/sh
# Entry point of the image: commands of the app run as `app <command>`, any other command runs as it is.
# `exec` makes the command process 1, which receives the signals.
set -eu

case "${1:-serve}" in
    serve | migrate | seed | sweep-uploads | dev | worker | jobs | doctor) exec app "$@" ;;
    *) exec "$@" ;;
esac
