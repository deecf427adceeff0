"""The trainer as a child process: started, heard, its messages kept, ended."""
