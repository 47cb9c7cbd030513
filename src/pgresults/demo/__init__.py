"""A main job on real input: every module of the running Python's standard library, analysed once and then reused."""
