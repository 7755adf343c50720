"""Compiled programs: planning which lanes share one, compiling it, and training a lane in it."""
