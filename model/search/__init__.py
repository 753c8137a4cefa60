"""What descriptors are used for: thresholds, and who resembles whom."""
