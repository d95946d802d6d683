"""Classifying images from folders, IDX files or CIFAR files."""
