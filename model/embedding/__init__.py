"""One vector per tracklet: clips through the network, pooled, and kept in files."""
