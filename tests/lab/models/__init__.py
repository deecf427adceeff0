"""`make models`: every architecture of transformers and timm in a tiny configuration, and whether what `attach` calls
W_q, W_k and W_v is that. Two oracles judge it that share no code with workers.trainer.adapt.
"""
