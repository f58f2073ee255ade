"""What cc_executor costs and carries, measured side by side with its peers: ``python -m benchmarks`` or ``python benchmarks/run.py``."""
