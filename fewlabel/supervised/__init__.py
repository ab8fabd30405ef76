"""Learning with few labels: subsets of them, the linear probe, and metrics with honest intervals."""
