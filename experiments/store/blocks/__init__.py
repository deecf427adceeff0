"""The form in which points are stored: codec, buckets, blocks and which of them cover a window."""
