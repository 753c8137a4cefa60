"""The report: one page that loads nothing, and the same as pictures and tables."""

from .evaluation import FORMAT_VERSION, Evaluation

__all__ = ["FORMAT_VERSION", "Evaluation"]
