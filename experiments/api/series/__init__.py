"""Series over REST: points, bands over seeds, export."""
