"""Ready-made tasks, and loading a user's own."""

from steepest.tasks.load import absolute, describe, load, names, options_by_task, with_options

__all__ = ["absolute", "describe", "load", "names", "options_by_task", "with_options"]
