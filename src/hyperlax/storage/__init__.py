"""What an experiment writes and how it is read back: tables, checkpoints, files."""
