"""Receives the mails of a worker."""

import email
import logging
from contextlib import ExitStack
from typing import Any

from plinth.testing.network import reserved_port


class Mailbox:
    """An SMTP server that keeps the number and the Message-ID of each mail."""

    def __init__(self, stack: ExitStack) -> None:
        from aiosmtpd.controller import Controller  # noqa: PLC0415 - a project without jobs does not have it

        logging.getLogger("mail.log").setLevel(logging.WARNING)
        self.received: list[tuple[int, str]] = []
        with reserved_port() as port:
            controller = Controller(self, hostname="127.0.0.1", port=port)
            controller.start()
        stack.callback(controller.stop)
        self.port = port

    async def handle_DATA(self, _server: Any, _session: Any, envelope: Any) -> str:  # noqa: N802 - aiosmtpd's name
        message = email.message_from_bytes(envelope.content)
        self.received.append((int(message["Subject"]), message["Message-ID"]))
        return "250 OK"
