"""Random models and damaged model files, and what the compiler must do with them: `python -m warpbeam.testing.fuzz`."""
