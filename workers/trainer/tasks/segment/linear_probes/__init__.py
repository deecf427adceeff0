"""What a linear map can read from a segmenter's frozen features."""
