"""The report page of a run or a comparison, and TensorBoard's files."""
