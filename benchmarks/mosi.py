"""The size of CMU-MOSI as a store of profile `paper` has it: what benchmarks are measured at."""

COUNTS = {"train": 1284, "valid": 229, "test": 686}
STREAMS = {  # modality, branch, level, width
    "albert": ("text", "own", "utterance", 768),
    "clip_text": ("text", "clip", "utterance", 1024),
    "wav2vec2": ("audio", "own", "utterance", 768),
    "esresnext": ("audio", "clip", "utterance", 1024),
    "clip_image": ("vision", "clip", "sequence", 1024),
    "face_vgg": ("vision", "own", "sequence", 4096),
}
