"""Training: what a task is, where chance comes from, and the engines that carry a run."""
