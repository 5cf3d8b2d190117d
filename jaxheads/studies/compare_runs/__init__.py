"""Arms of an experiment: trainings that differ in their objective, compared."""
