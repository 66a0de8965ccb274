"""The application's thin layer: references on disk, storage, and the stages as Prefect tasks."""
