"""An agent that hvbench launched by itself (`hvbench sweep --np N`): `python -m hvbench.launch`."""

from hvbench.launch.agent import run_agent
from hvbench.launch.context import detect_context

if __name__ == "__main__":
    run_agent(detect_context())
