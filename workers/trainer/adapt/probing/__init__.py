"""Which weights stand behind Q, K and V, and which rows each head owns: measured by derivatives on one batch.

`tracing` watches a forward pass for attention, whatever module computes it; `measuring` asks which entries of which
weight each head's Q, K and V depend on; `inputs` makes a batch where nobody brings one.
"""
