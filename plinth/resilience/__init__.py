"""Bounds on what a service waits for: deadlines, calls to other servers, and CPU-bound work."""

from plinth.resilience.deadline import deadline, remaining
from plinth.resilience.outgoing import open_outgoing
from plinth.resilience.processes import Processes, open_processes
from plinth.resilience.settings import OutgoingSettings

__all__ = ["OutgoingSettings", "Processes", "deadline", "open_outgoing", "open_processes", "remaining"]
