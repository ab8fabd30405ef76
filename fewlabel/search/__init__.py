"""Finding the right model: how deep, how wide and at what resolution, by trying it on the user's own images."""
