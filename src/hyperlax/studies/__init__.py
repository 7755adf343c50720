"""Studies of several experiments: suites, benchmarks, predictions, confirmations, circuits inspected."""
