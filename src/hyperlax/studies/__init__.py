"""Work beyond a single experiment: suites, benchmarks, predicted times, confirmation, circuit diagnostics."""
