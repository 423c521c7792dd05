"""Jobs that run after the response, and the mails they send."""

from plinth.jobs.declarations import GiveUp
from plinth.jobs.mail import Mailer, PermanentMailError, open_mailer
from plinth.jobs.mail_settings import MailSettings

__all__ = ["GiveUp", "MailSettings", "Mailer", "PermanentMailError", "open_mailer"]
