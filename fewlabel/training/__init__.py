"""How anything is trained: the one loop, processes, checkpoints, schedules, optimisers and feature extraction."""
