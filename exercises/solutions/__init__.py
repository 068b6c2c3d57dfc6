"""One solution of each exercise, and the mistakes that the tests must catch."""
