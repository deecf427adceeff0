"""The gradient on its way from the loss to W_q, and how far rounding may take it."""
