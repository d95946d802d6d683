"""Variants of one training compared over the same seeds: averaged weights, ensembles, transfer.

A race compares optimizers. A study compares what is made of one optimizer's runs, or where they
begin, and decides with the same statistics.
"""
