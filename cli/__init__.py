"""The `clipmsa` command: thin verbs over `extract`, `fusion` and `cache`."""
