"""What people look at: tables, intervals, plots, comparisons, attention maps."""
