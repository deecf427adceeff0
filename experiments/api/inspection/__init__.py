"""What stands inside a trained model, over REST: questions, maps, gradient chain, probes."""
