"""What people have on disk, read as one table of clips: CSV, MMSA's layout, CMU's own folders."""
