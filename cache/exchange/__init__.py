"""Stores in and out: what MMSA, CMU's SDK, Parquet and scikit-learn read and write."""
