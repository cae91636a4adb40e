"""From image intensity to mmol/L: noise floor, receive profile, references, calibration."""
