"""How `headway audit` reads Python: by the standard library's `ast`, and nothing else."""

from headway.audit.python.front import FRONT_END

__all__ = ["FRONT_END"]
