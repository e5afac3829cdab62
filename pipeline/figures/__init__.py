"""What the fleet does, in figures: each process counts and reports to the cache's Redis, and any program can read the sum.

Holds no key and no word of a request; never slows an answer down to count it.
"""

from pipeline.figures.fleet import FleetFigures
from pipeline.figures.keys import FigureKeys
from pipeline.figures.reading import read_figures
from pipeline.figures.reporter import Reporter, build_reporter
from pipeline.figures.tally import Tally
from pipeline.figures.watching import LifeSign, look_on

__all__ = ["FigureKeys", "FleetFigures", "LifeSign", "Reporter", "Tally", "build_reporter", "look_on", "read_figures"]
