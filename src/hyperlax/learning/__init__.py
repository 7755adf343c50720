"""What algorithms are made of: rollouts, returns, replay, normalisation, optimisation, minibatches."""
