"""Inspection of models over REST: questions, attention maps, gradient chain, linear probes."""
