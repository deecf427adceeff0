"""Which weights make Q, K and V, and which rows each head owns, measured by derivatives on one batch.

`tracing` detects attention in a forward pass, whatever module computes it; `measuring` finds the entries of the weights
that each head's Q, K and V depend on; `inputs` generates a batch where none is given.
"""
