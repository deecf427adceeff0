"""The gradient from the loss to W_q, link by link, and a bound on its rounding."""
