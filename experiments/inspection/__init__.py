"""Inside models: questions to checkpoints, attention maps, gradient flow, linear probes."""
