"""Runs the tests of a page of Python one after the other, and says what came of each."""

FAILURES = (Exception, SystemExit)


def run(tests, *given):
    """The exit code. A test gets `given`, and returns why it was skipped, if it was."""
    failed = 0
    for test in tests:
        name = test.__name__.replace("_", " ")
        try:
            skipped = test(*given)
            print(f"skipped {name}: {skipped}" if skipped else f"ok      {name}")
        except FAILURES as problem:
            failed += 1
            print(f"FAILED  {name}: {type(problem).__name__}: {problem}")
    print(f"{len(tests) - failed} passed, {failed} failed")
    return 1 if failed else 0
