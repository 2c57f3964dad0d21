"""The one error of the PostgreSQL lab."""


class LabError(Exception):
    """A server could not be had, started or stopped; the message says which step, why, and where the log is."""


class NotPublishedError(LabError):
    """There is no binary of the wanted PostgreSQL major for this platform."""
