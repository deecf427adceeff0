"""Looking inside a model: what an input is made of, the view of every site, and maps kept during training."""
