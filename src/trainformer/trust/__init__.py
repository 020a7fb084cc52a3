"""What makes a model believable: baselines, calibration, the report."""
