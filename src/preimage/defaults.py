"""What is taken where nobody says otherwise, in Python and on the command line, which imports nothing heavy."""

LIMIT = 64  # photographs that are looked at together
BASELINE_LIMIT = 20  # photographs for each slow baseline
CONFIDENCE_STEPS = 1000
AUDIT_SIZE = 64  # pixels
AUDIT_STEPS, QUICK_AUDIT_STEPS = 1500, 600
