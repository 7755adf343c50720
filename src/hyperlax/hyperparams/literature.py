"""The literature that the meanings of hyperparameters refer to, by the short form that they use."""

from __future__ import annotations

REFERENCES: dict[str, str] = {
    "Andrychowicz et al. 2021": "What matters for on-policy deep actor-critic methods? A large-scale study. "
    "ICLR. arXiv:2006.05990",
    "Ba et al. 2016": "Layer normalization. arXiv:1607.06450",
    "Chen et al. 2021": "Randomized ensembled double Q-learning: learning fast without a model. ICLR. "
    "arXiv:2101.05982",
    "Christodoulou 2019": "Soft actor-critic for discrete action settings. arXiv:1910.07207",
    "Engstrom et al. 2020": "Implementation matters in deep policy gradients: a case study on PPO and TRPO. "
    "ICLR. arXiv:2005.12729",
    "Haarnoja et al. 2018": "Soft actor-critic algorithms and applications. arXiv:1812.05905",
    "Huber 1964": "Robust estimation of a location parameter. Annals of Mathematical Statistics 35",
    "Jerbi et al. 2021": "Parametrized quantum policies for reinforcement learning. NeurIPS. "
    "arXiv:2103.05577",
    "Kingma and Ba 2015": "Adam: a method for stochastic optimization. ICLR. arXiv:1412.6980",
    "Lillicrap et al. 2016": "Continuous control with deep reinforcement learning. ICLR. arXiv:1509.02971",
    "Mnih et al. 2015": "Human-level control through deep reinforcement learning. Nature 518",
    "Mnih et al. 2016": "Asynchronous methods for deep reinforcement learning. ICML. arXiv:1602.01783",
    "Novikov et al. 2015": "Tensorizing neural networks. NeurIPS. arXiv:1509.06569",
    "Pardo et al. 2018": "Time limits in reinforcement learning. ICML. arXiv:1712.00378",
    "Pascanu et al. 2013": "On the difficulty of training recurrent neural networks. ICML. arXiv:1211.5063",
    "Pérez-Salinas et al. 2020": "Data re-uploading for a universal quantum classifier. Quantum 4, 226. "
    "arXiv:1907.02085",
    "Schulman et al. 2016": "High-dimensional continuous control using generalized advantage estimation. "
    "ICLR. arXiv:1506.02438",
    "Schulman et al. 2017": "Proximal policy optimization algorithms. arXiv:1707.06347",
    "Skolik et al. 2022": "Quantum agents in the Gym: a variational quantum algorithm for deep Q-learning. "
    "Quantum 6, 720. arXiv:2103.15084",
    "Sutton and Barto 2018": "Reinforcement learning: an introduction. Second edition, MIT Press",
    "van Hasselt et al. 2016": "Deep reinforcement learning with double Q-learning. AAAI. arXiv:1509.06461",
}
"""Short form → title, where it appeared, and its number on arXiv if it has one."""

PROTOCOL = "differs between protocols"
"""The source of a switch that exists so that the published results can be made again."""


def cited(source: str) -> str | None:
    """The short form of the reference that `source` names, such as "Schulman et al. 2017, eq. 7"; or None."""
    return next((short for short in REFERENCES if source.startswith(short)), None)
