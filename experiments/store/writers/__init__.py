"""Everything that writes series: frames, sealing, thinning."""
