"""Ridge regression on a store, to see what the frozen features know without a network.

Run as: python examples/ridge.py cache/mosi.h5 [STREAM...]
"""

import sys

import numpy as np
from sklearn.impute import SimpleImputer
from sklearn.linear_model import RidgeCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from clipmsa.cache import FeatureStore, pooled
from clipmsa.fusion import regression_metrics

store = FeatureStore(sys.argv[1])
names = sys.argv[2:] or list(store.streams)
table = store.utterances  # a DataFrame
features = np.hstack([pooled(store.streams[name]) for name in names])  # NaN where missing
known = table["label"].notna()
train, test = known & (table["split"] == "train"), known & (table["split"] == "test")
ridge = RidgeCV(alphas=np.logspace(0, 7, 15))
model = make_pipeline(SimpleImputer(keep_empty_features=True), StandardScaler(), ridge)
model.fit(features[train], table["label"][train])
for metric, value in regression_metrics(
    model.predict(features[test]), table["label"][test].to_numpy()
).items():
    print(f"{metric} {value:.3f}")
