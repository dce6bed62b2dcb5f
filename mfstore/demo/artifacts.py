"""What a pipeline's step makes of a version of the flights table: a model, and small artifacts beside it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd


def train(frame: pd.DataFrame) -> Any:
    """A small gradient-boosting model of the arrival delay, trained on this version."""
    from sklearn.ensemble import HistGradientBoostingRegressor

    features = ["dep_delay", "distance", "hour"]
    known = frame.dropna(subset=["arr_delay", *features]).head(50_000)
    model = HistGradientBoostingRegressor(max_iter=60, random_state=0)
    return model.fit(known[features].to_numpy(), known["arr_delay"].to_numpy())


def small_artifacts(name: str, frame: pd.DataFrame, model: Any) -> dict[str, Any]:
    """Twenty small artifacts, such as a task keeps beside its data."""
    delays = frame["arr_delay"].describe()
    return {
        "version": name,
        "rows": len(frame),
        "columns": list(frame.columns),
        "dtypes": {column: str(kind) for column, kind in frame.dtypes.items()},
        "missing": {column: int(count) for column, count in frame.isna().sum().items()},
        "mean_delay": float(delays["mean"]),
        "delay_summary": {index: float(value) for index, value in delays.items()},
        "late_share": float(frame["late"].mean()),
        "carriers": sorted(frame["carrier"].dropna().unique().tolist()),
        "by_origin": frame["origin"].value_counts().to_dict(),
        "by_month": frame["month"].value_counts().sort_index().to_dict(),
        "top_routes": frame.groupby(["origin", "dest"]).size().nlargest(10).to_dict(),
        "features": ("dep_delay", "distance", "hour"),
        "parameters": model.get_params(),
        "iterations": int(model.n_iter_),
        "train_score": float(model.train_score_[-1]) if len(model.train_score_) else None,
        "hour_histogram": frame["hour"].value_counts().sort_index().to_numpy(),
        "first_departure": frame["time_hour"].min(),
        "tags": {"flights", "nyc", "2013"},
        "notes": None,
    }
