"""Tools for operators: the doctor, and demo runs."""
