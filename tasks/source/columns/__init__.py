"""What a partition, a time, an id and a vector are: Arrow columns of any accepted form as the few that the pipeline uses."""
