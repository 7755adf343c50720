"""Tools for training many agents as lanes of one program: masks, lane-uniform loops, random keys."""
