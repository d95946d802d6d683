"""Ready-made tasks, and loading a user's own."""

from steepest.tasks.load import describe, load, names

__all__ = ["describe", "load", "names"]
