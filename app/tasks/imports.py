from app.dependencies import WorkerState, get_import_service, get_invalidate
from app.jobs import IMPORT_PRODUCTS, ImportProducts
from plinth.jobs import Jobs, Run, task


@task(IMPORT_PRODUCTS, timeout_seconds=3600, attempts=20)
async def import_products(run: Run[WorkerState], begun: ImportProducts) -> None:
    """In several transactions if rows may be skipped: what one attempt has stored, the next does not repeat."""
    percent = 0
    while percent < 100:
        async with run.state["database"].sessions.begin() as session:
            invalidate = await get_invalidate(session, run.state["cache"])
            imports = await get_import_service(session, invalidate, Jobs(session))
            percent = await imports.resume(begun.id)
        await run.progress(percent)
