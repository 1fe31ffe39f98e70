"""What a trained energy is worth: verification, calibration, information, outliers."""
