"""Reports: tables, confidence intervals, plots, comparisons, attention maps."""
