"""Reading and writing the folder of an experiment: result tables, checkpoints and atomic files."""
