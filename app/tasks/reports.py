from app.dependencies import WorkerState, get_report_reader
from app.jobs import LOW_STOCK_REPORT, PRICE_REPORT, LowStockReport, PriceReport
from plinth.jobs import Run, task


@task(PRICE_REPORT, timeout_seconds=300)
async def mail_prices(run: Run[WorkerState], report: PriceReport) -> None:
    state = run.state
    reports = await get_report_reader(state["database"].reads, state["processes"])
    summary = await reports.prices()
    await run.progress(50)
    await state["mailer"].send("prices", to=state["reports_to"], message_id=run.id, values=summary)


@task(LOW_STOCK_REPORT, timeout_seconds=60)
async def mail_low_stock(run: Run[WorkerState], report: LowStockReport) -> None:
    state = run.state
    reports = await get_report_reader(state["database"].reads, state["processes"])
    if products := await reports.low_stock(report.below):
        values = {"below": report.below, "products": products}
        await state["mailer"].send("low_stock", to=state["reports_to"], message_id=run.id, values=values)
