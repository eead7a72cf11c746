"""GLUE data, batches, metrics, training, and what surrounds a run."""
