"""`make gpu-smoke`: does the trainer say the same on this machine's device as plain torch and the CPU do?"""
