"""Experiments before they run: recipes, settings, samples and lanes."""
