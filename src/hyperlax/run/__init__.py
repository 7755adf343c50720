"""How an experiment runs on this machine: slots, signals, records, progress, policies."""
