"""The checks of charts/weightlift: run tests/chart_test.py."""
