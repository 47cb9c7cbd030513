"""joblib: results of functions in files."""

import joblib

from benchmarks.peers.peer import Place, produce


class Joblib:
    """A `joblib.Memory`; `map` runs its cached function in threads."""

    def __init__(self, place: Place) -> None:
        self.call = joblib.Memory(place.directory / "joblib", verbose=0).cache(produce)

    def map(self, keys: list[str], size: int) -> list[bytes]:
        return list(joblib.Parallel(n_jobs=8, prefer="threads")(joblib.delayed(self.call)(key, size) for key in keys))

    def close(self) -> None:
        """Nothing is open."""
