"""Command line of the benchmarks: `python -m benchmarks --help` lists what there is."""

import argparse
import sys

from benchmarks.caching import caching
from benchmarks.check import check
from benchmarks.compare import quick
from benchmarks.data import PRODUCTS, data
from benchmarks.jobs import jobs
from benchmarks.loadtest import loadtest
from benchmarks.observability import observability
from benchmarks.report import report
from benchmarks.security import security
from benchmarks.soak import soak
from plinth.testing.locks import SetupError


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="Measure the app against its floors.")
    commands = parser.add_subparsers(dest="command", required=True)
    add = commands.add_parser("quick", help="print the tables of the floors, the app and the usual template")
    add.add_argument("scenario", nargs="*", help="only these scenarios")
    commands.add_parser("cache", help="print the cost of cached responses")
    add = commands.add_parser("data", help="judge searches, imports, pages and exports of a large catalogue")
    add.add_argument("--products", type=int, default=PRODUCTS, help="fewer for a quick try, at least 10,000")
    commands.add_parser("jobs", help="print the cost of enqueueing, and how fast a worker is")
    commands.add_parser("security", help="judge the times of logins, and what many at once cost others")
    commands.add_parser("observability", help="judge what logs and metrics cost")
    add = commands.add_parser("check", help="compare with the recorded costs")
    add.add_argument("--record", action="store_true", help="record the costs instead")
    add = commands.add_parser("report", help="write docs/benchmarks.md and README's table")
    add.add_argument("--smoke", action="store_true", help="one round of everything, printed; writes no file")
    add = commands.add_parser("soak", help="apply load for a long time and judge the memory")
    add.add_argument("--minutes", type=float, default=60)
    add = commands.add_parser("loadtest", help="simulate users with locust and judge the service objectives")
    add.add_argument("--users", type=int, default=100)
    add.add_argument("--seconds", type=int, default=60)
    arguments = parser.parse_args()
    code: int | None = None
    try:
        match arguments.command:
            case "quick":
                quick(arguments.scenario)
            case "cache":
                caching()
            case "data":
                code = data(arguments.products)
            case "jobs":
                jobs()
            case "security":
                code = security()
            case "observability":
                code = observability()
            case "check":
                code = check(arguments.record)
            case "report":
                report(arguments.smoke)
            case "soak":
                code = soak(arguments.minutes)
            case "loadtest":
                code = loadtest(arguments.users, arguments.seconds)
    except SetupError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return code or 0


if __name__ == "__main__":
    sys.exit(main())
