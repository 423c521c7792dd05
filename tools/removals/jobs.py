"""Jobs: the queue's endpoints, tasks and worker, and what runs the worker."""

from tools.project import Place
from tools.removals.removal import Removal, blocks, lines
from tools.removals.worker import DEPLOYMENT, WORKER

JOBS = Removal(
    about="jobs: the queue, its worker, schedules and mail",
    paths=[
        "app/jobs.py",
        "app/routers/jobs.py",
        "app/schemas/jobs.py",
        "app/services/jobs.py",
        "app/tasks/__init__.py",
        "app/tasks/jobs.py",
        "tests/app/routers/test_jobs.py",
        "tests/app/worker.py",
        *(f"{WORKER}/{name}.yaml" for name in ("autoscaler", "deployment", "disruption-budget", "kustomization")),
        f"{WORKER}/settings.env",
    ],
    texts=[
        *lines(
            "app/main.py",
            """\
from pathlib import Path
from app.tasks import SCHEDULES, TASKS
from plinth.jobs import Worker, open_mailer, queue_metrics
MAILS = Path(__file__).parent / "mails"
""",
        ),
        (Place("app/main.py", "app: FastAPI | None, settings"), "app: FastAPI, settings"),
        (Place("app/main.py", 'sampled("web" if app else "worker", '), 'sampled("web", '),
        *lines("app/main.py", '        fetch=lambda state: queue_metrics(state["database"].reads),\n'),
        (Place("app/main.py", "before the first request or job, close"), "before the first request, close"),
        (
            Place(
                "app/main.py",
                """\
        others = database.unpooled_connections if app else 1  # the one for the queue
        await database.warn_of_too_many_connections(settings.workers if app else settings.job.processes, others)
""",
            ),
            "        await database.warn_of_too_many_connections(settings.workers, database.unpooled_connections)\n",
        ),
        (
            Place(
                "app/main.py",
                """\
            "limits": limits,
        }


@asynccontextmanager
async def worker_lifespan(settings: Settings) -> AsyncIterator[WorkerState]:
    async with lifespan(None, settings) as state, open_mailer(settings.mail, MAILS) as mailer:
        yield {**state, "mailer": mailer""",
            ),
            '            "limits": limits,\n        ',
        ),
        *blocks(
            "app/main.py",
            '''
def create_worker(settings: Settings) -> Worker[WorkerState]:
    """Build what `app worker` runs: a process beside those of the application, or several."""
    configure_logging(settings.log_level, settings.log_format, settings.app.name)
    configure_sentry(settings.sentry, settings.app.env, settings.app.version)
    return Worker(settings.job, settings.database, TASKS, SCHEDULES, partial(worker_lifespan, settings))
''',
            end="\n\n\n",
        ),
        *lines(
            "app/dependencies.py",
            """\
from app.services.jobs import JobReader
from plinth.jobs import JobQueries, Jobs, Mailer
JobReaderDep = Annotated[JobReader, Depends(get_job_reader)]
""",
        ),
        *blocks(
            "app/dependencies.py",
            '''
class WorkerState(State):
    """What the lifespan of the worker opens. Every task finds it in `run.state`."""

    mailer: Mailer
''',
            end="\n",
        ),
        *blocks(
            "app/dependencies.py",
            """
async def get_jobs(session: SessionDep) -> Jobs:
    return Jobs(session)


# Jobs are enqueued in the transaction of the request: they run if it commits.
JobsDep = Annotated[Jobs, Depends(get_jobs)]


async def get_job_reader(reads: ReadsDep) -> JobReader:
    return JobReader(JobQueries(reads))
""",
            end="\n\n\n",
        ),
        (Place("app/cli.py", ', worker="app.main:create_worker"'), ""),
        *DEPLOYMENT,
        *lines(
            "pyproject.toml",
            """\
    # jobs: schedules and mail
    "cronsim>=2.8",
    "jinja2>=3.1",
    "aiosmtplib>=5.1",
    "aiosmtpd>=1.4", # receives the mails of the tests
""",
        ),
        (
            Place("pyproject.toml", 'module = ["asyncpg.*", '),
            'module = ["aiosmtpd.*", "aiosmtplib", "asyncpg.*", "cronsim", "jinja2", ',
        ),
        *blocks(
            "tests/app/conftest.py",
            '''
async def add_job(onlooker: asyncpg.Connection) -> None:
    """One job, which no worker takes."""
    await onlooker.execute("TRUNCATE plinth_jobs CASCADE")
    values = """($1, 'none', 'none', '{}', '{"requested_by": "user:3"}')"""
    await onlooker.execute(f"INSERT INTO plinth_jobs (id, name, queue, payload, context) VALUES {values}", JOB)
''',
            end="\n\n\n",
        ),
        *lines("tests/app/conftest.py", "    await add_job(onlooker)\n"),
        (Place("tests/app/conftest.py", "import JOB, RESOURCES"), "import RESOURCES"),
        (Place("tests/app/test_main.py", "create_app, lifespan"), "create_app"),
        *lines("tests/app/resources.py", "from uuid import UUID\nJOB = UUID(int=1)\n"),
        *blocks(
            "tests/app/test_main.py",
            """
async def test_the_connections_of_the_queue_count_too(settings: Settings, caplog: pytest.LogCaptureFixture) -> None:
    jobs = settings.job.model_copy(update={"processes": 256})
    each = settings.database.pool_size + settings.database.read_pool_size + 2
    async with lifespan(None, settings.model_copy(update={"job": jobs})):
        assert f"256 workers may open {256 * each} connections" in caplog.text
""",
            end="\n\n\n",
        ),
        *lines("tests/app/test_round_trips.py", '    ("GET", "/api/jobs/{id}"): READ,\n'),
    ],
    elements=[
        Place("app/main.py", "WorkerState"),
        Place("app/routers/__init__.py", "jobs"),
        Place("app/routers/__init__.py", "jobs.router"),
        Place("tests/app/resources.py", '"/api/jobs/{id}": [f"/api/jobs/{JOB}"]'),
        Place("tests/app/test_cli.py", '"worker"'),
        Place("tests/app/test_cli.py", '"jobs"'),
    ],
    references=[
        r"\bapp\.(?:\w+\.)?jobs\b",
        r"\bapp\.tasks\b",
        r"from app\.?\w* import .*\b(?:jobs|tasks)\b",
        r"\bplinth\.jobs\b",
        r"from plinth import .*\bjobs\b",
        r"\b(?:JobsDep|JobReaderDep|get_jobs|get_job_reader|create_worker)\b",
        r"\bplinth_(?:jobs|job_effects|schedules)\b",
        r"/api/jobs\b",
        r"^\s*(?:import|from) (?:cronsim|jinja2|aiosmtplib|aiosmtpd)\b",
    ],
    creates="7c1e52d0b8a4",
    needed_by={"app/models/users.py": "Accounts send their mails by jobs, so they cannot do without them"},
    stays=(
        "plinth/jobs/, the settings JOB_* and MAIL_*, and the pages about jobs stay, for they are plinth's. "
        "`make lock` takes the libraries out of the lock files."
    ),
)
