"""Building blocks of algorithms: rollouts, returns, replay, normalisation, optimisation, minibatches."""
