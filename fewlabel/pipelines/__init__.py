"""One file per command; each composes the rooms and holds no algorithm."""
