"""Whether a prepared dataset is complete, and what is in it."""
