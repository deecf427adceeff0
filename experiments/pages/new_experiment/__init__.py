"""The form that submits an experiment."""
