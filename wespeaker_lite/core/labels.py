"""Labels of crops: the index of the speaker among the classes, or that of an unknown speaker."""

UNLABELLED = -1
