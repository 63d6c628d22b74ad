"""The checks of manifests/: run tests/manifests_test.py."""
