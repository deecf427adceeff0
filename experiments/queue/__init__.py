"""Who runs next: order, fair share, lanes, and the doorbell."""
