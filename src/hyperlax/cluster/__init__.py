"""Sweeps that many processes train, on one machine or on a cluster: units, their states, their merging."""
