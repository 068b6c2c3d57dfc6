"""Eight exercises and ten bug hunts on the tiny model. docs/exercises.md explains them."""
