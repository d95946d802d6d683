"""The learning-rate range test: where training learns the fastest, and where it blows up."""
