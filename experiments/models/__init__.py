"""The rows of the service. Reads are named querysets; state is written by `experiments.lifecycle` alone."""

from .definitions import Experiment, Membership, Project, Role
from .lanes import Lane
from .questions import Question, QuestionState
from .run_outputs import Artifact, Checkpoint, Event, Leftover, LogChunk
from .runs import Attempt, Param, Run
from .series import Block, Clock, Frame, Group, Headline, Parcel
from .workers import Beat, Worker

__all__ = [
    "Artifact",
    "Attempt",
    "Beat",
    "Block",
    "Checkpoint",
    "Clock",
    "Event",
    "Experiment",
    "Frame",
    "Group",
    "Headline",
    "Lane",
    "Leftover",
    "LogChunk",
    "Membership",
    "Param",
    "Parcel",
    "Project",
    "Question",
    "QuestionState",
    "Role",
    "Run",
    "Worker",
]
