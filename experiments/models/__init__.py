"""The rows of the service. Reads are named querysets; state is written by `experiments.lifecycle` alone."""

from .definitions import Experiment, Membership, Project, Role
from .lanes import Lane
from .questions import Question, QuestionState
from .run_outputs import Artifact, Checkpoint, Event, LogChunk, PendingDeletion
from .runs import Attempt, Param, Run
from .series import ArchivedBlock, Block, Frame, Group, Headline, StepIndex
from .workers import LeaderLease, Worker

__all__ = [
    "ArchivedBlock", "Artifact", "Attempt", "Block", "Checkpoint", "Event", "Experiment", "Frame", "Group",
    "Headline", "Lane", "LeaderLease", "LogChunk", "Membership", "Param", "PendingDeletion", "Project", "Question",
    "QuestionState", "Role", "Run", "StepIndex", "Worker",
]  # fmt: skip
