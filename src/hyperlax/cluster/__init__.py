"""Sweeps trained by many processes, on one machine or on a cluster: units, their states, merging them."""
