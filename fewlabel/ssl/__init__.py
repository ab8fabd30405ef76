"""Learning without labels: the NT-Xent loss, SimCLR, and the health of what it learns."""
