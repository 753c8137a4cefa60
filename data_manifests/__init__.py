"""Descriptions of known datasets, one YAML file each: source page, layout, licence note, counts of a complete copy."""
