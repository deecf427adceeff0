"""Other trackers at the same work. Each module runs in its tracker's own environment, so it may import the standard
library, its tracker and `benchmarks.peer.work`, and nothing else of ours: `python -m benchmarks.peer.<name> FOLDER`."""
