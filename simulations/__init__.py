"""One experiment per file. Each writes its table and its figure; `make figures` runs them all."""
