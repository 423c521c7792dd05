from tests.faults.serving import serve

__all__ = ["serve"]
