"""The tasks: a model, its data and what is measured."""
