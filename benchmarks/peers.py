"""The same ping and the same product by id elsewhere, as each framework's own guide serves it, one process each."""

from collections.abc import Sequence

from benchmarks.figures import table
from benchmarks.ground import Ground
from benchmarks.measure import measure, middle, ratio
from benchmarks.scenarios import BY_ID, PING
from benchmarks.servers import ROOT, Server
from tools.scratch import SCRATCH, run, scratch_environment

APPS = ROOT / "benchmarks" / "frameworks"
PYTHON_PACKAGES = ("flask", "django", "gunicorn", "psycopg[binary]")
NODE_PACKAGES = ("express", "pg")
ASKED = (PING, BY_ID)


def peers(here: Ground, app: Server, rounds: int, seconds: int) -> str:
    servers = [app, *_python(here), _node(here)]
    results = [measure(here, scenario, servers, rounds, seconds) for scenario in ASKED]
    rows = []
    for server in servers:
        cells = []
        for each in results:
            slices, ours = each[server.name], each[app.name]
            rate, cost = middle(slices, lambda slice: slice.rate), middle(slices, lambda slice: slice.cpu_us)
            cells += [f"{rate:,.0f}", f"{cost:,.0f}", f"{ratio(slices, ours):.2f}"]
        rows.append([server.name, *cells])
    head = [head for scenario in ASKED for head in (f"{scenario.name}/s", "CPU µs", "× ours")]
    return table(["", *head], rows)


def _python(here: Ground) -> Sequence[Server]:
    programs = scratch_environment("frameworks", PYTHON_PACKAGES)
    code = "from importlib.metadata import version as v; print(v('flask'), v('django'), v('gunicorn'), v('psycopg'))"
    flask, django, gunicorn, psycopg = run([str(programs / "python"), "-c", code]).split()
    served = f"Gunicorn {gunicorn}, psycopg {psycopg}"
    argv = [str(programs / "gunicorn"), "--config", str(APPS / "gunicorn.conf.py"), "--chdir", str(APPS)]
    return [
        here.start(f"Flask {flask}, {served}", [*argv, "flask_app:app"]),
        here.start(f"Django {django}, {served}", [*argv, "django_app:app"]),
    ]


def _node(here: Ground) -> Server:
    SCRATCH.mkdir(parents=True, exist_ok=True)
    run(["npm", "install", "--silent", "--no-audit", "--no-fund", f"--prefix={SCRATCH}", *NODE_PACKAGES])
    modules = SCRATCH / "node_modules"
    code = "console.log(process.version, ...process.argv.slice(1).map((path) => require(path).version))"
    node, express, pg = run(["node", "-e", code, *(f"{modules / name}/package.json" for name in NODE_PACKAGES)]).split()
    name = f"Express {express}, pg {pg}, Node {node.lstrip('v')}"
    return here.start(name, ["node", str(APPS / "express.js")], NODE_ENV="production", NODE_PATH=str(modules))
