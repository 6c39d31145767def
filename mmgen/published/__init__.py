"""Published systems: their checkpoints become pipelines of ours.

One module a system: a key map and a configuration map onto our own networks.
"""
