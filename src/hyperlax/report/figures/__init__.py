"""Figures for a paper: any grouping of samples, paired differences, a look of one's own, underlying data."""
