"""What the hyperparameters of algorithms mean, and where each comes from, said once for all of them."""

from __future__ import annotations

from hyperlax.hyperparams.fields import Meaning
from hyperlax.hyperparams.literature import PROTOCOL

_ADAM = "Kingma and Ba 2015"
_PPO = "Schulman et al. 2017"
_DQN = "Mnih et al. 2015"
_PPO_DETAILS = "Engstrom et al. 2020"

# step sizes
STEP_SIZE = Meaning("Adam step size", _ADAM)
ACTOR_STEP_SIZE = Meaning("Adam step size of the actor", _ADAM)
CRITIC_STEP_SIZE = Meaning("Adam step size of the critic", _ADAM)
CRITICS_STEP_SIZE = Meaning("Adam step size of the twin critics", _ADAM)
TEMPERATURE_STEP_SIZE = Meaning("Adam step size of the log-temperature", _ADAM)
DECAY = Meaning("decay all step sizes linearly to zero", _PPO_DETAILS)
CLIP_GRADIENT = Meaning("global-norm clip of each network's gradient", "Pascanu et al. 2013, algorithm 1")

# returns
DISCOUNT = Meaning("discount of future rewards", "Sutton and Barto 2018, eq. 3.8")
GAE_DECAY = Meaning("decay λ of generalised advantage estimation", "Schulman et al. 2016, eq. 16")
TIME_LIMIT = Meaning(
    "what the end of an episode by its time limit counts as: truncation bootstraps from the value of the "
    "state, termination does not",
    "Pardo et al. 2018",
)
BOOTSTRAP = Meaning("the observation from whose value a truncated step bootstraps", "Pardo et al. 2018")

# what is collected
ENVS = Meaning("environments stepped side by side", "Mnih et al. 2016")
ROLLOUT = Meaning("steps per environment and cycle", f"{_PPO}, algorithm 1 (T)")
WARMUP = Meaning(
    "steps per environment before learning starts", f"{_DQN}, extended data table 1 (replay start size)"
)
WARMUP_ACTIONS = Meaning("actions during the warm-up: uniform, or those of the policy", PROTOCOL)
WARMUP_BUDGET = Meaning("whether the env steps of the warm-up count towards the budget", PROTOCOL)

# how much is learned from it
EPOCHS = Meaning("passes over the rollout", f"{_PPO}, algorithm 1 (K)")
MINIBATCHES = Meaning("gradient steps per pass", f"{_PPO}, algorithm 1")
REMAINDER = Meaning(
    "the remainder of dividing the rollout into minibatches: spread over them, or dropped", PROTOCOL
)
GRADIENT_STEPS = Meaning("gradient steps per cycle; used if update_to_data is 0", _DQN)
UPDATE_TO_DATA = Meaning("gradient steps per env step; 0: epochs says how many", "Chen et al. 2021")
BUFFER = Meaning(
    "capacity of the replay buffer, in transitions", f"{_DQN}, extended data table 1 (replay memory size)"
)
BATCH = Meaning("transitions per gradient step", f"{_DQN}, extended data table 1 (minibatch size)")
BUFFER_ROUNDING = Meaning(
    "whether the capacity of the replay buffer is rounded down to a multiple of num_envs", PROTOCOL
)
LAST_ROLLOUT = Meaning(
    "whether the rollout that reaches the budget, if one does, is learned from, or its gradients are zero",
    PROTOCOL,
)
LOSS_REDUCTION = Meaning("how the losses in a batch are combined", PROTOCOL)

# observations
NORMALIZE = Meaning("normalise observations by their running mean and standard deviation", _PPO_DETAILS)
NORMALISER_OF_CYCLES = Meaning(
    "when new observations enter the normaliser: after the cycle, or before each step", PROTOCOL
)
NORMALISER_OF_STEPS = Meaning(
    "whether an observation enters the normaliser before or after it is acted on", PROTOCOL
)
EVALUATION_NORMALISES = Meaning(
    "whether evaluation normalises observations: as training does, or always", PROTOCOL
)

# policy gradients
CLIP_RANGE = Meaning("clip range ε of the policy ratio and, with clip_value, of the value", f"{_PPO}, eq. 7")
ENTROPY = Meaning("weight of the entropy bonus", f"{_PPO}, eq. 9 (c2)")
VALUE_LOSS = Meaning("weight of the value loss", f"{_PPO}, eq. 9 (c1)")
CLIP_VALUE = Meaning("clip the value loss like the policy's, by clip_eps", _PPO_DETAILS)
STANDARDIZE = Meaning("standardise advantages to zero mean and unit variance", "Andrychowicz et al. 2021")
STANDARDIZED_OVER = Meaning("the transitions over which advantages are standardised", PROTOCOL)

# values of actions
TARGET_UPDATE = Meaning(
    "share of the new weights in each update of the target network", "Lillicrap et al. 2016, algorithm 1 (τ)"
)
EXPLORATION = Meaning(
    "share of random actions in training", f"{_DQN}, extended data table 1 (final exploration)"
)
EVALUATION_EXPLORATION = Meaning("share of random actions in deterministic evaluation", f"{_DQN}, methods")
FIRST_EXPLORATION = Meaning(
    "share of random actions at the start of a linear schedule",
    f"{_DQN}, extended data table 1 (initial exploration)",
)
EXPLORATION_DECAY = Meaning(
    "share of training that the schedule of random actions takes; 0: constant",
    f"{_DQN}, extended data table 1 (final exploration frame)",
)
REWARD_CLIP = Meaning("magnitude to which rewards are clipped", f"{_DQN}, methods")
HUBER = Meaning("error from which the Huber loss is linear; 0: squared error", "Huber 1964")
DOUBLE_Q = Meaning("choose the next action by the online network", "van Hasselt et al. 2016, eq. 4")

# entropy
AUTOTUNE = Meaning("train the temperature towards the target entropy", "Haarnoja et al. 2018, section 5")
TARGET_ENTROPY = Meaning(
    "target entropy: -scale · dimensions, or scale · log(number of actions)",
    "Haarnoja et al. 2018, section 5; Christodoulou 2019",
)
TEMPERATURE = Meaning("initial temperature α; without autotune the constant one", "Haarnoja et al. 2018")
ACTION_UNITS = Meaning(
    "units of actions in critics and entropies: bounds of -1 and 1 in every dimension, or their own", PROTOCOL
)
DENSITY_AT_BOUNDS = Meaning(
    "density of actions within 0.001 of a bound: each action's own, or one average for all", PROTOCOL
)
