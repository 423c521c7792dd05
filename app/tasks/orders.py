from app.dependencies import WorkerState
from app.jobs import ORDER_MAIL, OrderMail
from app.repositories.orders import OrderQueries
from app.repositories.users import UserQueries
from plinth.jobs import Run, task


@task(ORDER_MAIL, timeout_seconds=60)
async def mail_order(run: Run[WorkerState], mail: OrderMail) -> None:
    state = run.state
    async with state["database"].sessions.begin() as session:  # not on the replica, which may lack the order yet
        orders = OrderQueries(session)
        order = await orders.get(mail.order_id)
        user = await UserQueries(session).get(order.user_id) if order and order.user_id else None
        lines = await orders.lines([mail.order_id])
    if user is None:  # the account was deleted
        return
    values = {"name": user.name, "order": order, "lines": lines}
    await state["mailer"].send("order", to=user.email, name=user.name, message_id=run.id, values=values)
