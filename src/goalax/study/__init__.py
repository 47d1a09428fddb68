"""What runs are worth: groups of runs, intervals, curves, reports, searches."""
