"""What imports of many rows have in common with jobs, which goes with either: then all rows are taken at once."""

from tools.project import Place
from tools.removals.removal import Removal, blocks, lines

SERVICE, ROUTER = "app/services/imports.py", "app/routers/imports.py"

IMPORT_JOBS = Removal(
    about="the job that imports many products",
    paths=["app/tasks/imports.py", "tests/app/routers/test_import_jobs.py"],
    texts=[
        *blocks("app/jobs.py", "\nclass ImportProducts(BaseModel):\n    id: int\n", end="\n\n\n"),
        *lines("app/jobs.py", 'IMPORT_PRODUCTS = Job("import_products", ImportProducts)\n'),
        (Place("app/dependencies.py", "InvalidateDep, jobs: JobsDep) -> ImportS"), "InvalidateDep) -> ImportS"),
        (
            Place("app/dependencies.py", "ImportRepository(session), invalidate, jobs)"),
            "ImportRepository(session), invalidate)",
        ),
        *lines(
            SERVICE,
            """\
from app.jobs import IMPORT_PRODUCTS, ImportProducts
from plinth.jobs import Jobs
DIRECT_ROWS = 10_000
        self._jobs = jobs
""",
        ),
        (Place(SERVICE, " them: at once, or by a job where there are many."), " them."),
        (Place(SERVICE, "Invalidate, jobs: Jobs)"), "Invalidate)"),
        (
            Place(
                SERVICE,
                """\
        if begun.rows > DIRECT_ROWS:
            await self._jobs.enqueue(IMPORT_PRODUCTS, ImportProducts(id=begun.id))
            return ImportRead.model_validate(begun, from_attributes=True)
""",
            ),
            "",
        ),
        (
            Place(
                SERVICE,
                '''\
    async def resume(self, id: int) -> int:
        """Make products of more rows, and return how many percent are done. Each row is taken once."""
        begun = await self._imports.find(id)
        if begun is None or begun.state != "running":
            return 100
        await self._advance(begun, 1 if begun.skips_errors else ceil(begun.rows / BATCH))
        return 100 if begun.state != "running" else 100 * (begun.done + begun.failed) // begun.rows

''',
            ),
            "",
        ),
        (Place(ROUTER, " products; above 10,000 it is begun, and Location shows how far it is."), " products."),
        (Place(ROUTER, '{202: {"model": ImportRead}, **problem_responses(422)}'), "problem_responses(422)"),
        *lines(
            ROUTER,
            """\
    response: Response,
    response.status_code = status.HTTP_202_ACCEPTED if begun.state == "running" else status.HTTP_200_OK
""",
        ),
    ],
    elements=[
        Place("app/tasks/__init__.py", "imports"),
        Place("app/tasks/__init__.py", "imports.import_products"),
    ],
    references=[r"\bIMPORT_PRODUCTS\b", r"\bImportProducts\b", r"\bapp\.tasks\.imports\b"],
)
