"""One vector a tracklet: clips through the network, pooled, and kept in files."""
