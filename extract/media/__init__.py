"""Clips as numbers: pictures at a steady rate, and sound, each with its times."""

from .container import MediaInfo, probe
from .sound import read_waveform, resample
from .video import read_frames, tick_times

__all__ = ["MediaInfo", "probe", "read_frames", "read_waveform", "resample", "tick_times"]
