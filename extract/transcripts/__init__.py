"""Words with times for recordings: subtitles, pauses, speech recognition, and the cut at them."""
