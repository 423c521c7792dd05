"""The reports, which are an example of jobs made of the example's products: they go with either."""

from tools.project import Place
from tools.removals.removal import Removal, blocks, lines

REPORTS = Removal(
    about="the reports",
    paths=[
        "app/routers/reports.py",
        "app/services/reports.py",
        "app/schemas/reports.py",
        "app/repositories/reports.py",
        "app/tasks/reports.py",
        "app/mails/low_stock.txt",
        "app/mails/prices.html",
        "app/mails/prices.txt",
        "tests/app/routers/test_reports.py",
    ],
    texts=[
        *blocks(
            "app/jobs.py",
            """
class PriceReport(BaseModel):
    pass


class LowStockReport(BaseModel):
    below: int = 5
""",
            end="\n\n\n",
        ),
        *lines(
            "app/jobs.py",
            """\
PRICE_REPORT = Job("price_report", PriceReport)
LOW_STOCK_REPORT = Job("low_stock_report", LowStockReport)
""",
        ),
        *lines(
            "app/tasks/__init__.py",
            """\
    Schedule("low_stock_report", LOW_STOCK_REPORT, LowStockReport(), cron="0 7 * * 1-5"),
""",
        ),
        *lines(
            "app/dependencies.py",
            """\
from app.repositories.reports import ReportQueries
from app.services.reports import ReportReader, ReportService
    reports_to: str
ReportReaderDep = Annotated[ReportReader, Depends(get_report_reader)]
ReportServiceDep = Annotated[ReportService, Depends(get_report_service)]
""",
        ),
        *blocks(
            "app/dependencies.py",
            """
async def get_report_reader(reads: ReadsDep, processes: ProcessesDep) -> ReportReader:
    return ReportReader(ReportQueries(reads), processes)


async def get_report_service(jobs: JobsDep) -> ReportService:
    return ReportService(jobs)
""",
            end="\n\n\n",
        ),
        (Place("app/main.py", ', "reports_to": settings.app.reports_to'), ""),
        *lines(
            "app/settings.py",
            '    reports_to: str = Field("reports@localhost", description="Address that reports are mailed to.")\n',
        ),
        *lines(".env.example", "# Address that reports are mailed to.\n#APP_REPORTS_TO=reports@localhost\n"),
        *lines("tests/app/resources.py", '        ("POST", "/api/reports/prices"): None,\n'),
        *lines(
            "tests/app/test_round_trips.py",
            """\
    ("GET", "/api/reports/prices"): READ,
    ("POST", "/api/reports/prices"): 5,  # BEGIN, INSERT, prepare and SELECT of the job that is queued already, COMMIT
""",
        ),
    ],
    elements=[
        Place("app/routers/__init__.py", "reports"),
        Place("app/routers/__init__.py", "reports.router"),
        Place("app/tasks/__init__.py", "LOW_STOCK_REPORT"),
        Place("app/tasks/__init__.py", "LowStockReport"),
        Place("app/tasks/__init__.py", "reports"),
        Place("app/tasks/__init__.py", "reports.mail_prices"),
        Place("app/tasks/__init__.py", "reports.mail_low_stock"),
    ],
    references=[
        r"\bapp\.\w+\.reports\b",
        r"from app\.?\w* import .*\breports\b",
        r"\bReport(?:Reader|Service)Dep\b",
        r"\b(?:PRICE|LOW_STOCK)_REPORT\b",
        r"\breports_to\b",
        r"/api/reports\b",
    ],
)
