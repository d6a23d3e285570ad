"""What the tensor ledger says: batches, sums, folded groups, dtypes."""
