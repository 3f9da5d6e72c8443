"""How `headway audit` reads Python: by the standard library's `ast`, and nothing else."""
