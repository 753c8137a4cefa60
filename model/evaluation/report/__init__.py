"""The report: a self-contained page, and the same as pictures and tables."""
