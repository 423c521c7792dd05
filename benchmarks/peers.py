"""The same ping and the same product by id in other frameworks, each served as its own guide says, in one process."""

from collections.abc import Sequence

from benchmarks.figures import table
from benchmarks.measure import Subject, measure, median_of, ratio
from benchmarks.scenarios import BY_ID, PING
from benchmarks.servers import ROOT, Server
from benchmarks.testbed import Testbed
from tools.scratch import SCRATCH, run, scratch_environment

APPS = ROOT / "benchmarks" / "frameworks"
PYTHON_PACKAGES = ("flask", "django", "gunicorn", "psycopg[binary]")
NODE_PACKAGES = ("express", "pg")
MEASURED = (PING, BY_ID)


def peers(bed: Testbed, app: Server, rounds: int, seconds: int) -> str:
    servers = [app, *_python(bed), _node(bed)]
    results = [
        measure(bed, [Subject(server.name, server, scenario) for server in servers], rounds, seconds)
        for scenario in MEASURED
    ]
    rows = []
    for server in servers:
        cells = []
        for by_server in results:
            slices, ours = by_server[server.name], by_server[app.name]
            rate, cost = median_of(slices, lambda each: each.rate), median_of(slices, lambda each: each.cpu_us)
            cells += [f"{rate:,.0f}", f"{cost:,.0f}", f"{ratio(slices, ours):.2f}"]
        rows.append([server.name, *cells])
    head = [head for scenario in MEASURED for head in (f"{scenario.name}/s", "CPU µs", "× app")]
    return table(["", *head], rows)


def _python(bed: Testbed) -> Sequence[Server]:
    programs = scratch_environment("frameworks", PYTHON_PACKAGES)
    code = "from importlib.metadata import version as v; print(v('flask'), v('django'), v('gunicorn'), v('psycopg'))"
    flask, django, gunicorn, psycopg = run([str(programs / "python"), "-c", code]).split()
    served = f"Gunicorn {gunicorn}, psycopg {psycopg}"
    argv = [str(programs / "gunicorn"), "--config", str(APPS / "gunicorn.conf.py"), "--chdir", str(APPS)]
    return [
        bed.start(f"Flask {flask}, {served}", [*argv, "flask_app:app"]),
        bed.start(f"Django {django}, {served}", [*argv, "django_app:app"]),
    ]


def _node(bed: Testbed) -> Server:
    SCRATCH.mkdir(parents=True, exist_ok=True)
    run(["npm", "install", "--silent", "--no-audit", "--no-fund", f"--prefix={SCRATCH}", *NODE_PACKAGES])
    modules = SCRATCH / "node_modules"
    code = "console.log(process.version, ...process.argv.slice(1).map((path) => require(path).version))"
    node, express, pg = run(["node", "-e", code, *(f"{modules / name}/package.json" for name in NODE_PACKAGES)]).split()
    name = f"Express {express}, pg {pg}, Node {node.lstrip('v')}"
    return bed.start(name, ["node", str(APPS / "express.js")], NODE_ENV="production", NODE_PATH=str(modules))
