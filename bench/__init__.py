"""Benchmarks, one file per subject; ``python -m bench`` runs them side by side with their peers."""
