"""Every error imgzoo raises on purpose: typed, one sentence, says what to do."""

from __future__ import annotations

from typing import Any

from .text import escaped


class ImgzooError(Exception):
    """Base of all imgzoo errors. The command line prints it as one line and exits with `exit_code`.

    Names from outside in its message are shown escaped: no control, direction or surrogate character is left.
    """

    exit_code = 2

    def __init__(self, *args: object, **named: Any) -> None:
        super().__init__(*(escaped(arg) if isinstance(arg, str) else arg for arg in args), **named)


class UsageError(ImgzooError, ValueError):
    """An argument, option or file the user gave cannot be used."""


class OptionError(UsageError, TypeError):
    """An option that the target does not take; the message lists the valid ones."""


class UnknownNameError(ImgzooError, KeyError):
    """A name no plugin brings; the message suggests near names and what to install."""

    def __str__(self) -> str:  # KeyError would print the repr
        return str(self.args[0]) if self.args else ""


class AmbiguousNameError(UnknownNameError):
    """A short name that several plugins bring; the message lists the qualified names."""


class CapabilityError(ImgzooError, NotImplementedError):
    """Something this model or component cannot do; the message names ones that can."""


class PluginError(ImgzooError):
    """A plugin is broken; the message names its distribution."""

    exit_code = 1


class PluginLoadError(PluginError):
    """A plugin's implementation could not be imported when it was needed."""


class IncompatiblePluginError(PluginError):
    """A plugin was written for another version of the plugin API."""


class WeightsError(ImgzooError):
    """A weight file is missing, damaged, unsafe or does not fit the model."""


class LicenseError(WeightsError):
    """The license policy forbids these weights; nothing was read."""


class OfflineError(WeightsError):
    """A download was needed while offline; no socket was opened."""


class DataError(ImgzooError):
    """A dataset, image or label cannot be used."""


class MissingDependencyError(ImgzooError, ImportError):
    """An optional library is missing; the message gives the install command."""


class ImgzooWarning(UserWarning):
    """What was done may not be what was meant; a command shows the sentence alone."""


class PluginWarning(ImgzooWarning):
    """A plugin could not be used."""


class ImgzooDeprecationWarning(FutureWarning):
    """A name or argument that will go away; the message gives its replacement."""
