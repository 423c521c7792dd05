"""What tasks raise."""


class GiveUp(Exception):  # noqa: N818 - named after what the task decides
    """Ends a job without another attempt; its text is the reason."""
