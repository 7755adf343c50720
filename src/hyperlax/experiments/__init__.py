"""What an experiment is before it runs: recipe, settings, samples and lanes."""
