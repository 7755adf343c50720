"""What it takes to train many agents as lanes of one program: masks, lane-uniform loops, random keys."""
