"""What flows and tasks stand on: functions, hashing, mapping."""
